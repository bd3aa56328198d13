//! A rollout under way, and the routes that follow from it.

use routing::{ModelRoutes, Observe, RouteTable, VersionRoute, VersionState};
use serde::{Deserialize, Serialize};

use crate::spec::weight_of_percent;
use crate::{Spec, Strategy};

/// Everything that is needed to go on with a rollout: whoever reads it goes on where its writer stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Unique; it also shuffles the users, so that not the same ones meet every new version first.
    pub id: String,
    /// What is wanted.
    pub spec: Spec,
    /// The version that has the users at the beginning.
    pub stable: String,
    /// Where it is.
    pub phase: Phase,
    /// When that began, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whether its owner has stopped it. It moves no more users to the new version; a bad one is reverted all the same.
    #[serde(default)]
    pub paused: bool,
    /// How many steps were taken, which tells the evidence of one from that of the next.
    pub steps_taken: u64,
}

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// The new version answers prompts that are no user's.
    Warming,
    /// It has a share of the users, and is judged.
    Step {
        /// Which step of a canary, from 0; 0 of every other strategy.
        index: usize,
    },
    /// The same, but evidence has been insufficient for too long: its owner decides, or more evidence does.
    Held {
        /// As in a step.
        index: usize,
    },
    /// One version has all users, and the other's streams come to their end.
    Draining {
        /// What it comes to.
        outcome: Outcome,
    },
    /// Nothing is left to do.
    Done {
        /// What it came to.
        outcome: Outcome,
    },
}

/// How a rollout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The new version has all users.
    Promoted,
    /// The stable version has them again.
    Reverted,
    /// The stable version has them, as was planned; there is a report.
    Reported,
}

impl Outcome {
    /// As it is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Reverted => "reverted",
            Self::Reported => "reported",
        }
    }
}

impl Rollout {
    /// A rollout at its beginning.
    pub fn new(id: impl Into<String>, spec: Spec, stable: impl Into<String>, now_ms: u64) -> Self {
        let (id, stable) = (id.into(), stable.into());
        Self { id, spec, stable, phase: Phase::Warming, since_ms: now_ms, paused: false, steps_taken: 0 }
    }

    /// Whether something is left to do.
    pub fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Done { .. })
    }

    /// The step whose evidence counts now, as gateways name it; `None` where none is gathered.
    pub fn evidence_step(&self) -> Option<String> {
        matches!(self.phase, Phase::Step { .. } | Phase::Held { .. })
            .then(|| format!("{}/{}", self.id, self.steps_taken))
    }

    /// The share of the whole false-alarm budget that the step at hand may use: each takes half of what is left, so
    /// that the first one, which has the fewest users to learn from, has the most.
    pub fn false_alarm(&self) -> f64 {
        let steps = i32::try_from(self.steps_taken.clamp(1, 60)).unwrap_or(60);
        self.spec.judge.false_alarm * 0.5f64.powi(steps)
    }

    /// The new version's share of the users, as parts of [`RouteTable::WEIGHT_TOTAL`].
    pub fn weight(&self) -> u32 {
        match self.phase {
            Phase::Warming => 0,
            Phase::Step { index } | Phase::Held { index } => self.weight_of_step(index),
            Phase::Draining { outcome } | Phase::Done { outcome } => {
                if outcome == Outcome::Promoted {
                    RouteTable::WEIGHT_TOTAL
                } else {
                    0
                }
            }
        }
    }

    /// The weight that a step gives.
    pub(crate) fn weight_of_step(&self, index: usize) -> u32 {
        match &self.spec.strategy {
            Strategy::Canary { steps } => steps.get(index).map_or(0, |step| weight_of_percent(step.percent)),
            Strategy::BlueGreen { .. } => RouteTable::WEIGHT_TOTAL,
            Strategy::Shadow { .. } => 0,
            Strategy::Ab { percent, .. } => weight_of_percent(*percent),
        }
    }

    /// The version that has the users when all is over.
    pub fn winner(&self) -> &str {
        let promoted = matches!(
            self.phase,
            Phase::Draining { outcome: Outcome::Promoted } | Phase::Done { outcome: Outcome::Promoted }
        );
        if promoted { &self.spec.to } else { &self.stable }
    }

    /// The routes of its model. The new version stands in front, so that it gains users and loses none as its weight
    /// grows.
    pub fn routes(&self) -> ModelRoutes {
        let total = RouteTable::WEIGHT_TOTAL;
        let weight = self.weight();
        let version = |name: &str, weight: u32, state| VersionRoute {
            state,
            ..VersionRoute::active(name, weight, RouteTable::POOL)
        };
        let by_weight = |name: &str, weight| {
            // Without users a version stays warm, and can be asked for.
            let state = if weight == 0 { VersionState::Preview } else { VersionState::Active };
            version(name, weight, state)
        };
        let (to, stable) = (&self.spec.to, &self.stable);
        let versions = match self.phase {
            Phase::Warming | Phase::Step { .. } | Phase::Held { .. } => {
                vec![by_weight(to, weight), by_weight(stable, total - weight)]
            }
            Phase::Draining { outcome: Outcome::Promoted } => {
                vec![by_weight(to, total), version(stable, 0, VersionState::Draining)]
            }
            Phase::Draining { .. } => vec![version(to, 0, VersionState::Draining), by_weight(stable, total)],
            Phase::Done { .. } => vec![by_weight(self.winner(), total)],
        };
        ModelRoutes { versions, salt: self.id.clone(), observe: self.observe() }
    }

    fn observe(&self) -> Option<Observe> {
        let quality = self.spec.judge.quality.as_ref();
        let prompts_per_min = match self.phase {
            // To warm up with what users really send.
            Phase::Warming => 60,
            _ => quality.map_or(0, |quality| (quality.samples_per_s * 60.0).ceil() as u32),
        };
        let step = match self.phase {
            Phase::Warming => format!("{}/warming", self.id),
            _ => self.evidence_step()?,
        };
        let mirror = match (&self.spec.strategy, self.phase) {
            (Strategy::Shadow { percent, .. }, Phase::Step { .. } | Phase::Held { .. }) => {
                weight_of_percent(*percent)
            }
            _ => 0,
        };
        Some(Observe { step, prompts_per_min, mirror_to: (mirror > 0).then(|| self.spec.to.clone()), mirror })
    }
}
