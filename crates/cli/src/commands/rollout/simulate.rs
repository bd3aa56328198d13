//! `tenk rollout simulate`

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use rollout::simulate::{Options, Report, RunOutcome, Scenario, simulate};

use crate::args::SimulateArgs;
use crate::commands::print;

/// How many times the line of progress is written anew.
const PROGRESS_LINES: usize = 200;

pub(super) fn run(args: &SimulateArgs) -> Result<ExitCode> {
    let mut options = Options {
        requests_per_s: args.requests_per_s,
        percent: args.percent,
        minutes: args.minutes,
        ..Options::default()
    };
    if let Some(file) = &args.latencies {
        options = options.with_recorded(&recorded(file)?).with_context(|| file.display().to_string())?;
    }
    options.validate()?;
    let mut scenarios = match args.scenario.as_slice() {
        [] => Scenario::ALL.to_vec(),
        some => some.to_vec(),
    };
    scenarios.sort_unstable();
    scenarios.dedup();
    let runs = run_all(&options, &scenarios, args);
    let mut report = Report::new(&options, &runs);
    if args.sensitivity {
        let doubled = options.with_doubled_workers();
        report = report.with_sensitivity(&doubled, &run_all(&doubled, &[Scenario::Aa], args));
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&report.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Simulates all runs on all cores. Which thread does which makes no difference.
fn run_all(
    options: &Options,
    scenarios: &[Scenario],
    args: &SimulateArgs,
) -> BTreeMap<Scenario, Vec<RunOutcome>> {
    let runs = args.runs as usize;
    let count = runs * scenarios.len();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_terminal = std::io::stderr().is_terminal();
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return outcomes;
            }
            let seed = args.seed.wrapping_add((index % runs) as u64);
            outcomes.push((index, simulate(options, scenarios[index / runs], seed)));
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if is_terminal && done.is_multiple_of((count / PROGRESS_LINES).max(1)) {
                eprint!("\r\x1b[K{}: {done} of {count} rollouts …", scenarios[index / runs]);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<(usize, RunOutcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(outcomes) => outcomes,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    let mut by_scenario: BTreeMap<Scenario, Vec<RunOutcome>> = BTreeMap::new();
    for (index, outcome) in outcomes {
        by_scenario.entry(scenarios[index / runs]).or_default().push(outcome);
    }
    by_scenario
}

/// Times in seconds, one a line or as a JSON array.
fn recorded(file: &Path) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> Result<Vec<f64>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("not a JSON array of numbers");
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let time = |(index, line): (usize, &str)| {
        line.trim().parse().with_context(|| format!("line {} is no time in seconds", index + 1))
    };
    lines.map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_lines_and_from_json_and_a_wrong_line_is_named() {
        assert_eq!(parse("0.5\n\n 1.25 \n").expect("lines"), [0.5, 1.25]);
        assert_eq!(parse(" [0.5, 1]").expect("JSON"), [0.5, 1.0]);
        assert_eq!(parse("1\nx").expect_err("no number").to_string(), "line 2 is no time in seconds");
    }
}
