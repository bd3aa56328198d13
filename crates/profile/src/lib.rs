//! How long a device takes for a step of a model: what the simulated engine waits for.
//!
//! A [`Profile`] is a device, a model, and what was fitted: a step takes the longer of its arithmetic and its memory
//! traffic, each at a share of the device's peak, and a fixed overhead. That is the roofline of Williams, Waterman and
//! Patterson (2009) with two efficiencies, which says how a batch, a context and a chunk of a prompt trade against
//! each other, and no more: kernels, stragglers and the noise of a real device are left out.
//!
//! The efficiencies come from public throughput figures ([`fit`]) or from an engine's step log ([`fit_steps`]); what
//! is left between model and measurement stands beside them in the profile, and a test computes it again.
//!
//! Pure: no clock and no I/O. It knows the scheduler, which a published figure is simulated with, and no engine.

mod error;
mod fit;
mod model;
mod profile;
mod search;
mod shipped;
mod steady;
mod step;
mod step_log;
#[cfg(test)]
mod tests;

pub use error::ProfileError;
pub use fit::{fit, residuals};
pub use model::{Device, Model};
pub use profile::{Figure, Fitted, Limits, Profile, StepFit};
pub use shipped::{DEFAULT_NAME, shipped, shipped_names};
pub use steady::{SteadyLoad, Workload};
pub use step::StepShape;
pub use step_log::{StepLog, StepLogHeader, StepSample, fit_steps};
