//! Tables and bars: what findings are shown as.

use std::fmt;

use serde::Serialize;

use crate::assertion::rounded;

/// Rows under named columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    /// The first column to the left, numbers to the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).chain(self.columns.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        writeln!(f, "{}", self.title)?;
        for row in std::iter::once(&self.columns).chain(&self.rows) {
            for (at, cell) in row.iter().enumerate() {
                let width = width(at);
                if at == 0 { write!(f, "  {cell:<width$}")? } else { write!(f, "  {cell:>width$}")? }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// One value for each of a few cases: a plot that fits a terminal as well as a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Bars {
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) bars: Vec<(String, f64)>,
}

impl Bars {
    /// The longest bar of a terminal, in characters.
    const WIDTH: f64 = 40.0;

    pub(super) fn new(title: &str, unit: &str, bars: impl IntoIterator<Item = (String, f64)>) -> Self {
        Self { title: title.to_owned(), unit: unit.to_owned(), bars: bars.into_iter().collect() }
    }

    /// A bar's length of the longest one's, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let most =
            self.bars.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).fold(0.0, f64::max);
        if most > 0.0 && value > 0.0 { (value / most).min(1.0) } else { 0.0 }
    }
}

impl fmt::Display for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.bars.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        writeln!(f, "{}, {}", self.title, self.unit)?;
        for (label, value) in &self.bars {
            let bar = "█".repeat((Self::WIDTH * self.share(*value)).round() as usize);
            writeln!(f, "  {label:<width$}  {bar} {}", brief(*value))?;
        }
        Ok(())
    }
}

/// Three digits: what a measurement of a minute is good for.
pub(super) fn brief(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return rounded(value);
    }
    let factor = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    rounded((value * factor).round() / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("Of one machine", &["streams", "ms"]);
        table.row(["1".into(), "12.5".into()]);
        assert_eq!(table.to_string(), "Of one machine\n  streams    ms\n  1        12.5\n");
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_say_them() {
        let bars = Bars::new("Throughput", "tokens/s", [("1".to_owned(), 10.0), ("16".to_owned(), 40.0)]);
        let expected =
            format!("Throughput, tokens/s\n  1   {} 10\n  16  {} 40\n", "█".repeat(10), "█".repeat(40));
        assert_eq!(bars.to_string(), expected);
        assert_eq!([bars.share(f64::NAN), bars.share(-1.0), Bars::new("", "", []).share(1.0)], [0.0; 3]);
    }

    #[test]
    fn three_digits_are_kept() {
        let written = [0.0, 19.6543, 0.83431, 12_681.0, 7.0].map(brief);
        assert_eq!(written, ["0", "19.7", "0.834", "12700", "7"]);
    }
}
