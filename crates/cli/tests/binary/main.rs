//! The `tenk` binary as people meet it: what it prints, how it ends, what it says when something is wrong.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "all of it is test")]

mod config;
mod harness;
mod help;
mod key;
mod measure;
mod model;
mod roles;
mod simulated;
mod up;
mod versions;
