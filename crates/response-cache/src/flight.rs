//! Identical requests that are in flight at the same time are computed once.
//!
//! The first to ask for a key leads: its caller runs the fetch in a task of its own, so that the fetch does not die
//! with one client, and the first client is a follower like every other. The leader appends the answer's events to a
//! log; each follower replays the log from its start at its own pace and then goes on live.
//!
//! Up to `answer_bytes_max` the log holds the whole answer and a slow follower holds up nobody. Above it the flight
//! overflows: nobody joins any more, the answer will not be kept, what every follower has read is dropped, and
//! [`Leader::push`] waits for the slowest follower. That bounds memory, and a client that reads slowly slows down
//! the worker as if it were alone. A follower that waits for a whole answer cannot get one from a log with a hole:
//! it fails, retryably.
//!
//! No lock is held across an await: the state is guarded by a mutex for a few instructions at a time, and everyone
//! waits in one function, [`wait_until`], which loses no wake-up.

mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use protocol::ApiError;
use tokio::sync::Notify;

use crate::{CacheKey, CachedAnswer, Config};
use state::{End, State};

/// The requests in flight, by key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Flights(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    flights: Mutex<HashMap<CacheKey, Arc<Flight>>>,
    flights_max: usize,
    followers_max: usize,
    log_bytes_max: usize,
    coalesced: AtomicU64,
}

#[derive(Debug)]
struct Flight {
    state: Mutex<State>,
    /// Wakes followers: an event, the end, or an overflow.
    grown: Notify,
    /// Wakes the leader: a follower has read or left.
    read: Notify,
}

/// What became of a request that wanted to fly.
#[derive(Debug)]
#[must_use]
pub enum Joined {
    /// Nobody asks the same: fetch the answer, for yourself and for those who come.
    Leader(Leader),
    /// Somebody does: wait for their answer.
    Follower(Follower),
    /// The bounds are reached: fetch the answer for yourself alone.
    Full,
}

/// What a follower is told next.
#[derive(Clone, Debug, PartialEq)]
pub enum FlightEvent {
    /// The payload of the next event.
    Event(Bytes),
    /// The answer is whole. If no event came before, it was not streamed: all of it is in here. If some did, they
    /// were all of it but for the usage.
    Complete(Arc<CachedAnswer>),
    /// The stream is whole but makes no answer to keep. All of it was in the events, but for the usage.
    Ended {
        /// The payload with `choices: []`, if the worker sent one.
        usage: Option<Bytes>,
    },
    /// The leader failed, and so did this follower.
    Failed(FlightFailed),
}

/// The leader gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request that this one followed has failed")]
pub struct FlightFailed {
    /// Nothing was delivered yet, and the cause may have been the leader's alone: join again, perhaps to lead. How
    /// often is the caller's to bound.
    pub retryable: bool,
    /// An error that would be the same for everyone, to be handed to the client.
    pub error: Option<ApiError>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The log is still whole.
    Kept,
    /// The answer has outgrown the log: it cannot be kept.
    Overflowed,
}

impl Flights {
    /// No flights yet; takes `flights_max`, `flight_followers_max` and `answer_bytes_max`.
    pub fn new(config: &Config) -> Self {
        let bound = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self(Arc::new(Shared {
            flights: Mutex::default(),
            flights_max: bound(config.flights_max),
            followers_max: bound(config.flight_followers_max),
            log_bytes_max: bound(config.answer_bytes_max),
            coalesced: AtomicU64::new(0),
        }))
    }

    /// Follows the flight for `key`, or starts one. A flight that has ended, overflowed or lost its last follower is
    /// replaced.
    pub fn join(&self, key: CacheKey) -> Joined {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(&key) {
            let mut state = flight.lock();
            if state.may_be_joined() {
                if state.num_followers() >= self.0.followers_max {
                    return Joined::Full;
                }
                self.0.coalesced.fetch_add(1, Ordering::Relaxed);
                let id = state.add_follower();
                drop(state);
                return Joined::Follower(Follower { flight: Arc::clone(flight), id });
            }
        } else if flights.len() >= self.0.flights_max {
            return Joined::Full;
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State::new(self.0.log_bytes_max)),
            grown: Notify::new(),
            read: Notify::new(),
        });
        flights.insert(key, Arc::clone(&flight));
        Joined::Leader(Leader { shared: Arc::clone(&self.0), key, flight })
    }

    /// How many flights can be joined or are still led.
    pub fn in_flight(&self) -> u64 {
        self.0.lock().len() as u64
    }

    /// How many requests ever followed another one.
    pub fn coalesced(&self) -> u64 {
        self.0.coalesced.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        self.lock().end(end);
        self.grown.notify_waiters();
    }
}

/// Looks again whenever it is notified, until there is something. The `Notified` is made before the look and hears
/// every `notify_waiters` from then on, so that a change between look and wait is not missed.
async fn wait_until<T>(changed: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let notified = changed.notified();
        if let Some(value) = look() {
            return value;
        }
        // The moment that a race needs is a few nanoseconds long; tests make it last until the next poll.
        #[cfg(test)]
        tokio::task::yield_now().await;
        notified.await;
    }
}

/// The right and the duty to bring the answer. Dropped without an end, the flight has failed.
#[derive(Debug)]
pub struct Leader {
    shared: Arc<Shared>,
    key: CacheKey,
    flight: Arc<Flight>,
}

impl Leader {
    /// A follower of this flight: the first client's own, made before anything is pushed. It is not counted as
    /// coalesced.
    pub fn subscribe(&self) -> Follower {
        let id = self.flight.lock().add_follower();
        Follower { flight: Arc::clone(&self.flight), id }
    }

    /// Appends the payload of an event with choices; the one with usage alone belongs to the end. It waits only
    /// after an overflow, until the slowest follower has made room. Dropped while it waits, it appended nothing. One
    /// call at a time keeps the order.
    pub async fn push(&self, event: Bytes) -> Pushed {
        wait_until(&self.flight.read, || {
            let pushed = self.flight.lock().push(&event);
            // Even an event that found no room may have been the overflow, which those who wait for the whole must
            // learn.
            self.flight.grown.notify_waiters();
            pushed
        })
        .await
    }

    /// Every event so far, to make the answer of; none after an overflow.
    pub fn events(&self) -> Option<Vec<Bytes>> {
        self.flight.lock().events()
    }

    /// Resolves when there was a follower and none is left, so that the fetch can be cancelled. From then on nobody
    /// joins.
    pub async fn abandoned(&self) {
        wait_until(&self.flight.read, || self.flight.lock().is_abandoned().then_some(())).await;
    }

    /// The answer is there. Put it into the cache before, so that nobody who comes between the two finds neither.
    pub fn complete(self, answer: Arc<CachedAnswer>) {
        self.flight.end(End::Complete(answer));
    }

    /// The stream is whole, but it is no answer to keep: it overflowed, or cannot be replayed in both forms.
    pub fn end(self, usage: Option<Bytes>) {
        self.flight.end(End::Ended(usage));
    }

    /// The fetch failed. Followers that have delivered nothing may try again.
    pub fn fail(self) {
        self.flight.end(End::Failed(None));
    }

    /// The fetch failed as it would have for everyone, so that followers should not try again.
    pub fn fail_with(self, error: ApiError) {
        self.flight.end(End::Failed(Some(error)));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        {
            let mut flights = self.shared.lock();
            // The entry may belong to a flight that replaced this one.
            if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
                flights.remove(&self.key);
            }
        }
        // Without effect on a flight that has ended.
        self.flight.end(End::Failed(None));
    }
}

/// One client's view of a flight.
#[derive(Debug)]
pub struct Follower {
    flight: Arc<Flight>,
    id: u64,
}

impl Follower {
    /// The next event, or how it all ended; the end is told again if asked again. Dropped while it waits, it took
    /// nothing.
    pub async fn next(&mut self) -> FlightEvent {
        let event = wait_until(&self.flight.grown, || self.flight.lock().next(self.id)).await;
        if matches!(event, FlightEvent::Event(_)) {
            self.flight.read.notify_waiters();
        }
        event
    }

    /// The whole answer, for a client that did not ask for a stream. A stream that outgrew the log, or that makes no
    /// answer, fails retryably: the caller's own request is not a stream and needs no log.
    pub async fn complete(self) -> Result<Arc<CachedAnswer>, FlightFailed> {
        self.flight.lock().wait_for_end(self.id);
        self.flight.read.notify_waiters();
        wait_until(&self.flight.grown, || self.flight.lock().whole()).await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.lock().remove_follower(self.id);
        self.flight.read.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
