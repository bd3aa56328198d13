//! Lengths in tokens, drawn as a pure function of a seed and an index.

use std::f64::consts::TAU;

use crate::random::{GOLDEN_GAMMA, below, draw, mix, unit};
use crate::scenario::Length;

impl Length {
    /// The length of thing `index`.
    pub fn sample(&self, seed: u64, index: u64) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform { min, max } => {
                let span = u64::from(max.saturating_sub(min)) + 1;
                min + u32::try_from(below(draw(seed, index), span)).unwrap_or(0)
            }
            Self::LogNormal { median, sigma, max } => {
                let tokens = median * (sigma * normal(draw(seed, index))).exp();
                // A float becomes the nearest whole number that there is.
                (tokens.round() as u32).clamp(1, max.max(1))
            }
        }
    }

    /// Half are no longer.
    pub fn median(&self) -> f64 {
        match *self {
            Self::Fixed(tokens) => f64::from(tokens),
            Self::Uniform { min, max } => f64::midpoint(f64::from(min), f64::from(max)),
            Self::LogNormal { median, max, .. } => median.min(f64::from(max)),
        }
    }

    /// The least that can come.
    pub const fn least(&self) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform { min, .. } => min,
            Self::LogNormal { .. } => 1,
        }
    }

    /// The most that can come.
    pub const fn most(&self) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform { max, .. } | Self::LogNormal { max, .. } => max,
        }
    }
}

/// A number of the standard normal distribution from 64 random bits, by Box and Muller's transform.
fn normal(bits: u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(bits)).ln()).sqrt();
    radius * (TAU * unit(mix(bits.wrapping_add(GOLDEN_GAMMA)))).cos()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLES: u64 = 20_000;

    fn samples(length: Length, seed: u64) -> Vec<f64> {
        (0..SAMPLES).map(|index| f64::from(length.sample(seed, index))).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn a_normal_number_has_mean_0_and_variance_1_and_the_tails_it_should() {
        let values: Vec<f64> = (0..100_000).map(|index| normal(draw(7, index))).collect();
        assert!(mean(&values).abs() < 0.015, "{}", mean(&values));
        let squares: Vec<f64> = values.iter().map(|value| value * value).collect();
        assert!((mean(&squares) - 1.0).abs() < 0.02, "{}", mean(&squares));
        let beyond_two = values.iter().filter(|value| value.abs() > 2.0).count() as f64 / 100_000.0;
        assert!((beyond_two - 0.0455).abs() < 0.003, "{beyond_two}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn uniform_lengths_keep_their_bounds_and_their_mean(seed: u64, min in 1_u32..2_000, span in 0_u32..5_000) {
            let length = Length::Uniform { min, max: min + span };
            let values = samples(length, seed);
            let bounds = f64::from(min)..=f64::from(min + span);
            prop_assert!(values.iter().all(|value| bounds.contains(value)));
            // Five standard errors of the mean.
            let error = 5.0 * f64::from(span + 1) / (12.0 * SAMPLES as f64).sqrt();
            prop_assert!((mean(&values) - length.median()).abs() <= error, "{} beside {}", mean(&values), length.median());
        }

        #[test]
        fn log_normal_lengths_keep_their_bounds_their_median_and_their_spread(
            seed: u64, median in 50_f64..2_000.0, sigma in 0.05_f64..1.5,
        ) {
            let length = Length::LogNormal { median, sigma, max: 4_000_000 };
            let mut values = samples(length, seed);
            prop_assert!(values.iter().all(|value| (1.0..=4e6).contains(value)));
            values.sort_unstable_by(f64::total_cmp);
            // The median's standard error is sigma · sqrt(pi / 2n) of the logarithm; rounding adds half a token.
            let error = 5.0 * sigma * (std::f64::consts::FRAC_PI_2 / SAMPLES as f64).sqrt() + 0.5 / median;
            let found = values[values.len() / 2];
            prop_assert!((found / median).ln().abs() <= error, "{found} beside {median}");
            // One in 6.303 is beyond one standard deviation.
            let beyond = values.iter().filter(|value| **value > median * sigma.exp()).count() as f64;
            prop_assert!((beyond / SAMPLES as f64 - 0.1587).abs() < 0.02);
        }

        #[test]
        fn a_log_normal_length_is_cut_to_its_most(seed: u64, max in 1_u32..300) {
            let length = Length::LogNormal { median: f64::from(max), sigma: 1.0, max };
            let values = samples(length, seed);
            let at_most = values.iter().filter(|value| **value == f64::from(max)).count() as f64;
            prop_assert!((at_most / SAMPLES as f64) > 0.45, "half are cut");
            prop_assert!(values.iter().all(|value| *value <= f64::from(max)));
        }

        #[test]
        fn a_length_depends_on_seed_and_index_alone(seed: u64, index: u64) {
            let length = Length::LogNormal { median: 1_020.0, sigma: 1.0, max: 16_000 };
            prop_assert_eq!(length.sample(seed, index), length.sample(seed, index));
            prop_assert_eq!(Length::Fixed(9).sample(seed, index), 9);
        }
    }

    #[test]
    fn each_length_between_the_bounds_comes_as_often_as_the_other() {
        let length = Length::Uniform { min: 3, max: 6 };
        let mut counts = [0_u32; 4];
        for index in 0..40_000 {
            counts[(length.sample(1, index) - 3) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
