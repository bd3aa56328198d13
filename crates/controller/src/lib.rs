//! Moves users between the versions of models: observes what gateways report, asks `rollout` what is next, writes the
//! decision down, and only then lets gateways route by it.
//!
//! The decision's record is the state: the last one of a model tells everything, so that a controller that is killed at
//! any moment goes on where its last record stands. Records carry the epoch of their writer, and a store takes none of
//! a former epoch: of two controllers one decides and the other waits.
//!
//! The controller must not know engines, and no request of a user passes through it: when it is gone, gateways keep the
//! last route table.

mod aliases;
mod api;
mod book;
mod config;
mod error;
mod executor;
mod fleet;
mod openapi;
mod probe;
mod quality;
mod record;
mod server;
mod status;
mod store;
mod watched;
mod webhook;

pub use aliases::Aliases;
pub use config::{Config, ConfigError};
pub use error::ControllerError;
pub use record::{Action, Record};
pub use server::{Controller, ControllerParts};
pub use status::Status;
