//! `tenk loadtest search`

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

use super::interrupt::{INTERRUPTED, stop_at_interrupt};
use super::source::SourceArgs;
use super::{json, print, save};
use crate::assertion::Assertion;
use crate::error::Error;
use crate::runner::Driver;
use crate::scenario::Arrivals;
use crate::search::{Ended, Measured, Search, SearchReport, Settings, targets};

/// The file of a search within its folder.
const FILE: &str = "search.json";

/// Find the highest rate that meets the targets.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// What each run must meet, such as 'ttft_p99_ms < 500'; may be given several times [default: the scenario's targets]
    #[arg(long = "assert", value_name = "ASSERTION")]
    asserted: Vec<Assertion>,
    /// The share of requests that must meet the scenario's targets, where nothing is asserted
    #[arg(long, default_value_t = 0.99, value_name = "SHARE")]
    goodput: f64,
    /// The first rate, in requests a second
    #[arg(long, default_value_t = Settings::default().start, value_name = "RATE")]
    start: f64,
    /// No lower rate is tried
    #[arg(long, default_value_t = Settings::default().rate_min, value_name = "RATE")]
    rate_min: f64,
    /// No higher rate is tried
    #[arg(long, default_value_t = Settings::default().rate_max, value_name = "RATE")]
    rate_max: f64,
    /// What the rate is multiplied by until it misses
    #[arg(long, default_value_t = Settings::default().growth, value_name = "FACTOR")]
    growth: f64,
    /// How close the rate that is found must be to one that misses, as a share of it
    #[arg(long, default_value_t = Settings::default().resolution, value_name = "SHARE")]
    resolution: f64,
    /// Runs a rate; most of them decide
    #[arg(long, default_value_t = Settings::default().repeats, value_name = "N")]
    repeats: u32,
    /// The most runs in all
    #[arg(long, default_value_t = Settings::default().runs_max, value_name = "N")]
    runs_max: u32,
    /// Start no run that would probably end later than so many seconds after the start
    #[arg(long, default_value_t = 3_600.0, value_name = "S")]
    time_max_s: f64,
    /// Go on with the search in --report-dir
    #[arg(long, requires = "report_dir")]
    resume: bool,
}

impl SearchArgs {
    pub(super) fn search(&self) -> Result<Search, Error> {
        let scenario = self.source.scenario(Arrivals::Poisson { rate: self.start })?;
        Ok(Search {
            targets: targets(&self.asserted, &scenario.targets, self.goodput),
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
}

/// The runs of a search that was stopped.
fn earlier(dir: &Path) -> Result<Vec<Measured>, Error> {
    #[derive(Deserialize)]
    struct Saved {
        runs: Vec<Measured>,
    }
    let path = dir.join(FILE);
    let text = std::fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
    let saved: Result<Saved, _> = serde_json::from_slice(&text);
    saved.map(|saved| saved.runs).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
}

pub(super) async fn run(args: SearchArgs) -> anyhow::Result<ExitCode> {
    let search = args.search()?;
    let report_dir = args.source.report_dir.clone();
    let earlier = match &report_dir {
        Some(dir) if args.resume => earlier(dir)?,
        _ => Vec::new(),
    };
    let shows = std::io::stderr().is_terminal();
    let mut driver =
        Driver { api_key: args.source.api_key.clone(), report_dir: report_dir.clone(), progress: shows };
    let stop = stop_at_interrupt();
    let report = search
        .run(&mut driver, &earlier, &stop, |report| {
            if shows {
                tell(report);
            }
            report_dir.as_deref().map_or(Ok(()), |dir| save(dir, FILE, report))
        })
        .await?;
    print(&if args.source.json { json(&report)? } else { report.to_string() })?;
    Ok(match (&report.ended, report.found.rate) {
        (Ended::Interrupted, _) => ExitCode::from(INTERRUPTED),
        (Ended::Complete, Some(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// One line a run.
#[expect(clippy::print_stderr, reason = "a person waits")]
fn tell(report: &SearchReport) {
    if let Some(run) = report.runs.last() {
        let checked: Vec<String> = run.checked.iter().map(ToString::to_string).collect();
        eprintln!("{} requests/s: {:?}  {}", run.rate, run.outcome, checked.join("; "));
    }
}
