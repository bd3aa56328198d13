//! The gateway over real HTTP, between clients and workers that the tests script.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod admission;
mod authentication;
mod cache;
mod coalescing;
mod lifecycle;
mod metrics;
mod pass_through;
mod retry;
mod rollout;
mod routing;
mod streams;
mod support;
