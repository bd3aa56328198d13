//! What a search measured, whether it came to its end or not.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Search;
use super::stepper::{Found, Limit, Outcome, SearchState, Settings};
use crate::assertion::{Checked, Judgement, rounded};
use crate::compare::Sample;
use crate::figures::{self, Figures};
use crate::scenario::Scenario;

/// The version of the document.
const SCHEMA: u32 = 1;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Requests a second that were offered.
    pub rate: f64,
    /// What it came to.
    pub outcome: Outcome,
    /// Each target and what the run had for it.
    pub checked: Vec<Checked>,
    /// All figures that the run has, by name.
    pub figures: BTreeMap<String, f64>,
}

impl Measured {
    /// Takes down a run.
    pub fn of(rate: f64, run: &impl Figures, judgement: Judgement) -> Self {
        let outcome = match (run.valid(), judgement.met) {
            (false, _) => Outcome::Invalid,
            (true, true) => Outcome::Met,
            (true, false) => Outcome::Missed,
        };
        Self { rate, outcome, checked: judgement.checked, figures: figures_of(run) }
    }
}

/// All figures that a run has.
pub(crate) fn figures_of(run: &impl Figures) -> BTreeMap<String, f64> {
    figures::all().into_iter().filter_map(|name| run.figure(&name).map(|value| (name, value))).collect()
}

/// Why a search ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The rate is found, or shown not to exist.
    Complete,
    /// The bound on runs was reached.
    RunsMax,
    /// The next run would probably have ended after the bound on time.
    TimeMax,
    /// It was stopped.
    Interrupted,
    /// A run could not be made.
    Failed(String),
}

/// All runs at one rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateSummary {
    /// Requests a second that were offered.
    pub rate: f64,
    /// Runs that met all targets.
    pub met: u32,
    /// Runs that missed one.
    pub missed: u32,
    /// Runs in which the tester could not keep its schedule.
    pub invalid: u32,
    /// Whether the rate meets; null where the runs did not suffice to say.
    pub decision: Option<bool>,
    /// The figures that targets speak of, over the runs.
    pub figures: BTreeMap<String, Sample>,
}

impl RateSummary {
    /// The decision in words.
    pub fn verdict(&self) -> &'static str {
        match self.decision {
            Some(true) => "meets",
            Some(false) => "does not",
            None => "open",
        }
    }
}

/// A search from its start to wherever it came.
#[derive(Clone, Debug, Serialize)]
pub struct SearchReport {
    /// The version of this document.
    pub schema: u32,
    /// What each run did, but for its rate and seed.
    pub scenario: Scenario,
    /// What a run had to meet.
    pub targets: Vec<String>,
    /// How the search went about it.
    pub settings: Settings,
    /// What it found.
    pub found: Found,
    /// Why it ended; `interrupted` while it has not.
    pub ended: Ended,
    /// The rates from the lowest.
    pub rates: Vec<RateSummary>,
    /// The runs in their order.
    pub runs: Vec<Measured>,
    #[serde(skip)]
    figures: Vec<String>,
}

impl SearchReport {
    pub(super) fn new(search: &Search, runs: Vec<Measured>) -> Self {
        Self {
            schema: SCHEMA,
            scenario: search.scenario.clone(),
            targets: search.targets.iter().map(ToString::to_string).collect(),
            settings: search.settings,
            found: SearchState::new(search.settings).found(),
            ended: Ended::Interrupted,
            rates: Vec::new(),
            runs,
            figures: search.targets.iter().map(|target| target.figure.clone()).collect(),
        }
    }

    pub(super) fn take(&mut self, measured: Measured, state: &SearchState) {
        self.runs.push(measured);
        self.settle(state);
    }

    /// The figures that targets speak of.
    pub(crate) fn figures(&self) -> &[String] {
        &self.figures
    }

    /// Brings what is derived from the runs up to date.
    pub(super) fn settle(&mut self, state: &SearchState) {
        self.found = state.found();
        let summarize = |rate: f64, figure: &String| {
            let at_rate = self.runs.iter().filter(|run| (run.rate - rate).abs() <= 1e-9 * rate);
            let values: Vec<f64> = at_rate.filter_map(|run| run.figures.get(figure).copied()).collect();
            Some((figure.clone(), Sample::of(&values)?))
        };
        self.rates = state
            .tallies()
            .into_iter()
            .map(|tally| RateSummary {
                rate: tally.rate,
                met: tally.met,
                missed: tally.missed,
                invalid: tally.invalid,
                decision: tally.decision(),
                figures: self.figures.iter().filter_map(|figure| summarize(tally.rate, figure)).collect(),
            })
            .collect();
    }

    /// The answer in one or two sentences.
    pub fn verdict(&self) -> String {
        let Found { rate, above, limit, .. } = self.found;
        let answer = match (rate, above, limit) {
            (Some(rate), Some(above), Some(Limit::Tester)) => format!(
                "{} requests/s meet the targets; at {} the tester itself could not keep its schedule, so the target \
                 may do more: give the tester more CPU",
                rounded(rate),
                rounded(above)
            ),
            (Some(rate), Some(above), _) => {
                format!("{} requests/s meet the targets, {} do not", rounded(rate), rounded(above))
            }
            (Some(rate), None, Some(Limit::RateMax)) => {
                format!("{} requests/s, the most that was to be tried, meet the targets", rounded(rate))
            }
            (Some(rate), None, _) => {
                format!("{} requests/s meet the targets; higher ones were not decided", rounded(rate))
            }
            (None, Some(above), Some(Limit::Tester)) => {
                format!("the tester could not keep its schedule even at {} requests/s", rounded(above))
            }
            (None, Some(above), _) => format!("not even {} requests/s meet the targets", rounded(above)),
            (None, None, _) => "no rate was decided".to_owned(),
        };
        match &self.ended {
            Ended::Complete => answer,
            Ended::RunsMax => format!("UNFINISHED, the runs are used up: {answer}"),
            Ended::TimeMax => format!("UNFINISHED, the time is used up: {answer}"),
            Ended::Interrupted => format!("UNFINISHED, interrupted: {answer}"),
            Ended::Failed(reason) => format!("UNFINISHED, a run failed ({reason}): {answer}"),
        }
    }
}

impl fmt::Display for SearchReport {
    /// A line a rate, and the answer below.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "targets     {}", self.targets.join(", "))?;
        write!(f, "{:>12}{:>6}{:>8}{:>9}  {:<10}", "requests/s", "met", "missed", "invalid", "verdict")?;
        self.figures.iter().try_for_each(|figure| write!(f, "{figure:>24}"))?;
        writeln!(f)?;
        for rate in &self.rates {
            let verdict = rate.verdict();
            let (met, missed, invalid) = (rate.met, rate.missed, rate.invalid);
            write!(f, "{:>12}{met:>6}{missed:>8}{invalid:>9}  {verdict:<10}", rounded(rate.rate))?;
            for figure in &self.figures {
                let shown = rate.figures.get(figure).map_or("-".to_owned(), ToString::to_string);
                write!(f, "{shown:>24}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n{}", self.verdict())?;
        writeln!(f, "  ± is a 95% interval of the mean over a rate's runs, from Student's t")
    }
}
