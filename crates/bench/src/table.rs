//! The report as a person reads it.

use std::fmt;

use crate::report::{Figure, Report};
use crate::roofline::Bound;
use crate::{Peaks, Point};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads =
            if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        writeln!(f, "{} on {threads}", self.model.name)?;
        if let Some(peaks) = &self.peaks {
            write!(f, "\n{}", rows(&[], &peak_rows(peaks)))?;
        }
        if !self.engine.is_empty() {
            let columns =
                ["in process", "streams", "tokens/s", "step ms", "multiply-adds", "bytes", "bound", "share"];
            let points: Vec<Vec<String>> = self.engine.iter().map(point_row).collect();
            write!(f, "\n{}", rows(&columns, &points))?;
        }
        if !self.figures.is_empty() {
            let columns = ["over HTTP", "ours", "other", "unit", "ratio", "least", "most"];
            let figures: Vec<Vec<String>> = self.figures.iter().map(figure_row).collect();
            write!(f, "\n{}", rows(&columns, &figures))?;
        }
        if let Some(steps) = self.profile.as_ref().and_then(|profile| profile.steps) {
            writeln!(
                f,
                "\nprofile fitted to {} steps: their sum {:+.1}% of what was measured, one step {:.1}% off (root mean \
                 square)",
                steps.count,
                steps.total_residual * 100.0,
                steps.rms_residual * 100.0
            )?;
        }
        Ok(())
    }
}

fn peak_rows(peaks: &Peaks) -> Vec<Vec<String>> {
    let row = |what: &str, value: f64, unit: &str| vec![what.to_owned(), giga(value), unit.to_owned()];
    let unit = "G/s";
    vec![
        row(
            &format!("peak, {}, products of bytes, 1 thread", peaks.instructions),
            peaks.byte_products_per_s_one_thread,
            unit,
        ),
        row("peak, products of bytes, all threads", peaks.byte_products_per_s, unit),
        row(
            "peak, multiply-adds of two-byte activations: two products each",
            peaks.multiply_adds_per_s,
            unit,
        ),
        row("peak, multiply-adds of floats, for attention", peaks.float_multiply_adds_per_s, unit),
        row("peak, reading 256 MiB of memory", peaks.bytes_per_s, "GB/s"),
    ]
}

fn point_row(point: &Point) -> Vec<String> {
    let bound = match point.bound {
        Bound::Arithmetic => "arithmetic",
        Bound::Memory => "memory",
    };
    vec![
        point.phase.to_owned(),
        point.streams.to_string(),
        shown(point.tokens_per_s),
        shown(point.step_ms),
        format!("{} G/s {}", giga(point.multiply_adds_per_s), percent(point.share_of_multiply_adds)),
        format!("{} GB/s {}", giga(point.bytes_per_s), percent(point.share_of_bytes)),
        bound.to_owned(),
        percent(point.share_of_bound),
    ]
}

fn figure_row(figure: &Figure) -> Vec<String> {
    let ratio =
        figure.ratio.map_or_else(Default::default, |ratio| [ratio.median, ratio.min, ratio.max].map(shown));
    let [median, min, max] = ratio;
    let other = figure.other.map_or_else(String::new, shown);
    vec![figure.name.to_owned(), shown(figure.ours), other, figure.unit.to_owned(), median, min, max]
}

/// The first column to the left, the others to the right.
fn rows(columns: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).filter(|row| !row.is_empty()).collect();
    let width = |at: usize| all.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in &all {
        for (at, cell) in row.iter().enumerate() {
            let width = width(at).unwrap_or(0);
            text += &if at == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn giga(value: f64) -> String {
    shown(value / 1e9)
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Three digits: what a measurement is good for.
fn shown(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Model, Ratio};
    use crate::roofline::Work;
    use crate::roofline::tests::PEAKS;

    #[test]
    fn a_report_is_read_as_three_tables() {
        let work = Work { of_weights: 4e9, of_attention: 0.5e9, bytes: 2e9 };
        let ratio = Some(Ratio { median: 2.0, min: 1.5, max: 2.5 });
        let report = Report {
            schema: 1,
            threads: 2,
            model: Model { name: "tiny".into(), parameters: None, weight_bytes: None },
            peaks: Some(PEAKS),
            engine: vec![Point::new(("decode", 8), (100.0, 80.0), 1000, &work, &PEAKS)],
            figures: vec![Figure {
                id: "decode_8",
                name: "decode, 8 streams",
                unit: "tokens/s",
                more_is_better: true,
                ours: 1234.5,
                other: Some(617.0),
                ratio,
                runs: 3,
            }],
            profile: None,
            step_log: None,
        };
        let expected = "\
tiny on 2 threads

peak, portable, products of bytes, 1 thread                      1.00   G/s
peak, products of bytes, all threads                             2.00   G/s
peak, multiply-adds of two-byte activations: two products each   1.00   G/s
peak, multiply-adds of floats, for attention                    0.500   G/s
peak, reading 256 MiB of memory                                  1.00  GB/s

in process  streams  tokens/s  step ms  multiply-adds           bytes       bound  share
decode            8       100     80.0  0.450 G/s 50%  0.200 GB/s 20%  arithmetic    50%

over HTTP          ours  other      unit  ratio  least  most
decode, 8 streams  1234    617  tokens/s   2.00   1.50  2.50
";
        assert_eq!(report.to_string(), expected);
    }
}
