//! What a controller says about rollouts.

use super::MetricSpec;

/// Whether this controller decides.
pub const DECIDING: MetricSpec = MetricSpec::gauge(
    "tenk_controller_deciding",
    "1 while this controller decides, 0 while another does.",
    &[],
);
/// Decisions.
pub const DECISIONS: MetricSpec = MetricSpec::counter(
    "tenk_rollout_decisions_total",
    "Decisions about rollouts, by what was decided.",
    &["action"],
);
/// Share of the users.
pub const PERCENT: MetricSpec = MetricSpec::gauge(
    "tenk_rollout_percent",
    "Share of a model's users that the new version of its last rollout has, in percent.",
    &["model"],
);

/// The controller's part of the catalogue.
pub const ALL: &[&MetricSpec] = &[&DECIDING, &DECISIONS, &PERCENT];
