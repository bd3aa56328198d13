//! Whether a version is as good as the one before it.
//!
//! Each metric has two sequential tests: one that shows that the new version is worse than the stable one by more than
//! a tolerance, and it fails; one that shows that it is worse by less than a margin, and it passes. Both are bets
//! against the opposite, whose wealth bounds how likely they are wrong (`wealth`), so that one may look every second
//! and stop whenever one likes. Both versions are compared within blocks of a few seconds (`table`): what slows or
//! breaks both is no difference. `budget` says how often which test may be wrong.
//!
//! What the tests take for granted: users are assigned by chance, and a user's first time is independent of others'
//! at the same moment. Workers of one version differ by some percent for reasons of their own; that is what
//! tolerances are for.

mod budget;
mod latency;
mod quality;
mod rate;
mod table;
mod wealth;
mod words;

use evidence::{Latency, Rate, VersionEvidence};
use serde::{Deserialize, Serialize};

use self::budget::{Levels, levels};
use self::latency::LatencyTest;
use self::quality::QualityTest;
use self::rate::RateTest;
use crate::JudgeSpec;

/// Stands for "any number" in [`MetricAssessment::low`] and [`MetricAssessment::high`], for JSON has no infinity.
pub const UNBOUNDED: f64 = 1e6;

/// Users with an error from whom on the absolute guard holds.
const GUARD_USERS_MIN: u64 = 3;
/// How many times as likely what was seen must be at the rate that was seen as at the guard's.
const GUARD_LIKELIHOOD_RATIO: f64 = 100.0;

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

/// The judgement of one metric. Its [`Display`](std::fmt::Display) says it in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricAssessment {
    /// What is compared.
    pub metric: Metric,
    /// What the stable version shows: a rate, seconds, or 0 nats a token; `None` without samples.
    pub stable: Option<f64>,
    /// What the new version shows: a rate, seconds, or the mean loss in nats a token.
    pub canary: Option<f64>,
    /// The difference is at least this, however often one looks: -1 (of a rate or a time) or -[`UNBOUNDED`] where
    /// nothing is known.
    pub low: f64,
    /// The difference is at most this: 1 (of a rate) or [`UNBOUNDED`] where nothing is known.
    pub high: f64,
    /// Above this it fails.
    pub tolerance: f64,
    /// Below this it passes.
    pub margin: f64,
    /// Samples of the new version.
    pub samples: u64,
    /// What follows.
    pub verdict: Verdict,
}

/// The judgement of a step so far. Its [`Display`](std::fmt::Display) says in words what decided it.
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
    /// Requests to the new version that began.
    pub canary_requests: u64,
    /// Those of them that failed.
    pub canary_failed: u64,
    /// One by one. What neither version has a sample of, such as times to the first token where nobody streams, is
    /// left out; error rates and, where it is wanted, quality are always in.
    pub metrics: Vec<MetricAssessment>,
}

/// Judges one step. It can be written down and read again, and goes on as if it had not been away. In JSON it takes
/// some 20 kB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    spec: JudgeSpec,
    /// What this step was given of the rollout's budget.
    false_alarm: f64,
    stable_users: u64,
    canary_users: u64,
    canary_requests: u64,
    canary_failed: u64,
    canary_failed_users: u64,
    rates: Vec<RateTest>,
    latencies: Vec<LatencyTest>,
    quality: Option<QualityTest>,
}

/// What a test says about its metric.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    metric: Metric,
    stable: Option<f64>,
    canary: Option<f64>,
    low: f64,
    high: f64,
    tolerance: f64,
    margin: f64,
    stable_samples: u64,
    samples: u64,
    fails: bool,
    passes: bool,
}

impl Judge {
    /// A judge of a step's evidence, to whom `false_alarm` of the rollout's whole budget is given. Steps that get a
    /// half of what is left each time never spend more than all of it.
    pub fn new(spec: &JudgeSpec, false_alarm: f64) -> Self {
        Self {
            spec: spec.clone(),
            false_alarm,
            stable_users: 0,
            canary_users: 0,
            canary_requests: 0,
            canary_failed: 0,
            canary_failed_users: 0,
            rates: Rate::ALL.map(RateTest::new).to_vec(),
            latencies: Latency::ALL.map(|latency| LatencyTest::new(latency, spec)).to_vec(),
            quality: spec.quality.as_ref().map(|_| QualityTest::new()),
        }
    }

    /// Takes in what one gateway saw of both versions in one interval, some seconds at most: what changes from one
    /// interval to the next for both alike is no difference.
    pub fn observe(&mut self, stable: &VersionEvidence, canary: &VersionEvidence) {
        self.stable_users += stable.users;
        self.canary_users += canary.users;
        self.canary_requests += canary.requests;
        self.canary_failed += canary.failed;
        self.canary_failed_users += canary.failed_users;
        self.rates.iter_mut().for_each(|test| test.observe(&self.spec, stable, canary));
        self.latencies.iter_mut().for_each(|test| test.observe(stable, canary));
    }

    /// Takes in how much less likely the new version's answer to a prompt was than the stable one's, by the mean of
    /// both versions' views, in nats a token. Nobody hears it where the spec compares no quality.
    pub fn observe_quality(&mut self, loss_nats: f64) {
        if let (Some(test), Some(spec)) = (&mut self.quality, &self.spec.quality) {
            test.observe(loss_nats, spec.margin_nats);
        }
    }

    /// What follows from all of it.
    pub fn assess(&self) -> Assessment {
        let levels = |metric| levels(&self.spec, self.false_alarm, metric);
        let rates = self.rates.iter().map(|test| test.compare(&self.spec, levels(Metric::Rate(test.rate()))));
        let latencies = self
            .latencies
            .iter()
            .map(|test| test.compare(&self.spec, levels(Metric::Latency(test.latency()))));
        let quality = self.quality.iter().zip(&self.spec.quality);
        let quality = quality.map(|(test, spec)| test.compare(spec.margin_nats, levels(Metric::Quality)));
        let metrics: Vec<MetricAssessment> = rates
            .chain(latencies)
            .chain(quality)
            .filter(|comparison| comparison.counts())
            .map(MetricAssessment::from)
            .collect();
        let guard_hit = self.guard_hit();
        let worst = metrics.iter().map(|metric| metric.verdict).max().unwrap_or(Verdict::Insufficient);
        Assessment {
            verdict: if guard_hit { Verdict::Fail } else { worst },
            stable_users: self.stable_users,
            canary_users: self.canary_users,
            guard_hit,
            canary_requests: self.canary_requests,
            canary_failed: self.canary_failed,
            metrics,
        }
    }

    /// Counts requests, not users: nothing is compared, so that who asks much may count much. They count from when they
    /// begin, for failures are often quicker than answers.
    fn guard_hit(&self) -> bool {
        let failed = self.canary_failed as f64;
        let others = self.canary_requests.saturating_sub(self.canary_failed) as f64;
        let (share, guard) = (failed / (failed + others), self.spec.error_guard);
        let log_ratio =
            |count: f64, seen: f64, guard: f64| if count > 0.0 { count * (seen / guard).ln() } else { 0.0 };
        let log_ratio = log_ratio(failed, share, guard) + log_ratio(others, 1.0 - share, 1.0 - guard);
        self.canary_failed_users >= GUARD_USERS_MIN
            && share > guard
            && log_ratio >= GUARD_LIKELIHOOD_RATIO.ln()
    }
}

impl Assessment {
    /// The share of requests to the new version that failed.
    pub(crate) fn failed_share(&self) -> f64 {
        self.canary_failed as f64 / self.canary_requests.max(self.canary_failed).max(1) as f64
    }
}

impl Comparison {
    /// Whether a version needs to pass it.
    fn counts(&self) -> bool {
        let always = matches!(self.metric, Metric::Rate(Rate::Error) | Metric::Quality);
        always || self.stable_samples > 0 || self.samples > 0
    }
}

impl From<Comparison> for MetricAssessment {
    fn from(comparison: Comparison) -> Self {
        let Comparison { metric, stable, canary, low, high, tolerance, margin, samples, .. } = comparison;
        let verdict = match (comparison.fails, comparison.passes) {
            (true, _) => Verdict::Fail,
            (false, true) => Verdict::Pass,
            (false, false) => Verdict::Insufficient,
        };
        Self { metric, stable, canary, low, high, tolerance, margin, samples, verdict }
    }
}

#[cfg(test)]
mod tests;
