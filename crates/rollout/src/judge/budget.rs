//! How often the judge may be wrong, and about what.

use crate::JudgeSpec;

use super::Metric;
use evidence::Rate;

/// With which probabilities the two tests of a metric may be wrong, over all looks at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    /// That a version which is within the tolerance fails by this metric.
    pub(super) fail: f64,
    /// That a version which is beyond the margin passes by this metric.
    pub(super) pass: f64,
}

/// The share of errors: they are rare, cannot be made up for, and each one counts.
const ERRORS_SHARE: f64 = 0.5;

/// Splits what a step was given.
///
/// A version fails by any one metric, so the metrics' levels add up to the step's: half for errors, the rest in equal
/// parts. A version passes by all metrics together, so that one which is beyond its margin in one of them passes
/// no more often than that metric alone errs: each one has the rollout's whole `false_alarm` for it, without a
/// correction (the intersection-union test: Berger, "Multiparameter hypothesis testing and acceptance sampling",
/// 1982). The same holds for steps, all of which must be passed.
pub(super) fn levels(spec: &JudgeSpec, step: f64, metric: Metric) -> Levels {
    // Three latencies, refusals, truncated and empty answers, and quality where it is compared.
    let others = if spec.quality.is_some() { 7.0 } else { 6.0 };
    let share =
        if metric == Metric::Rate(Rate::Error) { ERRORS_SHARE } else { (1.0 - ERRORS_SHARE) / others };
    Levels { fail: step * share, pass: spec.false_alarm }
}

#[cfg(test)]
mod tests {
    use evidence::Latency;

    use super::*;
    use crate::QualitySpec;

    #[test]
    fn a_step_gives_out_all_that_it_was_given_and_no_more() {
        for quality in [None, Some(QualitySpec::default())] {
            let spec = JudgeSpec { quality, ..JudgeSpec::default() };
            let metrics = Rate::ALL.map(Metric::Rate).into_iter().chain(Latency::ALL.map(Metric::Latency));
            let metrics = metrics.chain(spec.quality.is_some().then_some(Metric::Quality));
            let sum: f64 = metrics.map(|metric| levels(&spec, 0.025, metric).fail).sum();
            assert!((sum - 0.025).abs() < 1e-12, "{sum}");
        }
    }
}
