//! What a gateway saw of each version of a model while a rollout was on, as sketches that can be added up.
//!
//! It is what a rollout is judged by, and is made for that: within one step of a rollout each user gives one sample a
//! latency, and its first failure alone counts, so that one user who asks a thousand times weighs no more than any
//! other. Counts only grow, so that whoever misses a reading loses nothing: two readings are subtracted, and readings
//! of several gateways are added.
//!
//! The crate is a function of values: it knows no clock, no socket and no request.

mod ledger;
mod metric;
mod report;
mod sketch;

pub use ledger::{Ledger, Seen};
pub use metric::{Latency, LatencyKey, Rate, Stratum, UnknownKey};
pub use report::{ModelReport, Report, VersionLoad};
pub use sketch::{RATIO, Sketch};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one gateway saw since a step of a rollout began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The step that it belongs to, as the route table names it.
    pub step: String,
    /// By version.
    pub versions: BTreeMap<String, VersionEvidence>,
}

/// What was seen of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEvidence {
    /// Attempts at workers of this version that began. Answers from the response cache are none.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Users whose attempts those are.
    pub failed_users: u64,
    /// Users of whom an attempt has ended.
    pub users: u64,
    /// How often something went wrong, one sample a user and rate.
    pub rates: BTreeMap<Rate, Count>,
    /// One sample a user and latency.
    pub latencies: BTreeMap<LatencyKey, Sketch>,
}

/// How often something happened in the first request of each user that could tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Users of whom it is known.
    pub trials: u64,
    /// Those of them to whom it happened.
    pub events: u64,
}

impl VersionEvidence {
    /// What came in after `earlier`, a former reading of the same gateway and step.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rates = self.rates.clone();
        for (rate, count) in &mut rates {
            let before = earlier.rates.get(rate).copied().unwrap_or_default();
            count.trials = count.trials.saturating_sub(before.trials);
            count.events = count.events.saturating_sub(before.events);
        }
        let nothing = Sketch::default();
        let latencies = self
            .latencies
            .iter()
            .map(|(key, sketch)| (*key, sketch.since(earlier.latencies.get(key).unwrap_or(&nothing))));
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            failed: self.failed.saturating_sub(earlier.failed),
            failed_users: self.failed_users.saturating_sub(earlier.failed_users),
            users: self.users.saturating_sub(earlier.users),
            rates,
            latencies: latencies.filter(|(_, sketch)| !sketch.is_empty()).collect(),
        }
    }

    /// Adds what another gateway or another interval saw.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.failed_users += other.failed_users;
        self.users += other.users;
        for (rate, count) in &other.rates {
            let sum = self.rates.entry(*rate).or_default();
            sum.trials += count.trials;
            sum.events += count.events;
        }
        for (key, sketch) in &other.latencies {
            self.latencies.entry(*key).or_default().merge(sketch);
        }
    }

    /// All samples of a latency, whatever their stratum.
    pub fn latency(&self, latency: Latency) -> Sketch {
        let mut sum = Sketch::default();
        let of_it = self.latencies.iter().filter(|(key, _)| key.latency == latency);
        of_it.for_each(|(_, sketch)| sum.merge(sketch));
        sum
    }

    /// How often something went wrong.
    pub fn rate(&self, rate: Rate) -> Count {
        self.rates.get(&rate).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
