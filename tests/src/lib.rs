//! What end-to-end tests need: real processes on free loopback ports, and a client to ask them.
//!
//! The tests beside this crate prove what no crate can prove alone: that binaries, servers and files work together,
//! and what happens when one of them is killed. Each process belongs to one handle, which ends it when it is dropped
//! and prints its log if the test failed. Nothing here knows the product's insides, only its binary and its wire.

mod client;
mod files;
mod process;
mod random;
mod servers;
mod tenk;
mod wait;

pub use client::{Api, Reply, Stream};
pub use files::{RealModel, TinyModel, python, repository};
pub use process::{Ended, Process};
pub use random::Random;
pub use servers::{Mlflow, Nginx, Prometheus, PythonServer, Redis};
pub use tenk::{Launch, Tenk, run_to_end};
pub use wait::{PATIENCE, eventually};
