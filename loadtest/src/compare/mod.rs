//! Whether one system is better than another: repeats of each, a difference with its interval, a plain verdict.

use std::fmt;

use serde::Serialize;

use crate::assertion::rounded;
use crate::figures::{Better, Figures, better};

mod saved;
mod stats;

pub use saved::{SavedReport, find, read_all};
pub use stats::{CONFIDENCE, Difference, Sample, t_quantile};

/// What can be said of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is better than A beyond the noise of the repeats.
    Better,
    /// B is worse than A beyond the noise of the repeats.
    Worse,
    /// The interval holds zero. That shows no equality: the interval says how large a difference may still be.
    NoDifferenceShown,
    /// A side has a single run, so that noise cannot be told from difference.
    CannotJudge,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifferenceShown => "no difference shown",
            Self::CannotJudge => "can't judge from one run a side",
        })
    }
}

/// One figure of A and of B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub figure: String,
    /// A's repeats.
    pub a: Sample,
    /// B's repeats.
    pub b: Sample,
    /// B's mean over A's, less one, in percent; null where A's mean is 0.
    pub difference_percent: Option<f64>,
    /// The same for the ends of the interval of the difference, A's mean taken for exact; null for single runs.
    pub interval_percent: Option<[f64; 2]>,
    /// What can be said.
    pub verdict: Verdict,
}

impl Row {
    /// Compares one figure's repeats; none where a side has no value.
    pub fn of(figure: &str, a: &[f64], b: &[f64]) -> Option<Self> {
        let (a, b) = (Sample::of(a)?, Sample::of(b)?);
        let difference = Difference::welch(&a, &b);
        // Rates and latencies are never negative.
        let percent = |value: f64| (a.mean > 0.0).then(|| 100.0 * value / a.mean);
        let interval = difference.and_then(|difference| {
            let (low, high) =
                (difference.mean - difference.half_width, difference.mean + difference.half_width);
            Some([percent(low)?, percent(high)?])
        });
        let verdict = match difference {
            None => Verdict::CannotJudge,
            Some(difference) if !difference.is_shown() => Verdict::NoDifferenceShown,
            Some(difference) => match (better(figure), difference.mean < 0.0) {
                (Better::Lower, true) | (Better::Higher, false) => Verdict::Better,
                (Better::Lower, false) | (Better::Higher, true) => Verdict::Worse,
            },
        };
        Some(Self {
            figure: figure.to_owned(),
            a,
            b,
            difference_percent: percent(b.mean - a.mean),
            interval_percent: interval,
            verdict,
        })
    }
}

/// Two systems side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The figures that both have.
    pub rows: Vec<Row>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The sides whose runs all do not count.
    #[serde(skip)]
    uncounted: Vec<&'static str>,
}

impl Comparison {
    /// Compares the runs of A with those of B. Runs that do not count are left out, and said to be.
    pub fn of<F: Figures>(figures: &[String], a: &[F], b: &[F]) -> Self {
        let mut notes = Vec::new();
        let mut counting = |side: &str, runs: &[F]| -> Vec<usize> {
            let counts = |run: &F| run.valid() && !run.interrupted();
            let kept: Vec<usize> = (0..runs.len()).filter(|&at| counts(&runs[at])).collect();
            if kept.len() < runs.len() {
                let out = runs.len() - kept.len();
                notes.push(format!(
                    "{out} of {side}'s {} runs are invalid or interrupted and left out",
                    runs.len()
                ));
            }
            kept
        };
        let (kept_a, kept_b) = (counting("A", a), counting("B", b));
        let values = |runs: &[F], kept: &[usize], figure: &str| -> Vec<f64> {
            kept.iter().filter_map(|&at| runs[at].figure(figure)).collect()
        };
        let sides = [("A", a, &kept_a), ("B", b, &kept_b)];
        let without = |(_, runs, kept): &(_, &[F], &Vec<usize>)| kept.is_empty() && !runs.is_empty();
        let uncounted = sides.into_iter().filter(without).map(|(side, ..)| side).collect();
        let rows: Vec<Row> = figures
            .iter()
            .filter_map(|figure| Row::of(figure, &values(a, &kept_a, figure), &values(b, &kept_b, figure)))
            .collect();
        if rows.iter().any(|row| row.verdict == Verdict::CannotJudge) {
            notes.push(
                "a single run shows no noise; run each side three times or more, and give all of them".into(),
            );
        } else if rows.len() > 1 {
            notes.push(format!(
                "of {} figures that are truly alike, {:.1} would be called different by chance alone",
                rows.len(),
                rows.len() as f64 * (1.0 - CONFIDENCE)
            ));
        }
        Self { rows, notes, uncounted }
    }

    /// All verdicts in one sentence.
    pub fn verdict(&self) -> String {
        let named = |verdict: Verdict| -> Vec<&str> {
            self.rows.iter().filter(|row| row.verdict == verdict).map(|row| row.figure.as_str()).collect()
        };
        let (better, worse) = (named(Verdict::Better), named(Verdict::Worse));
        match (better.as_slice(), worse.as_slice()) {
            _ if !self.uncounted.is_empty() => {
                format!(
                    "nothing to compare: all runs of {} are invalid or interrupted",
                    self.uncounted.join(" and of ")
                )
            }
            _ if self.rows.is_empty() => "the two have no figure in common".to_owned(),
            ([], []) if !named(Verdict::CannotJudge).is_empty() => {
                "can't judge from one run a side".to_owned()
            }
            ([], []) => "no difference shown".to_owned(),
            (better, []) => format!("B is better in {}", better.join(", ")),
            ([], worse) => format!("B is worse in {}", worse.join(", ")),
            (better, worse) => {
                format!("B is better in {}, and worse in {}", better.join(", "), worse.join(", "))
            }
        }
    }
}

impl fmt::Display for Comparison {
    /// A table, and the verdict below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            writeln!(f, "{}", self.verdict())?;
            return self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"));
        }
        writeln!(
            f,
            "{:<26}{:>12}{:>12}{:>9}  {:<20}verdict on B",
            "figure",
            "A (mean)",
            "B (mean)",
            "B vs A",
            format!("{:.0}% interval", 100.0 * CONFIDENCE)
        )?;
        for row in &self.rows {
            let difference = row.difference_percent.map_or("-".into(), |percent| format!("{percent:+.1}%"));
            let interval =
                row.interval_percent.map_or("-".into(), |[low, high]| format!("{low:+.1} to {high:+.1}%"));
            writeln!(
                f,
                "{:<26}{:>12}{:>12}{difference:>9}  {interval:<20}{}",
                row.figure,
                rounded(row.a.mean),
                rounded(row.b.mean),
                row.verdict
            )?;
        }
        writeln!(f, "\n{}", self.verdict())?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

#[cfg(test)]
mod tests;
