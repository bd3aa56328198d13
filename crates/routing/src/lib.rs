//! Where a request goes: first to a version of its model, then to one of the workers that serve this version.
//!
//! The first choice is made from a [`RouteTable`], sticky by user, so that a conversation does not change its model
//! half-way and a growing canary only ever gains users. The second is made anew for each request by a [`Picker`],
//! from what is known about the workers at this moment: their [`Health`], their load and, in a [`PrefixIndex`], which
//! prompts they have likely cached. A [`RetryBudget`] says whether a failed choice may be made again.
//!
//! Everything here is a value or a function of values, so that a million requests can be simulated in a test. The
//! crate must not know sockets, clocks, locks or async code, and has no randomness of its own: time is a
//! [`Duration`](std::time::Duration) since any fixed moment, and chance is a number, both given by the caller.

mod config;
mod error;
mod health;
mod policy;
mod prefix_index;
mod retry_budget;
mod sticky;
mod table;
mod worker;

pub use config::{Config, HealthConfig, RetryBudgetConfig};
pub use error::RouteError;
pub use health::{Health, HealthState, Outcome, ProbeResult};
pub use policy::{Pick, PickRequest, Picker, Policy};
pub use prefix_index::PrefixIndex;
pub use retry_budget::RetryBudget;
pub use sticky::StickyKey;
pub use table::{ModelRoutes, Observe, RouteTable, VersionRoute, VersionState};
pub use worker::{WorkerId, WorkerSnapshot};
