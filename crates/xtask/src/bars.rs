//! `cargo xtask bars`: what a release must reach, measured and laid beside what is required.
//!
//! A bar is a ratio taken side by side in one run, or a count; never an absolute time, which drifts from machine to
//! machine. A bar that cannot be measured here fails with the reason; no number is ever filled in by hand.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::{tidy, workspace};

/// `cargo xtask bars`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only the bars whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Print names and requirements, measure nothing.
    #[arg(long)]
    list: bool,
}

/// One thing that must hold.
struct Bar {
    name: &'static str,
    required: Required,
    unit: &'static str,
    measure: fn() -> Result<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Required {
    #[cfg_attr(not(test), expect(dead_code, reason = "no ratio is measured yet"))]
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

/// All bars, in the table's order. A new one is a row here and the function that measures it.
const BARS: &[Bar] = &[Bar {
    name: "serving path, without tests",
    required: Required::AtMost(tidy::SERVING_LINES_MAX as f64),
    unit: "lines",
    measure: || Ok(tidy::serving_lines(&workspace::text_files(&workspace::root())?) as f64),
}];

/// Measures and prints; fails when a bar is missed or could not be measured.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |bar: &&Bar| args.only.as_ref().is_none_or(|part| bar.name.contains(part.as_str()));
    let bars: Vec<&Bar> = BARS.iter().filter(wanted).collect();
    ensure!(!bars.is_empty(), "no bar has that in its name; `cargo xtask bars --list` shows them");
    println!("| bar | required | measured | |\n|---|---|---|---|");
    let mut missed = 0;
    for bar in bars {
        let measured = if args.list { None } else { Some((bar.measure)()) };
        let (row, met) = row(bar, measured);
        missed += usize::from(!met);
        println!("{row}");
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(bar: &Bar, measured: Option<Result<f64>>) -> (String, bool) {
    let (shown, verdict, met) = match measured {
        None => (String::new(), "not measured", true),
        Some(Ok(value)) if bar.required.is_met_by(value) => (format!("{value:.4}"), "met", true),
        Some(Ok(value)) => (format!("{value:.4}"), "MISSED", false),
        Some(Err(error)) => (format!("{error:#}"), "FAILED", false),
    };
    let shown = match shown.split_once('.') {
        Some((whole, decimals)) if decimals.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        _ => shown,
    };
    (format!("| {} | {} {} | {shown} | {verdict} |", bar.name, bar.required, bar.unit), met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_met_or_missed_and_a_measurement_that_failed_is_not_met() {
        let bar =
            Bar { name: "speed", required: Required::AtLeast(1.5), unit: "× peer", measure: || Ok(0.0) };
        assert_eq!(row(&bar, Some(Ok(1.5))), ("| speed | ≥ 1.5 × peer | 1.5000 | met |".into(), true));
        assert_eq!(row(&bar, Some(Ok(1.0))), ("| speed | ≥ 1.5 × peer | 1 | MISSED |".into(), false));
        assert!(!row(&bar, Some(Ok(f64::NAN))).1);
        let failed = row(&bar, Some(Err(anyhow::anyhow!("the peer is not installed"))));
        assert_eq!(failed, ("| speed | ≥ 1.5 × peer | the peer is not installed | FAILED |".into(), false));
    }
}
