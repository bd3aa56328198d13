//! `tenk loadtest compare`

use std::path::PathBuf;
use std::process::ExitCode;

use super::{json, print};
use crate::compare::{Comparison, SavedReport, Verdict, read_all};
use crate::error::Error;
use crate::figures::{self, HEADLINES};

/// Say whether B is better than A.
#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// A and B, each a report or a folder of repeats
    #[arg(value_name = "A B", num_args = 2, required_unless_present = "a", conflicts_with_all = ["a", "b"])]
    both: Vec<PathBuf>,
    /// The reports of A
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "b")]
    a: Vec<PathBuf>,
    /// The reports of B
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "a")]
    b: Vec<PathBuf>,
    /// A figure to compare, such as ttft_p99_ms; may be given several times [default: the most telling ones]
    #[arg(long, value_name = "NAME", value_parser = parse_figure)]
    figure: Vec<String>,
    /// Compare every figure that there is
    #[arg(long, conflicts_with = "figure")]
    all: bool,
    /// Exit with 1 if a figure is worse
    #[arg(long)]
    fail_if_worse: bool,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

fn parse_figure(name: &str) -> Result<String, String> {
    figures::check(name).map(|()| name.to_owned())
}

impl CompareArgs {
    pub(super) fn comparison(&self) -> Result<Comparison, Error> {
        let (a, b) = match self.both.as_slice() {
            [a, b] => (vec![a.clone()], vec![b.clone()]),
            _ => (self.a.clone(), self.b.clone()),
        };
        let (a, b) = (read_all(&a)?, read_all(&b)?);
        let names = if self.all {
            figures::all()
        } else if self.figure.is_empty() {
            HEADLINES.map(str::to_owned).to_vec()
        } else {
            self.figure.clone()
        };
        let mut comparison = Comparison::of(&names, &a, &b);
        let other = b.iter().find(|report| a.first().is_some_and(|a| a.model() != report.model()));
        if let (Some(a), Some(b)) = (a.first().map(SavedReport::model), other.map(SavedReport::model)) {
            comparison.notes.push(format!("A ran model {a}, B model {b}"));
        }
        Ok(comparison)
    }
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let comparison = args.comparison()?;
    print(&if args.json { json(&comparison)? } else { comparison.to_string() })?;
    if comparison.rows.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let is_worse = comparison.rows.iter().any(|row| row.verdict == Verdict::Worse);
    Ok(if args.fail_if_worse && is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
