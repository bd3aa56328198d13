//! `cargo xtask bars`: what a release must reach, measured and laid beside what is required.
//!
//! A bar is a ratio taken side by side in one run, or a count; never an absolute time, which drifts from machine to
//! machine. A figure without a requirement is there to be read. What cannot be measured here fails with the reason; no
//! number is ever filled in by hand.

mod engine;
mod gateway;
mod load;
mod loadtest;
mod rollout;
mod server;
mod size;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::needs::packages;
use crate::workspace;

/// `cargo xtask bars`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only the groups whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Print the groups, measure nothing.
    #[arg(long)]
    list: bool,
    /// How often each side of a comparison is measured, in turns; medians are shown.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long the load tester's memory is watched, in seconds.
    #[arg(long, default_value_t = 600)]
    soak_s: u64,
    /// Install missing packages without asking; so does CI=true.
    #[arg(long, short)]
    yes: bool,
}

/// Figures that are taken together.
struct Group {
    name: &'static str,
    about: &'static str,
    measure: fn(&Bench) -> Result<Vec<Figure>>,
}

/// All groups, in the table's order. A new one is a row here and the function that measures it.
const GROUPS: &[Group] = &[
    Group {
        name: "size",
        about: "lines of the serving path: a weekend must be enough to read it",
        measure: size::measure,
    },
    Group {
        name: "engine",
        about: "the engine beside llama.cpp's server and the machine's peaks; what 8 bits cost",
        measure: engine::measure,
    },
    Group {
        name: "gateway",
        about: "the gateway beside nginx as a proxy and vLLM's router: requests a second, added latency, processor time",
        measure: gateway::measure,
    },
    Group {
        name: "rollout-simulated",
        about: "rollouts of made-up versions: how often a good one is reverted, and how soon a bad one",
        measure: rollout::simulated,
    },
    Group {
        name: "rollout-live",
        about: "real processes on simulated GPUs: a good version, a slow one, one that fails, one that answers garbage",
        measure: rollout::live,
    },
    Group {
        name: "rollout-model",
        about: "the default model in four bits takes the users of the same in eight",
        measure: rollout::model,
    },
    Group {
        name: "loadtest-accuracy",
        about: "the load tester beside NVIDIA's aiperf, on a target whose times are known",
        measure: loadtest::accuracy::measure,
    },
    Group {
        name: "loadtest-stalls",
        about: "what load testers see of a target that stalls one second in ten",
        measure: loadtest::stalls::measure,
    },
    Group {
        name: "loadtest-memory",
        about: "the load tester's memory over ten minutes at 5,000 requests a second",
        measure: loadtest::memory::measure,
    },
    Group {
        name: "loadtest-core",
        about: "how much one core of the load tester does",
        measure: loadtest::core::measure,
    },
];

/// What measurements share.
struct Bench {
    /// The release binary.
    tenk: PathBuf,
    /// `target`, for environments and files that are made once.
    target: PathBuf,
    pairs: usize,
    soak: Duration,
    unattended: bool,
}

/// One measured thing.
#[derive(Clone, Debug, PartialEq)]
struct Figure {
    name: String,
    measured: f64,
    unit: &'static str,
    required: Option<Required>,
}

impl Figure {
    fn new(name: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { name: name.into(), measured, unit, required: None }
    }

    fn required(self, required: Required) -> Self {
        Self { required: Some(required), ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Required {
    AtLeast(f64),
    AtMost(f64),
}

impl Required {
    fn is_met_by(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

/// Measures and prints; fails when a bar is missed or could not be measured.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |group: &&Group| args.only.as_ref().is_none_or(|part| group.name.contains(part.as_str()));
    let groups: Vec<&Group> = GROUPS.iter().filter(wanted).collect();
    ensure!(!groups.is_empty(), "no group has that in its name; `cargo xtask bars --list` shows them");
    ensure!(args.pairs > 0, "--pairs must be at least 1");
    ensure!(args.soak_s >= 120, "--soak-s must be at least 120: the first minute is there to compare with");
    if args.list {
        groups.iter().for_each(|group| println!("{:<18} {}", group.name, group.about));
        return Ok(ExitCode::SUCCESS);
    }
    let bench = prepare(args)?;
    println!("| figure | required | measured | |\n|---|---|---|---|");
    let mut missed = 0;
    for group in groups {
        let rows: Vec<(String, bool)> = match (group.measure)(&bench) {
            Ok(figures) => figures.iter().map(row).collect(),
            Err(error) => vec![(format!("| {} | | {error:#} | FAILED |", group.name), false)],
        };
        for (row, met) in rows {
            missed += usize::from(!met);
            println!("{row}");
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Speed is that of the release binary.
fn prepare(args: &Args) -> Result<Bench> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?.target_directory.into_std_path_buf();
    build(&["-p", "cli"])?;
    Ok(Bench {
        tenk: target.join("release").join("tenk"),
        target,
        pairs: args.pairs,
        soak: Duration::from_secs(args.soak_s),
        unattended: args.yes || packages::is_unattended(),
    })
}

fn build(what: &[&str]) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["build", "--release"]).args(what).current_dir(workspace::root());
    ensure!(command.status()?.success(), "`cargo build --release {}` failed", what.join(" "));
    Ok(())
}

impl Bench {
    /// A program of the load tester's own, which is built first.
    fn example(&self, name: &str) -> Result<PathBuf> {
        build(&["-p", "loadtest", "--example", name])?;
        Ok(self.target.join("release").join("examples").join(name))
    }
}

fn row(figure: &Figure) -> (String, bool) {
    let Figure { name, measured, unit, required } = figure;
    let (required, verdict, met) = match required {
        None => (String::new(), "", true),
        Some(required) if required.is_met_by(*measured) => (format!("{required} {unit}"), "met", true),
        Some(required) => (format!("{required} {unit}"), "MISSED", false),
    };
    (format!("| {name} | {required} | {} {unit} | {verdict} |", shown(*measured)), met)
}

/// Three significant digits, and all of a whole number.
fn shown(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_met_or_missed_and_what_is_no_number_is_not_met() {
        let figure = |measured| Figure::new("speed", measured, "× peer").required(Required::AtLeast(1.5));
        assert_eq!(row(&figure(1.5)), ("| speed | ≥ 1.5 × peer | 1.50 × peer | met |".into(), true));
        assert_eq!(row(&figure(1.0)), ("| speed | ≥ 1.5 × peer | 1 × peer | MISSED |".into(), false));
        assert!(!row(&figure(f64::NAN)).1);
        assert_eq!(
            row(&Figure::new("lines", 12_360.0, "lines")),
            ("| lines |  | 12360 lines |  |".into(), true)
        );
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
