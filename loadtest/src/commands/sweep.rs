//! `tenk loadtest sweep`

use std::io::IsTerminal;
use std::process::ExitCode;

use super::interrupt::{INTERRUPTED, stop_at_interrupt};
use super::source::SourceArgs;
use super::{json, print, save};
use crate::runner::Driver;
use crate::scenario::Arrivals;
use crate::sweep::Sweep;

/// The file of a sweep within its folder.
const FILE: &str = "sweep.json";

/// Run once for each value of a field.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The field: rate, users, prompt-tokens, or any by its path
    #[arg(long, value_name = "FIELD")]
    field: String,
    /// Its values
    #[arg(long, value_name = "VALUES", value_delimiter = ',', required = true)]
    values: Vec<String>,
    /// Runs a value
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
}

pub(super) async fn run(args: SweepArgs) -> anyhow::Result<ExitCode> {
    // Whoever sweeps the rate wants an open loop, and whoever sweeps users a closed one.
    let arrivals = match args.field.as_str() {
        "rate" | "arrivals.rate" => Arrivals::Poisson { rate: 1.0 },
        "cv" | "arrivals.cv" => Arrivals::Gamma { rate: 1.0, cv: 1.0 },
        _ => Arrivals::ClosedLoop { users: 8, think_time_s: 0.0 },
    };
    let sweep = Sweep {
        scenario: args.source.scenario(arrivals)?,
        field: args.field,
        values: args.values,
        repeats: args.repeats,
    };
    let report_dir = args.source.report_dir;
    let mut driver = Driver {
        api_key: args.source.api_key,
        report_dir: report_dir.clone(),
        progress: std::io::stderr().is_terminal(),
    };
    let stop = stop_at_interrupt();
    let report = sweep
        .run(&mut driver, &stop, |report| report_dir.as_deref().map_or(Ok(()), |dir| save(dir, FILE, report)))
        .await?;
    print(&if args.source.json { json(&report)? } else { report.to_string() })?;
    Ok(match &report.stopped {
        None => ExitCode::SUCCESS,
        Some(_) if stop.is_cancelled() => ExitCode::from(INTERRUPTED),
        Some(_) => ExitCode::FAILURE,
    })
}
