//! What gateways said lately.

use std::collections::{BTreeMap, VecDeque};

use evidence::{Report, VersionLoad};
use rollout::Fleet;

/// How far back the most requests at once are looked for, in milliseconds.
const PEAK_MS: u64 = 30_000;

/// A version without any worker for so long may be gone, in milliseconds. Gateways give its users to another one
/// meanwhile, so that nothing hurries.
const GONE_MS: u64 = 30_000;

/// The last report of each gateway, and how busy models were.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    last: BTreeMap<String, Heard>,
    /// What the last reports come to, as of the last tick.
    loads: BTreeMap<String, BTreeMap<String, VersionLoad>>,
    models: BTreeMap<String, Trend>,
}

#[derive(Debug)]
struct Heard {
    at_ms: u64,
    report: Report,
    /// When, and how many requests and hits of the response cache it had counted.
    counts: VecDeque<(u64, u64, u64)>,
}

#[derive(Debug, Default)]
struct Trend {
    /// When, and how many requests were with workers.
    in_flight: VecDeque<(u64, u32)>,
    /// By version: since when it had no worker up.
    absent_since_ms: BTreeMap<String, u64>,
}

impl Gateways {
    /// Takes a report in.
    pub(crate) fn hear(&mut self, report: Report, now_ms: u64) {
        let counts = self.last.remove(&report.gateway).map(|heard| heard.counts);
        let mut counts = counts.unwrap_or_default();
        counts.push_back((now_ms, report.requests, report.cache_hits));
        while counts.front().is_some_and(|(at_ms, ..)| now_ms.saturating_sub(*at_ms) > PEAK_MS) {
            counts.pop_front();
        }
        self.last.insert(report.gateway.clone(), Heard { at_ms: now_ms, report, counts });
    }

    /// The latest epoch that a gateway follows.
    pub(crate) fn epoch(&self) -> u64 {
        self.last.values().map(|heard| heard.report.routes_by.0).max().unwrap_or(0)
    }

    /// Forgets gateways that have fallen silent, and follows how busy models are.
    pub(crate) fn tick(&mut self, now_ms: u64, timeout_ms: u64) {
        self.last.retain(|_, heard| now_ms.saturating_sub(heard.at_ms) < timeout_ms);
        self.loads = self.add_up();
        for (model, versions) in &self.loads {
            let trend = self.models.entry(model.clone()).or_default();
            let in_flight = versions.values().map(|load| load.in_flight).sum();
            trend.in_flight.push_back((now_ms, in_flight));
            while trend.in_flight.front().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) > PEAK_MS) {
                trend.in_flight.pop_front();
            }
        }
    }

    /// Each model's versions, over all gateways, as of the last tick.
    pub(crate) fn models(&self) -> &BTreeMap<String, BTreeMap<String, VersionLoad>> {
        &self.loads
    }

    /// All gateways know the same workers, so that only requests are added up.
    fn add_up(&self) -> BTreeMap<String, BTreeMap<String, VersionLoad>> {
        let mut models: BTreeMap<String, BTreeMap<String, VersionLoad>> = BTreeMap::new();
        for heard in self.last.values() {
            for (model, of_model) in &heard.report.models {
                let versions = models.entry(model.clone()).or_default();
                for (version, load) in &of_model.versions {
                    let sum = versions.entry(version.clone()).or_default();
                    sum.workers = sum.workers.max(load.workers);
                    sum.workers_up = sum.workers_up.max(load.workers_up);
                    sum.places = sum.places.max(load.places);
                    sum.in_flight += load.in_flight;
                }
            }
        }
        models
    }

    /// Whether every gateway has heard of every worker, so that what is missing is not there.
    pub(crate) fn complete(&self) -> bool {
        !self.last.is_empty() && self.last.values().all(|heard| heard.report.complete)
    }

    /// Whether a version is gone for good: for a while no gateway has known any worker of it, nor one that has not said
    /// what it serves, for that may be loading it.
    pub(crate) fn is_gone(&mut self, model: &str, version: &str, now_ms: u64) -> bool {
        let workers =
            self.loads.get(model).and_then(|of_model| of_model.get(version)).map_or(0, |load| load.workers);
        let absent = self.absent_since_ms(model, version, workers, now_ms);
        absent.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= GONE_MS)
            && !self.last.values().any(|heard| heard.report.any_unidentified)
    }

    /// Since when a version with so many workers has had none. Where a gateway or a worker was not heard, nobody is
    /// known to be away.
    fn absent_since_ms(&mut self, model: &str, version: &str, up: u32, now_ms: u64) -> Option<u64> {
        let is_absent = up == 0 && self.complete();
        let since = &mut self.models.entry(model.to_owned()).or_default().absent_since_ms;
        if !is_absent {
            since.remove(version);
            return None;
        }
        Some(*since.entry(version.to_owned()).or_insert(now_ms))
    }

    /// The fleet of a rollout.
    pub(crate) fn fleet(&mut self, rollout: &rollout::Rollout, table: (u64, u64), now_ms: u64) -> Fleet {
        let (model, stable, canary) = (&rollout.spec.model, &rollout.stable, &rollout.spec.to);
        let versions = self.loads.get(model);
        let load = |version| versions.and_then(|of_model| of_model.get(version)).copied().unwrap_or_default();
        let (stable, canary_load) = (load(stable), load(canary));
        let absent = self.absent_since_ms(model, canary, canary_load.workers_up, now_ms);
        let trend = self.models.entry(model.clone()).or_default();
        let in_flight = trend.in_flight.iter().map(|(_, in_flight)| *in_flight).max().unwrap_or(0);
        let lately = |heard: &Heard| {
            let (first, last) = (heard.counts.front()?, heard.counts.back()?);
            Some([last.1.saturating_sub(first.1), last.2.saturating_sub(first.2)])
        };
        let [requests, hits] = self
            .last
            .values()
            .filter_map(lately)
            .fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
            .map(|count| count as f64);
        let current = self.last.values().filter(|heard| heard.report.routes_by == table).count();
        Fleet {
            canary_workers: canary_load.workers_up,
            stable_workers: stable.workers_up,
            canary_places: canary_load.places,
            in_flight,
            hit_share: if requests > 0.0 { hits / requests } else { 0.0 },
            canary_in_flight: canary_load.in_flight,
            stable_in_flight: stable.in_flight,
            canary_absent_since_ms: absent,
            gateways: self.last.len() as u32,
            gateways_current: current as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use evidence::ModelReport;
    use rollout::{Rollout, Spec};

    use super::*;

    fn report(gateway: &str, requests: u64, hits: u64, versions: &[(&str, u32, u32)]) -> Report {
        let load = |&(version, workers_up, in_flight): &(&str, u32, u32)| {
            (version.to_owned(), VersionLoad { workers: 2, workers_up, places: 8, in_flight })
        };
        let of_model =
            ModelReport { versions: versions.iter().map(load).collect(), ..ModelReport::default() };
        Report {
            gateway: gateway.into(),
            routes_by: (1, 7),
            complete: true,
            any_unidentified: false,
            requests,
            cache_hits: hits,
            models: [("chat".to_owned(), of_model)].into(),
        }
    }

    #[test]
    fn a_version_is_gone_when_for_a_while_nobody_knows_a_worker_that_may_be_of_it() {
        let mut gateways = Gateways::default();
        let mut at = |seconds: u64, change: fn(&mut Report)| {
            let mut report = report("a", 0, 0, &[("2", 2, 0)]);
            change(&mut report);
            gateways.hear(report, seconds * 1_000);
            gateways.tick(seconds * 1_000, 60_000);
            gateways.is_gone("chat", "1", seconds * 1_000)
        };
        assert!(!at(0, |_| ()) && !at(29, |_| ()), "it may be loading still");
        assert!(!at(31, |report| report.any_unidentified = true), "that worker may be of it");
        assert!(at(32, |_| ()));
        assert!(!at(33, |report| report.complete = false), "a worker was not heard");
        assert!(!at(34, |_| ()), "the wait begins anew");
    }

    #[test]
    fn gateways_add_up_and_the_busiest_moment_and_the_cache_of_late_are_known() {
        let rollout = Rollout::new("chat-1", Spec::new("chat", "2"), "1", 0);
        let mut gateways = Gateways::default();
        gateways.hear(report("a", 1_000, 0, &[("1", 2, 9), ("2", 1, 1)]), 0);
        gateways.hear(report("b", 0, 0, &[("1", 2, 5), ("2", 1, 0)]), 0);
        gateways.tick(0, 10_000);
        gateways.hear(report("a", 1_100, 50, &[("1", 2, 2), ("2", 0, 1)]), 1_000);
        gateways.hear(report("b", 0, 0, &[("1", 2, 0), ("2", 0, 0)]), 1_000);
        gateways.tick(1_000, 10_000);
        let fleet = gateways.fleet(&rollout, (1, 7), 1_000);
        assert_eq!((fleet.in_flight, fleet.stable_in_flight, fleet.canary_in_flight), (15, 2, 1));
        assert_eq!((fleet.stable_workers, fleet.canary_workers, fleet.canary_places), (2, 0, 8));
        assert_eq!((fleet.hit_share, fleet.gateways, fleet.gateways_current), (0.5, 2, 2));
        assert_eq!(gateways.fleet(&rollout, (1, 8), 5_000).canary_absent_since_ms, Some(1_000));
        gateways.hear(report("a", 1_100, 50, &[("1", 2, 2), ("2", 1, 1)]), 6_000);
        gateways.tick(12_000, 10_000);
        let fleet = gateways.fleet(&rollout, (1, 8), 12_000);
        assert_eq!((fleet.gateways, fleet.gateways_current, fleet.canary_absent_since_ms), (1, 0, None));
    }
}
