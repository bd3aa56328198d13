//! One model on one device: tokenization, the forward pass, sampling, and the thread that drives them.
//!
//! The loop is `schedule → forward → sample → commit`, once a step ([`Engine`]). What to run comes from the
//! `scheduler` crate as a plan; how to run it is written once over candle tensors ([`model`]), with the operations
//! that depend on the device behind the [`ops::Ops`] trait; on a CPU they are the `kernels` crate's. It must not know HTTP.
//!
//! A request's life: [`Engine::reserve`] takes a place (or says that there is none, before any work), the caller
//! tokenizes, [`Engine::submit`] hands it to the engine's thread, and [`Event`]s come back until one ends it. Dropping
//! the receiver cancels it within a step.

mod backend;
pub mod chat_template;
mod config;
mod engine;
mod error;
mod inspect;
mod loaded;
pub mod model;
pub mod ops;
mod perplexity;
mod request;
pub mod sampling;
pub mod simulated;
mod step;
pub mod stop;
pub mod tokenizer;

pub use backend::{Backend, Logits, TransformerBackend};
pub use config::{Config, DeviceKind, WeightKind};
pub use engine::{Engine, EngineLoad, Observer, Overloaded, Reservation, StepReport};
pub use error::EngineError;
pub use inspect::{Inspection, inspect};
pub use loaded::{LoadOptions, LoadedModel};
pub use perplexity::{Perplexity, perplexity};
pub use profile;
pub use request::{Ended, Event, Failure, Request, Timings, TokenEvent, TokenScore};
pub use scheduler::{Config as SchedulerConfig, Speculative, Stats};
