//! Which tokens to compute next, and where their keys and values lie.
//!
//! Pure and synchronous: no tensors, no clocks, no async. Engines on processors and GPUs
//! and the simulated one drive the same code; only the forward pass and the clock differ.
//!
//! A step is a value. [`Scheduler::schedule`] returns a [`StepPlan`] that can be serialized and sent to other ranks;
//! [`Scheduler::commit`] takes the sampled tokens back. `schedule` may run again before the last `commit`, so that
//! planning overlaps computing; steps execute and commit in the order in which they were planned.
//!
//! What it does, each in its own file: continuous batching with chunked prefill under a token budget
//! ([`Scheduler`]), paged blocks with reference counts and least-recently-used eviction ([`BlockPool`]), prefix
//! sharing by chained hashes ([`BlockHash`]), guesses of what comes next ([`Speculative`]).

mod block_pool;
mod config;
mod draft;
mod hash;
mod plan;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;

pub use block_pool::{BlockId, BlockPool};
pub use config::{Config, ConfigError, Speculative};
pub use hash::BlockHash;
pub use plan::{ScheduledSequence, StepPlan};
pub use scheduler::{AddError, Scheduler, Stats};
pub use sequence::{SequenceId, SequenceSpec};
