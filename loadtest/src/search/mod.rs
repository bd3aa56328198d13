//! The highest rate that meets the targets.
//!
//! Noise is what makes this hard: near the limit one run in a few meets by luck. So most of several runs decide a
//! rate, the rate that is found is run again, and the report holds every run, so that a reader can doubt it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::assertion::{Assertion, Judgement, Operator};
use crate::error::Error;
use crate::figures::{self, Runner, run_label};
use crate::scenario::{Arrivals, Scenario, Targets};

mod report;
mod stepper;

pub(crate) use report::figures_of;
pub use report::{Ended, Measured, RateSummary, SearchReport};
pub use stepper::{Found, Limit, Outcome, SearchState, Settings, Tally};

/// The most failed requests that a run may have unless a target speaks of errors or goodput: latencies are those of
/// requests that succeeded, so a server that refuses most would look fast.
const ERROR_SHARE_MAX: f64 = 0.01;
/// Longer searches are several.
const TIME_S_MAX: f64 = 7.0 * 86_400.0;

/// A search, ready to start.
#[derive(Clone, Debug)]
pub struct Search {
    /// What each run does; its rate is replaced.
    pub scenario: Scenario,
    /// What a run must meet.
    pub targets: Vec<Assertion>,
    /// How to go about it.
    pub settings: Settings,
    /// No run is started that would probably end later, in seconds.
    pub time_s_max: f64,
}

impl Search {
    /// Runs until the rate is found, a bound is reached or `stop` is cancelled. `earlier` are the runs of a search that
    /// was stopped; `on_run` gets the report after each run, so that nothing measured is lost.
    ///
    /// # Errors
    /// When the settings are refused, `earlier` is of another search, or the first run fails. A later run that fails
    /// ends the search with a report.
    pub async fn run<R: Runner>(
        &self,
        runner: &mut R,
        earlier: &[Measured],
        stop: &CancellationToken,
        mut on_run: impl FnMut(&SearchReport) -> Result<(), Error>,
    ) -> Result<SearchReport, Error> {
        self.validate()?;
        let mut state = SearchState::new(self.settings);
        let mut report = SearchReport::new(self, replayed(&mut state, earlier)?);
        let (started, mut longest) = (Instant::now(), Duration::ZERO);
        report.ended = loop {
            let Some(rate) = state.next() else {
                break if state.found().complete { Ended::Complete } else { Ended::RunsMax };
            };
            if (started.elapsed() + longest).as_secs_f64() > self.time_s_max {
                break Ended::TimeMax;
            }
            let number = report.runs.len();
            let mut scenario = at_rate(&self.scenario, rate)?;
            // Each run asks other prompts, or the caches of one would answer the next.
            scenario.seed = self.scenario.seed.wrapping_add(number as u64);
            let run_started = Instant::now();
            match runner.run(scenario, &run_label(number), stop).await {
                Ok(run) if figures::Figures::interrupted(&run) => break Ended::Interrupted,
                Err(Error::Interrupted) => break Ended::Interrupted,
                // Nothing is lost, and the reason is all there is to say.
                Err(error) if report.runs.is_empty() => return Err(error),
                Err(error) => break Ended::Failed(error.to_string()),
                Ok(run) => {
                    longest = longest.max(run_started.elapsed());
                    let measured = Measured::of(rate, &run, Judgement::of(&self.targets, &run));
                    state.observe(rate, measured.outcome);
                    report.take(measured, &state);
                    on_run(&report)?;
                }
            }
        };
        report.settle(&state);
        on_run(&report)?;
        Ok(report)
    }

    fn validate(&self) -> Result<(), Error> {
        self.settings.validate()?;
        if !(self.time_s_max > 0.0 && self.time_s_max <= TIME_S_MAX) {
            return Err(Error::Config(format!("time-max-s must be above 0 and at most {TIME_S_MAX}")));
        }
        if self.targets.is_empty() {
            return Err(Error::Config(
                "a search needs a target; give --assert 'ttft_p99_ms < 500', or [targets] in the scenario"
                    .into(),
            ));
        }
        at_rate(&self.scenario, self.settings.start).map(drop)
    }
}

/// Lets a new search see what an earlier one saw.
fn replayed(state: &mut SearchState, earlier: &[Measured]) -> Result<Vec<Measured>, Error> {
    for measured in earlier {
        let rate = state.next().filter(|rate| (rate - measured.rate).abs() <= 1e-9 * rate);
        let rate = rate.ok_or_else(|| {
            Error::Config(format!(
                "the earlier search ran {} requests/s where this one would not; go on with the same settings, or \
                 start anew",
                measured.rate
            ))
        })?;
        state.observe(rate, measured.outcome);
    }
    Ok(earlier.to_vec())
}

/// The scenario at another rate.
///
/// # Errors
/// When its arrivals have no single rate.
pub fn at_rate(scenario: &Scenario, to: f64) -> Result<Scenario, Error> {
    let mut scenario = scenario.clone();
    match &mut scenario.arrivals {
        Arrivals::Constant { rate } | Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } => *rate = to,
        Arrivals::ClosedLoop { .. }
        | Arrivals::Ramp { .. }
        | Arrivals::Steps { .. }
        | Arrivals::Trace { .. } => {
            return Err(Error::Config(
                "a search varies one rate, so the scenario's arrivals must be constant, poisson or gamma"
                    .into(),
            ));
        }
    }
    Ok(scenario)
}

/// What runs must meet: the assertions, else the scenario's own targets by `goodput_min` of the requests. Where none
/// of them counts failures, a bound on these is added.
pub fn targets(assertions: &[Assertion], own: &Targets, goodput_min: f64) -> Vec<Assertion> {
    let mut targets = assertions.to_vec();
    let has_own = *own != Targets::default();
    let at_least = |figure: &str, operator, number| Assertion { figure: figure.to_owned(), operator, number };
    if targets.is_empty() && has_own {
        targets.push(at_least("goodput", Operator::GreaterOrEqual, goodput_min));
    }
    let counts_failures =
        targets.iter().any(|target| target.figure == "goodput" || target.figure == "error_share");
    if !targets.is_empty() && !counts_failures {
        targets.push(at_least("error_share", Operator::LessOrEqual, ERROR_SHARE_MAX));
    }
    targets
}

#[cfg(test)]
mod tests;
