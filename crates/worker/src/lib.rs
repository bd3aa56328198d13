//! One engine behind HTTP: OpenAI's API, vLLM's metrics, a load report for the gateway, and an orderly end.
//!
//! It translates: a request's JSON into engine requests, engine events into JSON or server-sent events. It must not
//! know other workers, nor who balances between them.

mod answer;
mod app;
mod body;
mod config;
mod error;
mod faults;
mod format;
mod job;
mod prefixes;
mod routes;
mod server;
mod step_log;

pub use config::{Config, ConfigError};
pub use error::WorkerError;
pub use server::{Worker, WorkerModel};
