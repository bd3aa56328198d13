//! What the followers and the leader of one flight share: synchronous, and without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use protocol::ApiError;

use super::{FlightEvent, FlightFailed, Pushed};
use crate::CachedAnswer;

/// How a flight ended.
#[derive(Debug)]
pub(super) enum End {
    Complete(Arc<CachedAnswer>),
    Ended(Option<Bytes>),
    Failed(Option<ApiError>),
}

#[derive(Debug)]
pub(super) struct State {
    /// Events from number `dropped` on.
    log: VecDeque<Bytes>,
    dropped: usize,
    log_bytes: usize,
    log_bytes_max: usize,
    overflowed: bool,
    end: Option<End>,
    followers: BTreeMap<u64, Reader>,
    next_id: u64,
    /// The last follower has left.
    abandoned: bool,
}

#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Has read this many events.
    At(usize),
    /// Reads none: it wants the whole answer.
    WaitsForEnd,
}

impl State {
    pub(super) fn new(log_bytes_max: usize) -> Self {
        Self {
            log: VecDeque::new(),
            dropped: 0,
            log_bytes: 0,
            log_bytes_max,
            overflowed: false,
            end: None,
            followers: BTreeMap::new(),
            next_id: 0,
            abandoned: false,
        }
    }

    pub(super) fn may_be_joined(&self) -> bool {
        self.end.is_none() && !self.overflowed && !self.abandoned
    }

    pub(super) fn num_followers(&self) -> usize {
        self.followers.len()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned && self.followers.is_empty()
    }

    /// Readers start at the log's start, even at one that has been dropped already for the leader's own late one.
    pub(super) fn add_follower(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.followers.insert(id, Reader::At(self.dropped));
        id
    }

    pub(super) fn remove_follower(&mut self, id: u64) {
        self.followers.remove(&id);
        self.abandoned |= self.followers.is_empty();
    }

    /// None: there is no room until a follower has read.
    pub(super) fn push(&mut self, event: &Bytes) -> Option<Pushed> {
        assert!(self.end.is_none(), "a leader pushes nothing after the end");
        let fits = self.log_bytes + cost(event) <= self.log_bytes_max;
        self.overflowed |= !fits;
        if !self.overflowed {
            self.append(event);
            return Some(Pushed::Kept);
        }
        self.drop_what_all_have_read();
        // An event larger than the whole log goes through alone.
        if !self.log.is_empty() && self.log_bytes + cost(event) > self.log_bytes_max {
            return None;
        }
        self.append(event);
        Some(Pushed::Overflowed)
    }

    pub(super) fn events(&self) -> Option<Vec<Bytes>> {
        (!self.overflowed).then(|| self.log.iter().cloned().collect())
    }

    /// The first end is the one that counts.
    pub(super) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// What the follower is to be told; none while there is nothing new.
    pub(super) fn next(&mut self, id: u64) -> Option<FlightEvent> {
        let Some(Reader::At(position)) = self.followers.get_mut(&id) else {
            unreachable!(
                "a follower reads only while it is registered, and never after it waits for the end"
            );
        };
        if let (0, Some(End::Failed(error))) = (*position, &self.end) {
            // It may start over, so it is spared the start of an answer that has no end.
            let failed = FlightFailed { retryable: error.is_none(), error: error.clone() };
            return Some(FlightEvent::Failed(failed));
        }
        if let Some(event) = self.log.get(*position - self.dropped) {
            *position += 1;
            return Some(FlightEvent::Event(event.clone()));
        }
        self.end.as_ref().map(|end| match end {
            End::Complete(answer) => FlightEvent::Complete(Arc::clone(answer)),
            End::Ended(usage) => FlightEvent::Ended { usage: usage.clone() },
            End::Failed(error) => {
                FlightEvent::Failed(FlightFailed { retryable: false, error: error.clone() })
            }
        })
    }

    pub(super) fn wait_for_end(&mut self, id: u64) {
        self.followers.insert(id, Reader::WaitsForEnd);
    }

    /// What a follower that waits for the whole answer is to be told; none while it may still come.
    pub(super) fn whole(&self) -> Option<Result<Arc<CachedAnswer>, FlightFailed>> {
        match &self.end {
            Some(End::Complete(answer)) => Some(Ok(Arc::clone(answer))),
            Some(End::Failed(error)) => {
                Some(Err(FlightFailed { retryable: error.is_none(), error: error.clone() }))
            }
            Some(End::Ended(_)) => Some(Err(FlightFailed { retryable: true, error: None })),
            None if self.overflowed => Some(Err(FlightFailed { retryable: true, error: None })),
            None => None,
        }
    }

    fn append(&mut self, event: &Bytes) {
        self.log_bytes += cost(event);
        self.log.push_back(event.clone());
    }

    fn drop_what_all_have_read(&mut self) {
        let written = self.dropped + self.log.len();
        let positions = self.followers.values().map(|reader| match reader {
            Reader::At(position) => *position,
            Reader::WaitsForEnd => written,
        });
        let read_by_all = positions.min().unwrap_or(written);
        while self.dropped < read_by_all {
            let Some(event) = self.log.pop_front() else { break };
            self.log_bytes -= cost(&event);
            self.dropped += 1;
        }
    }
}

/// An event's bytes and its place in the log, so that many small events are bounded too.
fn cost(event: &Bytes) -> usize {
    event.len() + size_of::<Bytes>()
}
