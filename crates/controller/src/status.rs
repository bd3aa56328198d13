//! What owners see.

use rollout::{Assessment, Rollout};
use serde::{Deserialize, Serialize};

/// How a model's rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The model.
    pub model: String,
    /// Who has its users when no rollout is on.
    pub stable: String,
    /// The new version's share of the users, in percent.
    pub percent: f64,
    /// The rollout at hand, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What is waited for, or what was decided last.
    pub reason: String,
    /// The evidence of the step at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Assessment>,
    /// Prompts that the new version answered to warm up.
    pub warm_prompts: usize,
    /// The moment of all this, in milliseconds since 1970.
    pub at_ms: u64,
}
