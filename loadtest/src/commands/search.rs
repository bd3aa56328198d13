//! `tenk loadtest search`

use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

use super::flags::{ArrivalsKind, End};
use super::pages::{of_search, save_page};
use super::source::SourceArgs;
use super::{json, print, save};
use crate::assertion::{Assertion, rounded};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::runner::Driver;
use crate::scenario::{Arrivals, Draft, Scenario};
use crate::search::{Ended, Measured, Search, SearchReport, Settings, at_rate, targets};
use crate::tokenizer::OpenTokenizer;

/// The file of a search within its folder.
const FILE: &str = "search.json";

/// Find the highest rate that meets the targets.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// What each run must meet, such as 'ttft_p99_ms < 500'; repeatable [default: the scenario's targets]
    #[arg(long = "assert", value_name = "EXPRESSION", help_heading = "Search")]
    asserts: Vec<Assertion>,
    /// The share of requests that must meet the scenario's targets, where nothing is asserted
    #[arg(long, help_heading = "Search", default_value_t = 0.99, value_name = "SHARE")]
    goodput: f64,
    /// The first rate, in requests a second
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().start, value_name = "RATE")]
    start: f64,
    /// No lower rate is tried
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().rate_min, value_name = "RATE")]
    rate_min: f64,
    /// No higher rate is tried
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().rate_max, value_name = "RATE")]
    rate_max: f64,
    /// What the rate is multiplied by until it misses
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().growth, value_name = "FACTOR")]
    growth: f64,
    /// How close the rate that is found must be to one that misses, as a share of it
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().resolution, value_name = "SHARE")]
    resolution: f64,
    /// Runs a rate; most of them decide
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().repeats, value_name = "N")]
    repeats: u32,
    /// The most runs in all
    #[arg(long, help_heading = "Search", default_value_t = Settings::default().runs_max, value_name = "N")]
    runs_max: u32,
    /// Start no run that would probably end later than so many seconds after the start
    #[arg(long, help_heading = "Search", default_value_t = 3_600.0, value_name = "S")]
    time_max_s: f64,
    /// Go on with the search in --report-dir
    #[arg(long, help_heading = "Search", requires = "report_dir")]
    resume: bool,
}

/// How long a run is of which nobody said it: a queue needs some time to show.
const RUN_S: f64 = 30.0;

impl SearchArgs {
    pub(super) fn search(&self) -> Result<Search, Error> {
        let scenario = self.scenario()?;
        Ok(Search {
            targets: targets(&self.asserts, &scenario.targets, self.goodput),
            scenario,
            settings: Settings {
                start: self.start,
                rate_min: self.rate_min,
                rate_max: self.rate_max,
                growth: self.growth,
                resolution: self.resolution,
                repeats: self.repeats,
                runs_max: self.runs_max,
            },
            time_s_max: self.time_max_s,
        })
    }

    /// The scenario at the first rate.
    fn scenario(&self) -> Result<Scenario, Error> {
        let flags = &self.source.flags;
        if flags.rate.is_some() || flags.users.is_some() || flags.think_time_s.is_some() {
            return Err(Error::Config(
                "a search finds the rate itself: leave --rate, --users and --think-time-s out; --start says which rate \
                 comes first"
                    .into(),
            ));
        }
        if flags.arrivals == Some(ArrivalsKind::Closed) {
            return Err(Error::Config(
                "the server sets the rate of a closed loop, so there is none to search; leave --arrivals out"
                    .into(),
            ));
        }
        if let (Some(name), None) = (&self.source.scenario, flags.arrivals) {
            // A ramp or a trace would silently become something else; a closed loop says only that nobody chose.
            match Draft::open(name)?.scenario {
                scenario @ Scenario { arrivals: Arrivals::ClosedLoop { .. }, .. } => drop(scenario),
                scenario => at_rate(&scenario, self.start).map(drop)?,
            }
        }
        let mut source = self.source.clone();
        source.flags.rate = Some(self.start);
        source.scenario(End::DurationS(RUN_S))
    }
}

/// A search that was stopped.
#[derive(Deserialize)]
pub(super) struct Earlier {
    scenario: Scenario,
    runs: Vec<Measured>,
}

impl Earlier {
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
    }

    /// Its runs, if they are of the same scenario. The search goes on with the seed that it had.
    pub(super) fn runs_for(self, search: &mut Search) -> Result<Vec<Measured>, Error> {
        search.scenario.seed = self.scenario.seed;
        match self.scenario.differences(&search.scenario).first() {
            None => Ok(self.runs),
            Some(difference) => Err(Error::Config(format!(
                "the search in --report-dir asked otherwise ({difference}); go on with the same scenario and flags, or \
                 start anew"
            ))),
        }
    }
}

pub(super) async fn run(args: SearchArgs, open_tokenizer: OpenTokenizer) -> anyhow::Result<ExitCode> {
    let mut search = args.search()?;
    let report_dir = args.source.report_dir.clone();
    let earlier = match &report_dir {
        Some(dir) if args.resume => Earlier::read(dir)?.runs_for(&mut search)?,
        _ => Vec::new(),
    };
    let shows = std::io::stderr().is_terminal();
    let mut driver = Driver {
        api_key: args.source.api_key.clone(),
        open_tokenizer: Some(open_tokenizer),
        report_dir: report_dir.clone(),
        progress: shows,
    };
    let interrupt = Interrupt::listen()?;
    let mut told = earlier.len();
    let report = search
        .run(&mut driver, &earlier, &interrupt.stop, |report| {
            if report.runs.len() > told {
                told = report.runs.len();
                tell(report);
            }
            report_dir.as_deref().map_or(Ok(()), |dir| save(dir, FILE, report))
        })
        .await?;
    if let Some(dir) = &report_dir {
        save_page(dir, &of_search(&report, dir)?)?;
    }
    print(&if args.source.json { json(&report)? } else { report.to_string() })?;
    Ok(match (&report.ended, report.found.rate) {
        (Ended::Interrupted, _) => interrupt.status().unwrap_or(ExitCode::FAILURE),
        (Ended::Complete, Some(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// One line a run. A terminal that was closed meanwhile keeps nothing from being saved.
fn tell(report: &SearchReport) {
    if let Some(run) = report.runs.last() {
        let checked: Vec<String> = run.checked.iter().map(ToString::to_string).collect();
        let number = report.runs.len();
        let (rate, checked) = (rounded(run.rate), checked.join("; "));
        let _ = writeln!(std::io::stderr(), "run {number}: {rate} requests/s {}  {checked}", run.outcome);
    }
}
