//! A worker over real HTTP, with a tiny model of random weights.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up has failed")]

mod answers;
mod errors;
mod fuzz;
mod hostile;
mod info;
mod lifecycle;
mod logprobs;
mod overload;
mod simulated;
mod streams;
mod support;
mod templates;
