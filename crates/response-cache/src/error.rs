//! What can go wrong, all of it before an answer is kept. Reading never fails: it misses.

/// Why the cache cannot start, or why an answer is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A bound of the configuration makes no sense.
    #[error("`{field}` is {value}, but must be between {min} and {max}")]
    Bound {
        /// The field of [`crate::Config`].
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// `redis_url` is not an address that can be used. The address itself may hold a password and is left out.
    #[error("`redis_url` cannot be used: {0}; expected redis://[user:password@]host:port[/database]")]
    RedisUrl(String),
    /// The tasks behind the Redis tier need a runtime.
    #[error("the cache was started outside a tokio runtime; start it from within one")]
    NoRuntime,
    /// The answer is not of the shape that its endpoint has.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// An answer that broke off must not be replayed.
    #[error("the answer is incomplete: {0}")]
    Incomplete(String),
    /// The answer holds something that cannot be carried over to the other form.
    #[error("the answer cannot be kept: `{0}` has no faithful replay in both forms")]
    Unsupported(String),
    /// A kept value is damaged, of another version, or larger than allowed.
    #[error("the kept value is damaged: {0}")]
    Corrupt(&'static str),
}
