//! How much less likely the new version's answers are.
//!
//! Losses are clipped to a bounded range, and against "their mean is at most `m`" one bets that they are above: a loss
//! `x` multiplies the wealth by `1 + λ(x - m)`, for a few fixed stakes `λ`. Waudby-Smith and Ramdas, "Estimating means
//! of bounded random variables by betting", 2024. Clipping makes a few wild answers harmless; what is bounded is the
//! mean of the clipped losses.

use serde::{Deserialize, Serialize};

use super::wealth::{Ladder, Side};
use super::{Comparison, Levels, Metric, UNBOUNDED};

/// Losses beyond so many margins count as so many.
const CLIP: f64 = 4.0;
/// Means that are tried, in margins.
const MEANS: [f64; 9] = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0];
/// Where a mean passes below and fails above, as an index into [`MEANS`].
const DECISIVE: usize = 5;
/// Stakes, as shares of the largest one with which no clipped loss costs more than all.
const STAKES: [f64; 4] = [0.1, 0.25, 0.5, 0.95];

/// The comparison of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct QualityTest {
    ladder: Ladder,
    samples: u64,
    /// Of the losses as they came, in millionths of a nat.
    sum_micronats: i64,
}

impl QualityTest {
    pub(super) fn new() -> Self {
        Self { ladder: Ladder::new(MEANS.len(), STAKES.len()), samples: 0, sum_micronats: 0 }
    }

    /// Takes in a loss, in nats a token. One that is no number is not heard.
    pub(super) fn observe(&mut self, loss_nats: f64, margin_nats: f64) {
        if loss_nats.is_nan() {
            return;
        }
        let loss = (loss_nats / margin_nats).clamp(-CLIP, CLIP);
        self.samples += 1;
        self.sum_micronats = self.sum_micronats.saturating_add((loss * margin_nats * 1e6) as i64);
        let farthest = MEANS.iter().fold(0.0_f64, |farthest, mean| farthest.max(mean.abs())) + CLIP;
        for side in Side::ALL {
            let sign = if side == Side::Above { 1.0 } else { -1.0 };
            for (mean, wealth) in MEANS.iter().zip(self.ladder.side(side)) {
                let gain = sign * (loss - mean) / farthest;
                wealth.multiply(STAKES.iter().map(|stake| (stake * gain).ln_1p()));
            }
        }
    }

    pub(super) fn compare(&self, margin_nats: f64, levels: Levels) -> Comparison {
        let low = self.ladder.low(DECISIVE, levels.fail);
        let high = self.ladder.high(DECISIVE, levels.pass);
        let mean = self.sum_micronats as f64 / 1e6 / self.samples.max(1) as f64;
        Comparison {
            metric: Metric::Quality,
            stable: (self.samples > 0).then_some(0.0),
            canary: (self.samples > 0).then_some(mean),
            low: low.map_or(-UNBOUNDED, |rung| MEANS[rung] * margin_nats),
            high: high.map_or(UNBOUNDED, |rung| MEANS[rung] * margin_nats),
            tolerance: margin_nats,
            margin: margin_nats,
            stable_samples: self.samples,
            samples: self.samples,
            fails: low.is_some_and(|rung| rung >= DECISIVE),
            passes: high.is_some_and(|rung| rung <= DECISIVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: f64 = 0.5;

    /// A test that heard `count` losses around `mean`, evenly spread over 1.2 nats.
    fn heard(count: u32, mean: f64) -> Comparison {
        let mut test = QualityTest::new();
        (0..count).for_each(|index| test.observe(mean + f64::from(index % 7) * 0.2 - 0.6, MARGIN));
        test.compare(MARGIN, Levels { fail: 0.002, pass: 0.05 })
    }

    #[test]
    fn answers_that_are_as_likely_pass_after_some_dozens() {
        let few = heard(7, 0.0);
        assert!(!few.passes && !few.fails);
        let many = heard(84, 0.0);
        assert!(many.passes && !many.fails && many.high <= MARGIN, "{many:?}");
        assert!(many.canary.is_some_and(|mean| mean.abs() < 1e-5));
    }

    #[test]
    fn answers_that_are_much_less_likely_fail_and_those_at_the_margin_do_neither() {
        assert!(heard(84, 1.2).fails);
        let between = heard(2_100, MARGIN);
        assert!(!between.fails && !between.passes, "{between:?}");
    }

    #[test]
    fn one_wild_answer_decides_nothing() {
        let mut test = QualityTest::new();
        [f64::NAN, f64::INFINITY, 1e300].into_iter().for_each(|loss| test.observe(loss, MARGIN));
        let comparison = test.compare(MARGIN, Levels { fail: 0.002, pass: 0.05 });
        assert_eq!((comparison.samples, comparison.fails), (2, false));
        assert_eq!(comparison.canary, Some(2.0));
    }
}
