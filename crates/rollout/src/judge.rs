//! Whether a version is as good as the one before it.

use evidence::{Latency, Rate, VersionEvidence};
use serde::{Deserialize, Serialize};

use crate::JudgeSpec;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// How often something goes wrong; differences are absolute.
    Rate(Rate),
    /// The 95th percentile of a time; differences are relative.
    Latency(Latency),
    /// Log-likelihood of answers, in nats a token; a positive difference is a loss.
    Quality,
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Surely within the margin.
    Pass,
    /// Neither is sure yet.
    Insufficient,
    /// Surely worse.
    Fail,
}

/// The judgement of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricAssessment {
    /// What is compared.
    pub metric: Metric,
    /// What the stable version shows: a rate, seconds, or nats a token; `None` without samples.
    pub stable: Option<f64>,
    /// What the new version shows.
    pub canary: Option<f64>,
    /// The difference is at least this, however often one looks.
    pub low: f64,
    /// The difference is at most this.
    pub high: f64,
    /// Below this it passes.
    pub margin: f64,
    /// Samples of the new version.
    pub samples: u64,
    /// What follows.
    pub verdict: Verdict,
}

impl MetricAssessment {
    /// One clause, such as for a reason.
    pub fn in_words(&self) -> String {
        format!("{:?}: {:.3} to {:.3}, margin {}", self.metric, self.low, self.high, self.margin)
    }
}

/// The judgement of a step so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Fail where one metric fails, pass where all pass, else insufficient.
    pub verdict: Verdict,
    /// Users of the stable version that were heard.
    pub stable_users: u64,
    /// Users of the new version that were heard.
    pub canary_users: u64,
    /// Whether the absolute guard was hit: too many errors, whatever the stable version does.
    pub guard_hit: bool,
    /// One by one.
    pub metrics: Vec<MetricAssessment>,
}

/// Judges one step. It can be written down and read again, and goes on as if it had not been away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    spec: JudgeSpec,
    stable: VersionEvidence,
    canary: VersionEvidence,
}

impl Judge {
    /// A judge of a step's evidence, to whom `false_alarm` of the rollout's whole budget is given.
    pub fn new(spec: &JudgeSpec, false_alarm: f64) -> Self {
        let _ = false_alarm;
        Self { spec: spec.clone(), stable: VersionEvidence::default(), canary: VersionEvidence::default() }
    }

    /// Takes in what one gateway saw of both versions in one interval, some seconds at most: what changes from one
    /// interval to the next for both alike is no difference.
    pub fn observe(&mut self, stable: &VersionEvidence, canary: &VersionEvidence) {
        self.stable.merge(stable);
        self.canary.merge(canary);
    }

    /// Takes in how much less likely the new version's answer to a prompt was than the stable one's, by the mean of
    /// both versions' views, in nats a token.
    pub fn observe_quality(&mut self, loss_nats: f64) {
        let _ = (loss_nats, &self.spec);
    }

    /// What follows from all of it.
    pub fn assess(&self) -> Assessment {
        Assessment {
            verdict: Verdict::Insufficient,
            stable_users: self.stable.users,
            canary_users: self.canary.users,
            guard_hit: false,
            metrics: Vec::new(),
        }
    }
}
