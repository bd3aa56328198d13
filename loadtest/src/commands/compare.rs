//! `tenk loadtest compare`

use std::path::PathBuf;
use std::process::ExitCode;

use super::pages::save_page;
use super::{json, print, save};
use crate::compare::{Comparison, SavedReport, Verdict, read_all};
use crate::error::Error;
use crate::figures::{self, HEADLINES};
use crate::report::html;

/// The file of a comparison within its folder.
const FILE: &str = "compare.json";

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
    /// Write the comparison into this folder: a page with plots, and JSON
    #[arg(long, value_name = "DIR")]
    report_dir: Option<PathBuf>,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

fn parse_figure(name: &str) -> Result<String, String> {
    figures::check(name).map(|()| name.to_owned())
}

/// A comparison and what it is of.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) comparison: Comparison,
    a: Vec<SavedReport>,
    b: Vec<SavedReport>,
}

impl CompareArgs {
    pub(super) fn compare(&self) -> Result<Compared, Error> {
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
        comparison.notes.extend(asked_otherwise(&a, &b));
        Ok(Compared { comparison, a, b })
    }
}

/// In what the two sides are no repeats of one another, beside what is compared. The server's address may be what is.
fn asked_otherwise(a: &[SavedReport], b: &[SavedReport]) -> Vec<String> {
    const SHOWN_MAX: usize = 3;
    const MAY_DIFFER: [&str; 6] = ["seed", "target", "model", "question", "scrape", "usd_per_hour"];
    let (Some(first), Some(_)) = (a.first(), b.first()) else { return Vec::new() };
    let mut notes = Vec::new();
    if let Some(other) = b.iter().find(|report| report.report().model != first.report().model) {
        notes.push(format!("A ran model {}, B model {}", first.report().model, other.report().model));
    }
    let of = |other: &SavedReport| {
        let all = first.report().scenario.differences(&other.report().scenario);
        all.into_iter().filter(|found| !MAY_DIFFER.contains(&found.setting.as_str())).collect::<Vec<_>>()
    };
    if a.iter().any(|other| !of(other).is_empty()) {
        notes.push("A's own runs were asked different things: they are no repeats of one run".to_owned());
    }
    let differences = b.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default();
    if !differences.is_empty() {
        let shown: Vec<String> = differences.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
        let more = match differences.len().saturating_sub(SHOWN_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        notes.push(format!("A and B were asked different things: {}{more}", shown.join(", ")));
    }
    notes
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let Compared { comparison, a, b } = args.compare()?;
    if let Some(dir) = &args.report_dir {
        save(dir, FILE, &comparison)?;
        let reports =
            |saved: &[SavedReport]| saved.iter().map(|saved| saved.report().clone()).collect::<Vec<_>>();
        save_page(dir, &html::comparison(&comparison, &reports(&a), &reports(&b)))?;
    }
    print(&if args.json { json(&comparison)? } else { comparison.to_string() })?;
    if comparison.rows.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let is_worse = comparison.rows.iter().any(|row| row.verdict == Verdict::Worse);
    Ok(if args.fail_if_worse && is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
