//! `tenk loadtest sweep`

use std::io::IsTerminal;
use std::process::ExitCode;

use super::flags::REQUESTS;
use super::pages::{of_sweep, save_page};
use super::source::SourceArgs;
use super::{json, print, save};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::runner::Driver;
use crate::sweep::{Sweep, setting};
use crate::tokenizer::OpenTokenizer;

/// The file of a sweep within its folder.
const FILE: &str = "sweep.json";

/// Run once for each value of a setting.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// What varies: a flag's name without its dashes, such as users, or a setting of a scenario file by its path
    #[arg(long, value_name = "SETTING", help_heading = "Sweep")]
    field: String,
    /// Its values, with commas between
    #[arg(long, help_heading = "Sweep", value_name = "VALUES", value_delimiter = ',', required = true)]
    values: Vec<String>,
    /// Runs a value
    #[arg(long, help_heading = "Sweep", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
}

impl SweepArgs {
    pub(super) fn sweep(&self) -> Result<Sweep, Error> {
        let mut source = self.source.clone();
        let flags = &mut source.flags;
        // The flag's first value makes arrivals that have the setting, as the flag itself does.
        let first = |what: &str| {
            let value = self.values.first().map_or("", String::as_str).trim();
            value.parse().map_err(|_| Error::Config(format!("--values {value}: {what} was expected")))
        };
        match setting(&self.field).as_str() {
            "arrivals.rate" => flags.rate = Some(first("a rate in requests a second")?),
            "arrivals.cv" => flags.cv = Some(first("a coefficient of variation")?),
            "prompts.repeats.prompts" => flags.repeat_prompts = Some(first("a number of prompts")? as u64),
            "prompts.repeats.exponent" => flags.repeat_exponent = Some(first("a number")?),
            "arrivals.users" => flags.users = Some(first("a number of users")? as u32),
            _ => {}
        }
        Ok(Sweep {
            scenario: source.scenario(REQUESTS)?,
            field: self.field.clone(),
            values: self.values.iter().map(|value| value.trim().to_owned()).collect(),
            repeats: self.repeats,
        })
    }
}

pub(super) async fn run(args: SweepArgs, open_tokenizer: OpenTokenizer) -> anyhow::Result<ExitCode> {
    let sweep = args.sweep()?;
    let report_dir = args.source.report_dir;
    let mut driver = Driver {
        api_key: args.source.api_key,
        open_tokenizer: Some(open_tokenizer),
        report_dir: report_dir.clone(),
        progress: std::io::stderr().is_terminal(),
    };
    let interrupt = Interrupt::listen()?;
    let report = sweep
        .run(&mut driver, &interrupt.stop, |report| {
            report_dir.as_deref().map_or(Ok(()), |dir| save(dir, FILE, report))
        })
        .await?;
    if let Some(dir) = &report_dir {
        save_page(dir, &of_sweep(&report, sweep.repeats, &sweep.values, dir)?)?;
    }
    print(&if args.source.json { json(&report)? } else { report.to_string() })?;
    Ok(match &report.stopped {
        None => ExitCode::SUCCESS,
        Some(_) => interrupt.status().unwrap_or(ExitCode::FAILURE),
    })
}
