//! What was found, as it is written down.

use engine::profile::Profile;
use serde::Serialize;

use crate::{Options, Peaks, Point, median};

/// All of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The form of this document; it grows when a field changes its meaning.
    pub schema: u32,
    /// Threads that computed, on every side.
    pub threads: usize,
    /// What was computed.
    pub model: Model,
    /// What the machine can do; absent where only servers were measured.
    pub peaks: Option<Peaks>,
    /// Prefill and decode in this process.
    pub engine: Vec<Point>,
    /// What was measured over HTTP.
    pub figures: Vec<Figure>,
    /// The profile that was fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The log that it was fitted to, as `tenk profile fit` reads it.
    #[serde(skip)]
    pub step_log: Option<String>,
}

/// The model in question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// What it is called.
    pub name: String,
    /// Weights that a token is multiplied with; absent where only servers were measured.
    pub parameters: Option<u64>,
    /// Memory that they take, bytes.
    pub weight_bytes: Option<u64>,
}

/// One measured thing, ours and beside it the other's: the peer's, or in `prefix` ours again when it is cold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What to look it up by: `decode_8`.
    pub id: &'static str,
    /// For people.
    pub name: &'static str,
    /// Of the values.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// The middle of all runs.
    pub ours: f64,
    /// The same of the other side; absent where nothing was laid beside it.
    pub other: Option<f64>,
    /// Ours to the other's.
    pub ratio: Option<Ratio>,
    /// Runs of each side.
    pub runs: usize,
}

/// Ours to the other's, pair by pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Ratio {
    /// Of pairs that were measured next to each other, so that a machine that drifts does so under both.
    pub(crate) fn of(ours: &[f64], other: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(other).map(|(ours, other)| ours / other).collect();
        (!ratios.is_empty()).then(|| Self {
            median: median(&ratios),
            min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            max: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl Report {
    pub(crate) fn new(options: &Options, peaks: Option<Peaks>) -> Self {
        Self {
            schema: 1,
            threads: options.threads,
            model: Model { name: options.model_name.clone(), parameters: None, weight_bytes: None },
            peaks,
            engine: Vec::new(),
            figures: Vec::new(),
            profile: None,
            step_log: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_neighbours_and_not_of_the_middles() {
        let ratio = Ratio::of(&[10.0, 20.0, 30.0], &[5.0, 20.0, 10.0]).expect("pairs");
        assert_eq!(ratio, Ratio { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Ratio::of(&[1.0], &[]), None);
    }
}
