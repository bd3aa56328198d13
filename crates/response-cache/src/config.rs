//! The cache's bounds.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::Error;

/// What may be kept, for how long, and where.
///
/// Printing it, by `Debug` or by serialization, hides the password in `redis_url`: a configuration is shown to
/// people and written to logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether answers are kept and given again. Coalescing is the caller's choice, request by request.
    pub enabled: bool,
    /// How long an answer may be given again after it was first given, across both tiers.
    pub ttl_s: u64,
    /// The most memory that answers take in this process; 0 leaves Redis as the only tier.
    pub memory_bytes_max: u64,
    /// The largest answer that is kept, and the longest log of an answer in flight.
    pub answer_bytes_max: u64,
    /// `redis://[user:password@]host:port[/database]`; absent, answers stay in this process.
    #[serde(serialize_with = "without_password")]
    pub redis_url: Option<String>,
    /// The longest that a request waits for Redis. Above it the request is a miss.
    pub redis_timeout_ms: u64,
    /// The longest that work behind the requests waits for Redis: connecting, probing, writing.
    pub redis_background_timeout_ms: u64,
    /// After this many time-outs in a row Redis is left alone for a while; a lost connection counts for all of them.
    pub redis_failures_max: u32,
    /// How long Redis is left alone before it is probed again, and between probes.
    pub redis_cooldown_ms: u64,
    /// Starts each key in Redis, so that several systems can share one.
    pub redis_key_prefix: String,
    /// The most answers that wait to be written to Redis; one more is dropped.
    pub redis_write_queue_max: u64,
    /// The most bytes of answers that wait to be written to Redis; more are dropped.
    pub redis_write_queue_bytes_max: u64,
    /// The most distinct requests that are coalesced at a time. Each holds at most `answer_bytes_max` of log.
    pub flights_max: u64,
    /// The most followers of one request in flight.
    pub flight_followers_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl_s: 3600,
            memory_bytes_max: 64 << 20,
            answer_bytes_max: 1 << 20,
            redis_url: None,
            redis_timeout_ms: 5,
            redis_background_timeout_ms: 1000,
            redis_failures_max: 5,
            redis_cooldown_ms: 1000,
            redis_key_prefix: "tenk:answer:".to_owned(),
            redis_write_queue_max: 1024,
            redis_write_queue_bytes_max: 16 << 20,
            flights_max: 4096,
            flight_followers_max: 1024,
        }
    }
}

impl Config {
    /// Refuses bounds that cannot work and an address that cannot be understood.
    pub fn validate(&self) -> Result<(), Error> {
        within("ttl_s", self.ttl_s, 1, 30 * 24 * 3600)?;
        within("memory_bytes_max", self.memory_bytes_max, 0, 1 << 40)?;
        within("answer_bytes_max", self.answer_bytes_max, 1 << 10, 64 << 20)?;
        within("redis_timeout_ms", self.redis_timeout_ms, 1, 1000)?;
        within("redis_background_timeout_ms", self.redis_background_timeout_ms, 10, 60_000)?;
        within("redis_failures_max", u64::from(self.redis_failures_max), 1, 1000)?;
        within("redis_cooldown_ms", self.redis_cooldown_ms, 10, 600_000)?;
        within("redis_key_prefix (bytes)", self.redis_key_prefix.len() as u64, 0, 256)?;
        within("redis_write_queue_max", self.redis_write_queue_max, 1, 1 << 20)?;
        within(
            "redis_write_queue_bytes_max",
            self.redis_write_queue_bytes_max,
            self.answer_bytes_max,
            1 << 32,
        )?;
        within("flights_max", self.flights_max, 1, 1 << 20)?;
        within("flight_followers_max", self.flight_followers_max, 1, 1 << 20)?;
        self.redis_client().map(drop)
    }

    /// A client for `redis_url`, where there is one. It connects nowhere yet.
    pub(crate) fn redis_client(&self) -> Result<Option<redis::Client>, Error> {
        let Some(url) = self.redis_url.as_deref() else { return Ok(None) };
        // The library's own message may repeat the address; its category does not.
        redis::Client::open(url).map(Some).map_err(|error| Error::RedisUrl(error.category().to_owned()))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("enabled", &self.enabled)
            .field("ttl_s", &self.ttl_s)
            .field("memory_bytes_max", &self.memory_bytes_max)
            .field("answer_bytes_max", &self.answer_bytes_max)
            .field("redis_url", &self.redis_url.as_deref().map(masked))
            .field("redis_timeout_ms", &self.redis_timeout_ms)
            .field("redis_background_timeout_ms", &self.redis_background_timeout_ms)
            .field("redis_failures_max", &self.redis_failures_max)
            .field("redis_cooldown_ms", &self.redis_cooldown_ms)
            .field("redis_key_prefix", &self.redis_key_prefix)
            .field("redis_write_queue_max", &self.redis_write_queue_max)
            .field("redis_write_queue_bytes_max", &self.redis_write_queue_bytes_max)
            .field("flights_max", &self.flights_max)
            .field("flight_followers_max", &self.flight_followers_max)
            .finish()
    }
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Bound { field, value, min, max }) }
}

/// The address with `***` for its user and password, and without its query, which may hold one too.
fn masked(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(address, _)| address);
    let (scheme, address) = url.split_once("://").unwrap_or(("redis", url));
    match address.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => format!("{scheme}://{address}"),
    }
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn without_password<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(masked).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_pinned_and_valid() {
        let config = Config::default();
        config.validate().expect("the defaults are valid");
        assert!(config.enabled);
        assert_eq!(
            (config.ttl_s, config.memory_bytes_max, config.answer_bytes_max),
            (3600, 64 << 20, 1 << 20)
        );
        assert_eq!((config.redis_url.as_deref(), config.redis_timeout_ms), (None, 5));
        assert_eq!((config.redis_failures_max, config.redis_cooldown_ms), (5, 1000));
        assert_eq!((config.flights_max, config.flight_followers_max), (4096, 1024));
    }

    #[test]
    fn an_empty_table_is_the_default_and_an_unknown_key_is_refused() {
        assert_eq!(toml::from_str::<Config>("").expect("parses"), Config::default());
        let error = toml::from_str::<Config>("ttl_ms = 5").expect_err("no such key").to_string();
        assert!(error.contains("ttl_ms") && error.contains("ttl_s"), "{error}");
    }

    #[test]
    fn bounds_that_cannot_work_are_refused_by_name() {
        let error = Config { ttl_s: 0, ..Config::default() }.validate().expect_err("0 is refused");
        assert!(error.to_string().contains("ttl_s"), "{error}");
        let config = Config { redis_write_queue_bytes_max: 5, ..Config::default() };
        assert!(
            config
                .validate()
                .expect_err("below one answer")
                .to_string()
                .contains("redis_write_queue_bytes_max")
        );
    }

    #[test]
    fn an_address_is_checked_and_its_password_never_shown() {
        let secret = "redis://user:pa55word@localhost:6379/2";
        let config = Config { redis_url: Some(secret.to_owned()), ..Config::default() };
        config.validate().expect("a good address");
        let shown = format!("{config:?} {}", toml::to_string(&config).expect("serializes"));
        assert!(!shown.contains("pa55word"), "{shown}");
        assert!(shown.contains("redis://***@localhost:6379/2"), "{shown}");

        let bad = Config { redis_url: Some("memcached://pa55word@host".to_owned()), ..Config::default() };
        let error = bad.validate().expect_err("another protocol").to_string();
        assert!(error.contains("redis_url") && !error.contains("pa55word"), "{error}");
    }
}
