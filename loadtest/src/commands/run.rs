//! `tenk loadtest run`: arguments in, a report out.

use std::io::Write as _;
use std::process::ExitCode;
use std::str::FromStr;

use super::flags::REQUESTS;
use super::print;
use super::source::{SourceArgs, new_seed};
use crate::arrivals::Shard;
use crate::assertion::{Assertion, Judgement};
use crate::driver::LoadTest;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tokenizer::OpenTokenizer;

/// What `--help` shows below the flags.
pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  Does it answer? A scenario of this program, against a server on this machine:
    tenk loadtest run smoke --target http://127.0.0.1:8080
  How fast is it with 32 users who wait for their answers?
    tenk loadtest run --target http://127.0.0.1:8080 --users 32 --duration-s 30
  Does it keep up with 5 requests a second, whoever waits? (This is what real users do.)
    tenk loadtest run --target http://127.0.0.1:8080 --rate 5 --duration-s 60 --report-dir report
  The same in bursts, with targets, as a check for CI:
    tenk loadtest run burst --rate 5 --target-ttft-ms 500 --assert 'ttft_p99_ms < 500'
  A file of your own, at another rate:
    tenk loadtest run my-scenario.toml --rate 20
  Two processes that share one run (then merge their reports):
    tenk loadtest run 10k --seed 1 --start-at 1767225600 --shard 1/2 --report-dir a
    tenk loadtest run 10k --seed 1 --start-at 1767225600 --shard 2/2 --report-dir b

`tenk loadtest scenarios` lists the scenarios and the question that each answers.";

/// Load a server that speaks OpenAI's API, and report what it did.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The scenario and where the report goes.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Exit with failure unless the report meets this, such as 'ttft_p99_ms < 500'; repeatable
    #[arg(long = "assert", value_name = "EXPRESSION", help_heading = "Report")]
    pub asserts: Vec<Assertion>,
    /// Exit with success even when requests failed
    #[arg(long, help_heading = "Report")]
    pub allow_errors: bool,
    /// Send the I-th of N parts of the requests, counted from 1; other processes send the rest
    #[arg(long, value_name = "I/N", help_heading = "Several processes")]
    pub shard: Option<Shard>,
    /// Start when this machine's clock shows so many seconds since 1970, for processes that share a run
    #[arg(long, value_name = "UNIX", value_parser = parse_unix_s, help_heading = "Several processes")]
    pub start_at: Option<f64>,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const COUNT_MAX: u32 = 1_000;
        let numbers = text.split_once('/').and_then(|(one, of)| Some((one.parse().ok()?, of.parse().ok()?)));
        let (one, count): (u32, u32) = numbers.ok_or("I/N was expected, such as 1/4")?;
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(format!("there must be from 1 to {COUNT_MAX} parts"));
        }
        if !(1..=count).contains(&one) {
            return Err(format!("parts are counted from 1/{count} to {count}/{count}"));
        }
        Ok(Self { index: one - 1, count })
    }
}

fn parse_unix_s(text: &str) -> Result<f64, String> {
    // To the year 2100.
    let in_range = |seconds: &f64| (1.0..4.2e9).contains(seconds);
    text.parse()
        .ok()
        .filter(in_range)
        .ok_or_else(|| "seconds since 1970 were expected, as `date +%s` shows".into())
}

impl RunArgs {
    /// The scenario that these arguments mean. `new_seed` is taken where nobody gave one.
    ///
    /// # Errors
    /// When the file cannot be read, or something is wrong in it or in the flags.
    pub fn scenario(&self, new_seed: u64) -> Result<Scenario, Error> {
        let (name, flags) = (self.source.scenario.as_deref(), &self.source.flags);
        if self.shard.is_some() && !flags.has_seed(name)? {
            return Err(Error::Config(
                "processes that share a run need the same schedule; give each the same --seed".into(),
            ));
        }
        flags.scenario(name, new_seed, REQUESTS)
    }
}

/// What a run came to, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every request succeeded, or errors were allowed; every assertion was met.
    Passed,
    /// A request failed, or an assertion was missed.
    Failed,
    /// The run was stopped before its end.
    Interrupted,
}

impl Verdict {
    /// Judges `report`. Who asserts says what is to hold, and so whether requests may fail.
    pub(crate) fn of(report: &Report, allow_errors: bool, judgement: Option<&Judgement>) -> Self {
        let any_failed = report.requests.failed + report.requests.unsent > 0;
        let failed = judgement.map_or(any_failed && !allow_errors, |judgement| !judgement.met);
        match (report.interrupted, failed) {
            (true, _) => Self::Interrupted,
            (false, true) => Self::Failed,
            (false, false) => Self::Passed,
        }
    }
}

/// Runs the load test and prints its report to standard output. A signal ends the run early, with a report.
///
/// # Errors
/// When the run cannot start, or a report cannot be written. Failed requests are a [`Verdict`].
pub(super) async fn run(args: RunArgs, open_tokenizer: OpenTokenizer) -> anyhow::Result<ExitCode> {
    let load_test = LoadTest {
        scenario: args.scenario(new_seed())?,
        api_key: args.source.api_key,
        open_tokenizer: Some(open_tokenizer),
        report_dir: args.source.report_dir.clone(),
        progress: true,
        shard: args.shard.unwrap_or(Shard::WHOLE),
        start_at: args.start_at,
    };
    let interrupt = Interrupt::listen()?;
    let report = match load_test.run(interrupt.stop.clone()).await {
        // Before anything was measured, it is no failure of the run.
        Err(Error::Interrupted) => return Ok(interrupt.status().unwrap_or(ExitCode::FAILURE)),
        report => report?,
    };

    if let Some(dir) = &args.source.report_dir {
        report.save(dir)?;
    }
    let mut output = Vec::new();
    if args.source.json {
        report.write_json(&mut output)?;
    } else {
        report.write_table(&mut output)?;
    }
    let judgement = (!args.asserts.is_empty()).then(|| Judgement::of(&args.asserts, &report));
    match &judgement {
        // The JSON on standard output stays a document.
        Some(judgement) if args.source.json => tell(judgement),
        Some(judgement) => output.extend(format!("\n{judgement}").bytes()),
        None => {}
    }
    print(&String::from_utf8_lossy(&output))?;
    Ok(match Verdict::of(&report, args.allow_errors, judgement.as_ref()) {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
        Verdict::Interrupted => interrupt.status().unwrap_or(ExitCode::FAILURE),
    })
}

/// A person or a log reads which assertion was missed.
fn tell(judgement: &Judgement) {
    let _ = write!(std::io::stderr(), "{judgement}");
}

#[cfg(test)]
mod tests;
