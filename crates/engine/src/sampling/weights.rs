//! Probabilities as integers, relative to the likeliest token's.
//!
//! Sums of integers don't depend on their order, so a total is the same over the vocabulary in blocks, over a selected
//! few or over a sorted list, and every way to truncate gives bit for bit what a full sort would.

use super::SamplingParams;

/// The weight of the likeliest token. A token 30 nats below it, a ten-trillionth as likely, weighs one or two.
pub(super) const ONE: u64 = 1 << 44;

/// So far below the likeliest a token's weight rounds to nothing: e^-32 · 2^44 is less than a quarter.
const WEIGHTLESS_NATS: f32 = -32.0;

/// With more tokens a total could overflow; no model is loaded that has more.
pub(crate) const VOCAB_SIZE_MAX: usize = 1 << 19;

/// Tokens in a block of [`Weights::blocks`].
pub(super) const BLOCK: usize = 256;

/// Turns logits into weights: temperature and min_p.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    max: f32,
    inverse_temperature: f32,
    /// A token less likely than this, relative to the likeliest, weighs nothing.
    least: f32,
}

impl Weights {
    /// `max` is the greatest logit, and finite; the temperature is not greedy.
    pub(super) fn new(max: f32, params: &SamplingParams) -> Self {
        assert!(
            max.is_finite() && params.temperature > 0.0,
            "greedy and failing cases were dealt with before"
        );
        Self { max, inverse_temperature: 1.0 / params.temperature, least: params.min_p.clamp(0.0, 1.0) }
    }

    /// How many nats a token lies below the likeliest, at this temperature; 0 or negative.
    #[inline]
    pub(super) fn nats(&self, logit: f32) -> f32 {
        (logit - self.max) * self.inverse_temperature
    }

    /// [`ONE`] times the token's probability over that of the likeliest; 0 below min_p.
    #[inline]
    pub(super) fn of(&self, logit: f32) -> u64 {
        fixed(self.relative(logit))
    }

    /// Replaces `sums` with the weight of each [`BLOCK`] of the vocabulary, and returns that of all.
    pub(super) fn blocks(&self, logits: &[f32], sums: &mut Vec<u64>) -> u64 {
        assert!(
            logits.len() <= VOCAB_SIZE_MAX,
            "a vocabulary of {} tokens overflows the weights",
            logits.len()
        );
        sums.clear();
        // In two steps, since vectors hold twice as many floats as integers of a weight's size.
        let mut relative = [0.0; BLOCK];
        for block in logits.chunks(BLOCK) {
            for (relative, logit) in relative.iter_mut().zip(block) {
                *relative = self.relative(*logit);
            }
            sums.push(relative[..block.len()].iter().map(|relative| fixed(*relative)).sum());
        }
        sums.iter().sum()
    }

    /// Whether all but one weigh nothing, so that there is nothing to draw. Much quicker than the weights themselves.
    pub(super) fn only_one(&self, logits: &[f32]) -> bool {
        let mut near = 0;
        for block in logits.chunks(BLOCK) {
            near += block.iter().filter(|logit| self.nats(**logit) > WEIGHTLESS_NATS).count();
            if near > 1 {
                return false;
            }
        }
        true
    }

    #[inline]
    fn relative(&self, logit: f32) -> f32 {
        let relative = exp(self.nats(logit));
        if relative < self.least { 0.0 } else { relative }
    }
}

/// Rounds a number of [0, 1] to a multiple of 1 / [`ONE`].
#[inline]
fn fixed(weight: f32) -> u64 {
    // Beside 2^52 a double has no room for a fraction, so its last bits are the rounded integer. Unlike a cast, this
    // compiles to vector instructions everywhere.
    const INTEGERS: f64 = (1_u64 << 52) as f64;
    (f64::from(weight) * ONE as f64 + INTEGERS).to_bits() - INTEGERS.to_bits()
}

/// e^x for x ≤ 0, to 2e-7 relative; exactly 1 at 0. Below -87, and for NaN, it is e^-87, which vanishes in every sum here.
///
/// The platform's own differs in the last bit from one library to the next, and is no vector code.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // ln 2 in two parts: a whole number below 128 times the first is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    // Beside 1.5 × 2^23 a float has no room for a fraction: adding it rounds.
    const INTEGERS: f32 = 12_582_912.0;

    let within = if x > LOWEST { x } else { LOWEST };
    let shifted = within * std::f32::consts::LOG2_E + INTEGERS;
    let power = shifted - INTEGERS;
    let rest = (within - power * LN_2_HIGH) - power * LN_2_LOW;
    // Taylor's series; |rest| ≤ ln 2 / 2, where the first term left out is below 6e-9.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(INTEGERS.to_bits()).wrapping_add(127);
    sum * f32::from_bits(exponent << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_exponential_is_within_two_ten_millionths(x in -87.0_f32..0.0) {
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            prop_assert!((ours / exact - 1.0).abs() < 2e-7, "{} {}", ours, exact);
        }

        #[test]
        fn fixed_point_is_within_half_a_unit(weight in 0.0_f32..=1.0) {
            let exact = f64::from(weight) * ONE as f64;
            prop_assert!((fixed(weight) as f64 - exact).abs() <= 0.5);
        }
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!((exp(0.0), exp(-0.0), fixed(exp(-88.0)), fixed(exp(f32::NEG_INFINITY))), (1.0, 1.0, 0, 0));
        assert_eq!((fixed(0.0), fixed(1.0)), (0, ONE));
    }

    #[test]
    fn one_token_is_alone_exactly_if_the_others_weigh_nothing() {
        let weights = Weights::new(2.0, &SamplingParams { temperature: 0.5, ..SamplingParams::default() });
        for (rival, alone) in [(-13.0, false), (-13.9, false), (-14.1, true), (f32::NEG_INFINITY, true)] {
            let mut logits = vec![-500.0; BLOCK + 9];
            (logits[3], logits[BLOCK + 2]) = (2.0, rival);
            assert_eq!(weights.only_one(&logits), alone, "{rival}");
            assert!(!alone || weights.of(rival) == 0);
        }
    }

    #[test]
    fn blocks_add_up_to_the_single_weights_of_an_uneven_vocabulary() {
        let logits: Vec<f32> = (0..BLOCK as u32 * 2 + 37).map(|token| (token % 91) as f32 * -0.3).collect();
        let weights = Weights::new(0.0, &SamplingParams::default());
        let mut sums = vec![5];
        let total = weights.blocks(&logits, &mut sums);
        assert_eq!(sums.len(), 3);
        assert_eq!(sums[2], logits[BLOCK * 2..].iter().map(|logit| weights.of(*logit)).sum::<u64>());
        assert_eq!(total, logits.iter().map(|logit| weights.of(*logit)).sum::<u64>());
    }
}
