//! The tier in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::{CacheKey, CachedAnswer};

/// What an entry takes beside its answer: the key, the policy's own lists, the counters.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Answers bounded by the memory that they take, each with its own time to live.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Cache<CacheKey, Entry>);

#[derive(Clone, Debug)]
struct Entry {
    answer: Arc<CachedAnswer>,
    ttl: Duration,
}

impl Memory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let weight = |_: &CacheKey, entry: &Entry| {
            u32::try_from(entry.answer.memory_bytes() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes_max).weigher(weight).expire_after(OwnTtl).build())
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        self.0.get(key).map(|entry| entry.answer)
    }

    pub(crate) fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>, ttl: Duration) {
        self.0.insert(key, Entry { answer, ttl });
    }

    /// How many answers there are, and the memory that they take.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count(), self.0.weighted_size())
    }
}

/// An answer that came from Redis has lived a part of its time already.
struct OwnTtl;

impl Expiry<CacheKey, Entry> for OwnTtl {
    fn expire_after_create(&self, _: &CacheKey, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, KeyParts};

    fn key(number: u32) -> CacheKey {
        let body = serde_json::json!({ "prompt": number });
        CacheKey::new(&KeyParts {
            model_version: "v",
            tenant: "t",
            endpoint: Endpoint::Completion,
            body: &body,
        })
    }

    fn answer(length: usize) -> Arc<CachedAnswer> {
        let text = "x".repeat(length);
        let body =
            format!(r#"{{"id":"cmpl-1","choices":[{{"index":0,"text":"{text}","finish_reason":"stop"}}]}}"#);
        Arc::new(CachedAnswer::from_json(Endpoint::Completion, body).expect("complete"))
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn many_answers_never_take_more_than_the_bound() {
        let memory = Memory::new(100_000);
        for number in 0..1000 {
            memory.put(key(number), answer(1000), HOUR);
        }
        let (entries, bytes) = memory.size();
        assert!(bytes <= 100_000, "{bytes}");
        assert!((10..=100).contains(&entries), "{entries}");
    }

    #[test]
    fn an_answer_larger_than_the_tier_is_not_held() {
        let memory = Memory::new(1000);
        memory.put(key(1), answer(10_000), HOUR);
        assert_eq!(memory.size(), (0, 0));
    }

    #[test]
    fn an_answer_is_gone_when_its_own_time_is_over_and_another_is_not() {
        let memory = Memory::new(100_000);
        memory.put(key(1), answer(10), Duration::from_millis(1));
        memory.put(key(2), answer(10), HOUR);
        let start = Instant::now();
        while memory.get(&key(1)).is_some() {
            assert!(start.elapsed() < Duration::from_secs(10), "the answer outlived its time");
            std::thread::yield_now();
        }
        assert!(memory.get(&key(2)).is_some());
    }
}
