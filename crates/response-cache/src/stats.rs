//! What the cache did, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters at one moment. All but the last five only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Answers found in this process.
    pub memory_hits: u64,
    /// Answers found in Redis.
    pub redis_hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Look-ups and writes that left Redis out because it had failed, or had not been reached yet.
    pub redis_skipped: u64,
    /// Calls that Redis did not answer in time.
    pub redis_timeouts: u64,
    /// Calls that failed otherwise: a lost connection, a refused command.
    pub redis_errors: u64,
    /// Values in Redis that were damaged, of another version or too large.
    pub redis_corrupt: u64,
    /// Answers written to Redis.
    pub redis_writes: u64,
    /// Answers that were not written to Redis: the queue was full, or Redis was gone.
    pub writes_dropped: u64,
    /// Answers larger than `answer_bytes_max`, kept nowhere.
    pub answers_too_large: u64,
    /// Requests that followed another one in flight instead of being computed.
    pub coalesced: u64,
    /// Answers held in this process.
    pub entries: u64,
    /// The memory that they take.
    pub bytes: u64,
    /// Distinct requests in flight.
    pub flights: u64,
    /// Answers that wait to be written to Redis.
    pub writes_queued: u64,
    /// Whether Redis is in use at this moment.
    pub redis_up: bool,
}

/// The counters that grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) memory_hits: Counter,
    pub(crate) redis_hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) redis_skipped: Counter,
    pub(crate) redis_timeouts: Counter,
    pub(crate) redis_errors: Counter,
    pub(crate) redis_corrupt: Counter,
    pub(crate) redis_writes: Counter,
    pub(crate) writes_dropped: Counter,
    pub(crate) answers_too_large: Counter,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            memory_hits: self.memory_hits.get(),
            redis_hits: self.redis_hits.get(),
            misses: self.misses.get(),
            redis_skipped: self.redis_skipped.get(),
            redis_timeouts: self.redis_timeouts.get(),
            redis_errors: self.redis_errors.get(),
            redis_corrupt: self.redis_corrupt.get(),
            redis_writes: self.redis_writes.get(),
            writes_dropped: self.writes_dropped.get(),
            answers_too_large: self.answers_too_large.get(),
            ..Stats::default()
        }
    }
}

/// A number that many tasks add to; no order between counters is promised.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
