//! Rollouts of made-up versions to made-up users, by the thousand: how often a good version is reverted, and how soon a
//! bad one. The evidence, the judge and the plan are the real ones; two other rules look at the same requests, split as
//! in the first step for as long as they need.
//!
//! The world has no closed formula's comforts. Of 50,000 users the one of rank `k` asks `k^-0.8` times as often as the
//! first, who makes 2% of all requests; requests come as a Poisson process; users stick to their version by hash, as
//! `routing` cuts its line. The logarithm of a time has a standard deviation of 0.5 in all, of which users make 0.2, a
//! load that both versions share 0.1 (autoregressive, it lasts 60 s), each worker as such 0.03, and each worker's own
//! load 0.02 (it lasts 30 s); the rest is the request's own, half of it in common to its three times. The stable
//! version has four workers and the new one two. Of 10,000 requests one fails. Answers of a tenth of the users are cut
//! every other time, those of the others in 1% of the cases. A request is heard of when it ends, some two seconds
//! later. Recorded times, where they are given, take the place of the normal distribution and of users' own speed.

mod judged;
mod random;
mod report;
mod rules;
mod run;
mod scenario;
mod world;

pub use report::{Detection, Report, RuleReport, ScenarioReport, Sensitivity};
pub use run::simulate;
pub use scenario::{Scenario, UnknownScenario};

use std::sync::Arc;

use crate::{Spec, Step, Strategy};

/// How much of a world there is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests a second, of both versions together.
    pub requests_per_s: f64,
    /// The first step, in percent of the users.
    pub percent: f64,
    /// How long is looked at, in minutes. A rollout that has come to no end by then counts as held.
    pub minutes: f64,
    /// How much workers of one version differ: the standard deviation of the logarithm of their times.
    pub worker_sigma: f64,
    /// Logarithms of recorded times by their median, as [`Self::with_recorded`] makes them.
    pub recorded: Option<Arc<[f64]>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { requests_per_s: 50.0, percent: 5.0, minutes: 10.0, worker_sigma: 0.03, recorded: None }
    }
}

/// Why a simulation cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadOptions(String);

impl Options {
    /// Takes recorded times, in seconds, in the place of made-up ones.
    pub fn with_recorded(self, times_s: &[f64]) -> Result<Self, BadOptions> {
        let mut times = times_s.to_vec();
        if times.is_empty() || times.iter().any(|time| !time.is_finite() || *time <= 0.0) {
            return Err(BadOptions("recorded times must be above 0 s, and at least one".into()));
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        Ok(Self { recorded: Some(times.iter().map(|time| (time / median).ln()).collect()), ..self })
    }

    /// The same world, with workers that differ twice as much.
    #[must_use]
    pub fn with_doubled_workers(&self) -> Self {
        Self { worker_sigma: 2.0 * self.worker_sigma, ..self.clone() }
    }

    /// Checks all of it.
    pub fn validate(&self) -> Result<(), BadOptions> {
        for (name, value, min, max) in [
            ("requests per second", self.requests_per_s, 0.01, 10_000.0),
            ("percent", self.percent, 0.1, 50.0),
            ("minutes", self.minutes, 1.0, 600.0),
        ] {
            if !(min..=max).contains(&value) {
                return Err(BadOptions(format!("{name} is {value}, but must be from {min} to {max}")));
            }
        }
        Ok(())
    }

    /// The default rollout, beginning with this one's first step.
    fn spec(&self) -> Spec {
        let mut spec = Spec::new("model", "canary");
        if let Strategy::Canary { steps } = &mut spec.strategy {
            steps.retain(|step| step.percent > self.percent);
            steps.insert(0, Step { percent: self.percent, ..Step::default() });
        }
        spec
    }
}

/// How a rule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// All users are back with the stable version.
    Reverted,
    /// The new version has all users.
    Promoted,
    /// Neither.
    Held,
}

/// What one rule made of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleOutcome {
    /// How it ended.
    pub ended: Ended,
    /// Seconds from the first user of the new version to the end.
    pub after_s: u64,
    /// Users who met the new version until then.
    pub users_exposed: u64,
}

/// What came of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// By this system's judge and plan.
    pub judged: RuleOutcome,
    /// Why, in the plan's words.
    pub reason: String,
    /// Whether it was promoted as surely faster than the stable version in any of its times.
    pub promoted_as_better: bool,
    /// Every minute: reverted when the 95th percentile is 1.25 times the stable version's or 1% of the requests fail;
    /// promoted after three minutes.
    pub threshold: RuleOutcome,
    /// At the end: reverted when times are longer by a Mann-Whitney test at 5%.
    pub mann_whitney: RuleOutcome,
    /// The same, looked at every minute.
    pub mann_whitney_each_minute: RuleOutcome,
}
