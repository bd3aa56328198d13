//! What came of many runs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Ended, Options, RuleOutcome, RunOutcome, Scenario, world};

/// What came of many runs of several scenarios.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Runs of each scenario.
    pub runs: usize,
    /// By the scenarios' names.
    pub scenarios: BTreeMap<&'static str, ScenarioReport>,
    /// The numbers of the world, in words.
    pub world: String,
    /// What becomes of it when workers differ more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
}

/// What becomes of good versions when workers of one version differ more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// How much they differ.
    pub worker_sigma: f64,
    /// No difference between the versions.
    pub aa: ScenarioReport,
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioReport {
    /// What it is.
    pub about: &'static str,
    /// By this system.
    #[serde(flatten)]
    pub judged: RuleReport,
    /// Share of the runs promoted as surely faster than the stable version.
    pub promoted_as_better_share: f64,
    /// Why the first run ended as it did.
    pub first_reason: String,
    /// By thresholds every minute.
    pub threshold_rule: RuleReport,
    /// By a Mann-Whitney test at the end.
    pub mann_whitney: RuleReport,
    /// By a Mann-Whitney test every minute.
    pub mann_whitney_each_minute: RuleReport,
}

/// What a rule made of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    /// Share of the runs that were reverted.
    pub reverted_share: f64,
    /// Share that was promoted.
    pub promoted_share: f64,
    /// Share that came to no end.
    pub held_share: f64,
    /// Seconds from the first user to the revert, of those that were reverted.
    pub detection_s: Detection,
    /// Median of the users who met the new version until the end.
    pub users_exposed: u64,
}

/// How long it took; `None` where nothing was reverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Detection {
    /// In half of the runs.
    pub median: Option<u64>,
    /// In 95 of 100 runs.
    pub p95: Option<u64>,
}

/// The value that a share `q` of them does not exceed.
fn quantile(values: &mut [u64], q: f64) -> Option<u64> {
    values.sort_unstable();
    let rank = (q * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

impl RuleReport {
    fn new(outcomes: impl Iterator<Item = RuleOutcome>) -> Self {
        let outcomes: Vec<RuleOutcome> = outcomes.collect();
        let of = |ended: Ended| outcomes.iter().filter(move |outcome| outcome.ended == ended);
        let share = |ended: Ended| of(ended).count() as f64 / outcomes.len().max(1) as f64;
        let mut times: Vec<u64> = of(Ended::Reverted).map(|outcome| outcome.after_s).collect();
        let mut users: Vec<u64> = outcomes.iter().map(|outcome| outcome.users_exposed).collect();
        Self {
            reverted_share: share(Ended::Reverted),
            promoted_share: share(Ended::Promoted),
            held_share: share(Ended::Held),
            detection_s: Detection { median: quantile(&mut times, 0.5), p95: quantile(&mut times, 0.95) },
            users_exposed: quantile(&mut users, 0.5).unwrap_or(0),
        }
    }
}

impl ScenarioReport {
    fn new(scenario: Scenario, runs: &[RunOutcome]) -> Self {
        let rule = |of: fn(&RunOutcome) -> RuleOutcome| RuleReport::new(runs.iter().map(of));
        let better = runs.iter().filter(|run| run.promoted_as_better).count();
        Self {
            about: scenario.about(),
            judged: rule(|run| run.judged),
            promoted_as_better_share: better as f64 / runs.len().max(1) as f64,
            first_reason: runs.first().map_or(String::new(), |run| run.reason.clone()),
            threshold_rule: rule(|run| run.threshold),
            mann_whitney: rule(|run| run.mann_whitney),
            mann_whitney_each_minute: rule(|run| run.mann_whitney_each_minute),
        }
    }
}

impl Report {
    /// Sums runs up, which must be in an order that does not depend on who computed them.
    pub fn new(options: &Options, runs: &BTreeMap<Scenario, Vec<RunOutcome>>) -> Self {
        let summed = |(scenario, runs): (&Scenario, &Vec<RunOutcome>)| {
            (scenario.name(), ScenarioReport::new(*scenario, runs))
        };
        Self {
            runs: runs.values().map(Vec::len).max().unwrap_or(0),
            scenarios: runs.iter().map(summed).collect(),
            world: world::in_words(options),
            sensitivity: None,
        }
    }

    /// Adds what became of good versions in another world.
    #[must_use]
    pub fn with_sensitivity(self, options: &Options, runs: &BTreeMap<Scenario, Vec<RunOutcome>>) -> Self {
        let runs = runs.get(&Scenario::Aa).map(Vec::as_slice).unwrap_or_default();
        let aa = ScenarioReport::new(Scenario::Aa, runs);
        Self { sensitivity: Some(Sensitivity { worker_sigma: options.worker_sigma, aa }), ..self }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<25} {:<25} {:>8} {:>8} {:>6}  {:>7} {:>6}  {:>7}",
            "scenario", "judged by", "reverted", "promoted", "held", "after s", "p95", "exposed"
        )?;
        for scenario in Scenario::ALL {
            if let Some(report) = self.scenarios.get(scenario.name()) {
                write_rows(formatter, scenario.name(), scenario.about(), report)?;
            }
        }
        if let Some(Sensitivity { worker_sigma, aa }) = &self.sensitivity {
            write_rows(formatter, "aa", &format!("workers differ by {worker_sigma}"), aa)?;
        }
        writeln!(
            formatter,
            "\n{} runs a scenario. after s: seconds from the first user of the new version to the revert, in half \
             and in 95%\nof the reverted runs; exposed: users of the new version until the end, median.\n{}",
            self.runs, self.world
        )
    }
}

fn write_rows(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    about: &str,
    report: &ScenarioReport,
) -> fmt::Result {
    write_row(formatter, name, "tenk", &report.judged)?;
    write_row(formatter, about, "thresholds every minute", &report.threshold_rule)?;
    write_row(formatter, "", "Mann-Whitney at the end", &report.mann_whitney)?;
    write_row(formatter, "", "Mann-Whitney every minute", &report.mann_whitney_each_minute)
}

fn write_row(formatter: &mut fmt::Formatter<'_>, name: &str, rule: &str, report: &RuleReport) -> fmt::Result {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let seconds = |time: Option<u64>| time.map_or("-".to_owned(), |time| time.to_string());
    writeln!(
        formatter,
        "{name:<25} {rule:<25} {:>8} {:>8} {:>6}  {:>7} {:>6}  {:>7}",
        percent(report.reverted_share),
        percent(report.promoted_share),
        percent(report.held_share),
        seconds(report.detection_s.median),
        seconds(report.detection_s.p95),
        report.users_exposed
    )
}
