//! Answers that were given before, given again.
//!
//! A deterministic request asked twice need not be computed twice. This crate holds what that takes: the key that
//! tells whether two requests ask the same ([`CacheKey`]), an answer that can be replayed whole or streamed,
//! whichever way it first came ([`CachedAnswer`]), two tiers that keep answers (in this process, and in Redis for
//! all gateways together), and the coalescing of identical requests that are in flight at the same time
//! ([`Flights`]).
//!
//! The cache may only ever make things faster. Redis slow or gone is a miss within milliseconds, a counter and a log
//! line, never an error; an answer that is not complete, or that cannot be replayed faithfully, is not kept; a
//! leader that fails never takes its followers with it.
//!
//! Absent on purpose: HTTP, headers and the framing of events (the caller's), metrics (the caller exports
//! [`Stats`]), and the decision which requests may be answered from the cache ([`is_deterministic`] is advice).

mod answer;
mod cache;
mod config;
pub mod envelope;
mod error;
mod flight;
mod json;
mod key;
mod memory;
mod redis_tier;
mod stats;

pub use answer::CachedAnswer;
pub use cache::{ResponseCache, Tier};
pub use config::Config;
pub use error::Error;
pub use flight::{FlightEvent, FlightFailed, Flights, Follower, Joined, Leader, Pushed};
pub use key::{CacheKey, Endpoint, KeyParts, is_deterministic};
pub use stats::Stats;
