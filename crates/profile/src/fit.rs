//! Efficiencies from published throughput.

use crate::search::minimize;
use crate::{Figure, Fitted, Profile, SteadyLoad, Workload};

/// Where the efficiencies are looked for.
const EFFICIENCY: (f64, f64) = (0.05, 0.95);
/// Where the overhead is looked for, microseconds: what launching a step's kernels and preparing its inputs takes.
const OVERHEAD_US: (f64, f64) = (200.0, 4000.0);
/// Full batches hardly show the overhead. Of fits that are as good, the one nearest to this is taken, microseconds.
const OVERHEAD_EXPECTED_US: f64 = 1000.0;
/// How little that weighs: an overhead off by a factor of e costs as much as a figure that is off by 2%.
const EXPECTATION_WEIGHT: f64 = 4e-4;

/// The profile with its efficiencies and its overhead fitted to its figures, and each figure's residual written down.
/// Least squares of ln(simulated / published) over the figures that are marked `fitted`.
pub fn fit(profile: &Profile) -> Profile {
    let loads = loads(profile);
    let with = |fitted: Fitted| Profile { fitted, ..profile.clone() };
    let mut priced = with(profile.fitted);
    let cost = |point: &[f64; 3]| {
        let trial = with(fitted_of(point));
        let figures = profile.figures.iter().zip(&loads).filter(|(figure, _)| figure.fitted);
        let squares = figures.map(|(figure, load)| residual(&trial, figure, load.as_ref()).ln_1p().powi(2));
        let surprise = (trial.fitted.overhead_us / OVERHEAD_EXPECTED_US).ln();
        squares.sum::<f64>() + EXPECTATION_WEIGHT * surprise.powi(2)
    };
    let [compute, memory, overhead] = minimize([log(EFFICIENCY), log(EFFICIENCY), log(OVERHEAD_US)], cost);
    priced.fitted = rounded(fitted_of(&[compute, memory, overhead]));
    let residuals: Vec<f64> = priced
        .figures
        .iter()
        .zip(&loads)
        .map(|(figure, load)| round(residual(&priced, figure, load.as_ref()), 1e4))
        .collect();
    for (figure, residual) in priced.figures.iter_mut().zip(residuals) {
        figure.residual = residual;
    }
    priced
}

/// What the profile gives for each of its figures: simulated over published, less one.
pub fn residuals(profile: &Profile) -> Vec<f64> {
    let loads = loads(profile);
    profile
        .figures
        .iter()
        .zip(&loads)
        .map(|(figure, load)| residual(profile, figure, load.as_ref()))
        .collect()
}

fn loads(profile: &Profile) -> Vec<Option<SteadyLoad>> {
    let workload = |figure: &Figure| Workload {
        prompt_tokens: figure.prompt_tokens,
        answer_tokens: figure.answer_tokens,
    };
    profile.figures.iter().map(|figure| SteadyLoad::run(&profile.limits, workload(figure))).collect()
}

/// A request that does not even fit gives no tokens.
fn residual(profile: &Profile, figure: &Figure, load: Option<&SteadyLoad>) -> f64 {
    load.map_or(0.0, |load| load.output_tokens_per_s(profile)) / figure.output_tokens_per_s - 1.0
}

fn log((low, high): (f64, f64)) -> (f64, f64) {
    (low.ln(), high.ln())
}

fn fitted_of([compute, memory, overhead]: &[f64; 3]) -> Fitted {
    Fitted {
        compute_efficiency: compute.exp(),
        memory_efficiency: memory.exp(),
        overhead_us: overhead.exp(),
        ..Fitted::IDEAL
    }
}

/// As many digits as a person reads; the residuals are those of the rounded numbers.
fn rounded(fitted: Fitted) -> Fitted {
    Fitted {
        compute_efficiency: round(fitted.compute_efficiency, 1e4),
        memory_efficiency: round(fitted.memory_efficiency, 1e4),
        overhead_us: round(fitted.overhead_us, 1.0),
        ..fitted
    }
}

pub(crate) fn round(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
