//! What all requests in flight share, and how a conversation is led.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::answer_hash;
use crate::asking::{Asking, WARMUP_INDEX_START};
use crate::client::{Client, Job};
use crate::clock::Clock;
use crate::collector::Records;
use crate::live::Progress;
use crate::record::{Failure, FailureKind, RequestRecord};

/// How long a user whose connection was refused waits, lest a dead server be measured by its refusals.
const CONNECT_PAUSE_US: u64 = 100_000;

/// The means of sending, and the count of what is in flight.
pub(super) struct Lanes {
    client: Client,
    asking: Arc<dyn Asking>,
    pub(super) records: Records,
    pub(super) progress: Arc<Progress>,
    in_flight: AtomicU64,
    /// Conversations of an open loop, or users.
    active: AtomicU64,
    has_panicked: AtomicBool,
    idle: Notify,
}

/// One of a number; leaving it is what makes it end, however that happens.
pub(super) struct Place(Arc<Lanes>);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_panicked.store(true, Ordering::Relaxed);
        }
        if self.0.active.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// Which conversation, in which phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversation {
    pub(super) index: u64,
    pub(super) warmup: bool,
    pub(super) clock: Clock,
}

impl Lanes {
    pub(super) fn new(
        client: Client,
        asking: Arc<dyn Asking>,
        records: Records,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            client,
            asking,
            records,
            progress,
            in_flight: AtomicU64::new(0),
            active: AtomicU64::new(0),
            has_panicked: AtomicBool::new(false),
            idle: Notify::new(),
        }
    }

    /// Requests that were sent and are not at their end.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn enter(self: &Arc<Self>) -> Place {
        self.active.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }

    /// Waits until every place is left. False if one was left by a panic.
    pub(super) async fn wait_until_idle(&self) -> bool {
        while self.active() > 0 {
            self.idle.notified().await;
        }
        !self.has_panicked.load(Ordering::Relaxed)
    }

    /// Sends the turns of a conversation, the first when it is due at `due_us`. `next_due_us` says from (turn, when its
    /// user became free) when the next one is due; none ends the conversation. Returns when its user is free again.
    pub(super) async fn converse(
        &self,
        conversation: Conversation,
        mut due_us: u64,
        next_due_us: impl Fn(u32, u64) -> Option<u64>,
    ) -> u64 {
        let Conversation { index, warmup, clock } = conversation;
        let index_of_all = if warmup { WARMUP_INDEX_START + index } else { index };
        let mut history = Vec::new();
        for turn in 0.. {
            let asked = self.asking.request(index_of_all, turn, &history);
            let job = Job { index, turn, warmup, scheduled_us: due_us, asked: &asked };
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            if !warmup {
                self.progress.count_sent();
            }
            let mut sent = self.client.send(job, clock).await;
            if sent.record.answer_hash.is_some() {
                sent.record.prompt_hash = Some(answer_hash::of_bytes(&asked.messages_json));
            }
            let failure = sent.record.failure.as_ref().map(|failure| failure.kind);
            let pause_us = if failure == Some(FailureKind::Connect) { CONNECT_PAUSE_US } else { 0 };
            let free_us = sent.record.done_us + pause_us;
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.records.push(sent.record).await;
            // A turn is an answer to the one before, so a failure ends the conversation.
            let next = (asked.more_turns && failure.is_none()).then(|| next_due_us(turn + 1, free_us));
            match next.flatten() {
                None => return free_us,
                Some(next_us) => due_us = next_us,
            }
            history.push(sent.text.unwrap_or_default());
            clock.sleep_until(due_us).await;
        }
        due_us
    }

    /// Records a request that was due and cannot be sent.
    pub(super) async fn give_up(&self, index: u64, scheduled_us: u64, clock: Clock) {
        let now_us = clock.now_us();
        let reason = format!("{} requests were in flight, and no more may be", self.active());
        self.records
            .push(RequestRecord {
                index,
                scheduled_us,
                sent_us: now_us,
                done_us: now_us,
                failure: Some(Failure::new(FailureKind::Unsent, reason)),
                ..RequestRecord::default()
            })
            .await;
    }
}
