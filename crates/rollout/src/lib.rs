//! How a new version of a model gets its users, and how it loses them again when it is worse.
//!
//! Everything here is a function of values. A [`Spec`] says what is wanted, `evidence` what gateways saw; the
//! [`Judge`] makes a verdict of the latter, the plan makes the next step of both, and each step is told with its
//! reason. The crate knows no clock, no socket, no store and no engine: the controller observes, asks it, and does
//! what it says.

mod judge;
mod plan;
pub mod simulate;
mod spec;
mod state;

pub use judge::{Assessment, Judge, Metric, MetricAssessment, UNBOUNDED, Verdict};
pub use plan::{Command, Decision, Fleet, Observed, Refused};
pub use spec::{
    CapacitySpec, JudgeSpec, QualitySpec, Spec, SpecError, Step, Strategy, WarmSpec, weight_of_percent,
};
pub use state::{Outcome, Phase, Rollout};
