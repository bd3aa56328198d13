//! One decision, as it is written down.

use rollout::{Assessment, Outcome, Phase, Rollout};
use serde::{Deserialize, Serialize};

/// One line of the log. It tells what was decided, why, and everything that is needed to go on from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts records.
    pub seq: u64,
    /// Counts controllers that have taken over.
    pub epoch: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What was done.
    pub action: Action,
    /// The model; empty where it is about the controller itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Why.
    pub reason: String,
    /// The version that has the model's users when no rollout is on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable: String,
    /// The rollout as it stands after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The evidence that it was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Assessment>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A controller has begun to decide.
    TookOver,
    /// A version was found to be the stable one, before any rollout.
    Pinned,
    /// A rollout has begun.
    Started,
    /// The next step has begun.
    Stepped,
    /// A step waits for its owner, or for more evidence.
    Held,
    /// It moves no more users until it is resumed.
    Paused,
    /// It goes on.
    Resumed,
    /// The new version gets all users for good.
    Promoting,
    /// The stable version gets all users back.
    Reverting,
    /// A report is there, and the new version loses its users as planned.
    Ending,
    /// It is over: the new version has all users.
    Promoted,
    /// It is over: the stable version has all users.
    Reverted,
    /// It is over, and there is a report.
    Reported,
}

impl Action {
    /// What going to a phase is called.
    pub(crate) const fn of(phase: Phase) -> Self {
        match phase {
            Phase::Warming => Self::Started,
            Phase::Step { .. } => Self::Stepped,
            Phase::Held { .. } => Self::Held,
            Phase::Draining { outcome: Outcome::Promoted } => Self::Promoting,
            Phase::Draining { outcome: Outcome::Reverted } => Self::Reverting,
            Phase::Draining { outcome: Outcome::Reported } => Self::Ending,
            Phase::Done { outcome: Outcome::Promoted } => Self::Promoted,
            Phase::Done { outcome: Outcome::Reverted } => Self::Reverted,
            Phase::Done { outcome: Outcome::Reported } => Self::Reported,
        }
    }

    /// Its name in metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TookOver => "took_over",
            Self::Pinned => "pinned",
            Self::Started => "started",
            Self::Stepped => "stepped",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Promoting => "promoting",
            Self::Reverting => "reverting",
            Self::Ending => "ending",
            Self::Promoted => "promoted",
            Self::Reverted => "reverted",
            Self::Reported => "reported",
        }
    }
}
