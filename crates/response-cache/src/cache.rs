//! The tiers together.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::memory::Memory;
use crate::redis_tier::RedisTier;
use crate::stats::Counters;
use crate::{CacheKey, CachedAnswer, Config, Error, Flights, Stats};

/// Where an answer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// In this process.
    Memory,
    /// In Redis.
    Redis,
}

/// Answers given before, and those about to be given.
///
/// The order that leaves the fewest requests computed twice: `get`; on a miss [`Flights::join`]; a leader looks once
/// more with [`Self::peek`], for the answer may have arrived between the two; a leader that has an answer puts it
/// before it completes its flight.
#[derive(Debug)]
pub struct ResponseCache {
    config: Config,
    memory: Memory,
    redis: Option<RedisTier>,
    flights: Flights,
    counters: Arc<Counters>,
}

impl ResponseCache {
    /// Checks the configuration and starts the tasks behind the Redis tier, where there is one; needs a tokio
    /// runtime. It does not wait for Redis. Dropping the cache ends the tasks.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.validate()?;
        Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let counters = Arc::new(Counters::default());
        let client = if config.enabled { config.redis_client()? } else { None };
        Ok(Self {
            memory: Memory::new(config.memory_bytes_max),
            redis: client.map(|client| RedisTier::start(client, &config, Arc::clone(&counters))),
            flights: Flights::new(&config),
            counters,
            config,
        })
    }

    /// Looks for an answer, in this process first. What is found in Redis is kept here for the time that it has left.
    /// Never an error: what cannot be read in time is not there.
    pub async fn get(&self, key: &CacheKey) -> Option<(Arc<CachedAnswer>, Tier)> {
        if !self.config.enabled {
            return None;
        }
        if let Some(answer) = self.memory.get(key) {
            self.counters.memory_hits.add_one();
            return Some((answer, Tier::Memory));
        }
        let found = match &self.redis {
            Some(redis) => redis.get(key).await,
            None => None,
        };
        let Some((answer, left)) = found else {
            self.counters.misses.add_one();
            return None;
        };
        self.counters.redis_hits.add_one();
        let answer = Arc::new(answer);
        self.memory.put(*key, Arc::clone(&answer), left);
        Some((answer, Tier::Redis))
    }

    /// Looks in this process only, without waiting and without counting.
    pub fn peek(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        self.config.enabled.then(|| self.memory.get(key)).flatten()
    }

    /// Keeps an answer: here at once, in Redis as soon as the queue gets to it. One above `answer_bytes_max` is not
    /// kept.
    pub fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>) {
        if !self.config.enabled {
            return;
        }
        if answer.size_bytes() > self.config.answer_bytes_max {
            self.counters.answers_too_large.add_one();
            return;
        }
        self.memory.put(key, Arc::clone(&answer), Duration::from_secs(self.config.ttl_s));
        if let Some(redis) = &self.redis {
            redis.put(key, answer);
        }
    }

    /// Requests in flight. They are coalesced whether or not answers are kept.
    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        let (entries, bytes) = self.memory.size();
        Stats {
            entries,
            bytes,
            flights: self.flights.in_flight(),
            coalesced: self.flights.coalesced(),
            writes_queued: self.redis.as_ref().map_or(0, RedisTier::queued),
            redis_up: self.redis.as_ref().is_some_and(|redis| *redis.up().borrow()),
            ..self.counters.snapshot()
        }
    }

    /// Whether Redis is in use, as it changes; none without a Redis tier.
    pub fn redis_up(&self) -> Option<watch::Receiver<bool>> {
        self.redis.as_ref().map(RedisTier::up)
    }

    /// For a shutdown: waits until what was put has been written to Redis or dropped, at most `deadline`. Whether it
    /// was in time.
    pub async fn flush(&self, deadline: Duration) -> bool {
        match &self.redis {
            Some(redis) => redis.flush(deadline).await,
            None => true,
        }
    }
}
