//! Log-likelihoods under the model's own distribution.

use std::cmp::Reverse;

use super::SampleError;
use super::select::{argmax, largest, logit_of, token_of};
use super::weights::exp;

/// How likely the model found a token. Natural logarithms of the raw softmax: before biases, penalties, temperature
/// and truncation, as OpenAI and vLLM report them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token's own; minus infinity where the model rules it out.
    pub logprob: f32,
    /// 1 for the likeliest token. Of equal ones the lower token ranks first.
    pub rank: u32,
    /// The likeliest tokens with theirs, by rank. The scored token is among them if its rank is small enough. Tokens
    /// of probability zero are left out.
    pub top: Vec<(u32, f32)>,
}

/// Scores `token` under `logits` (one per token of the vocabulary), with `top` alternatives. Differences are taken
/// in f32, the sum over the vocabulary in f64, in the order of tokens.
///
/// # Errors
/// If any logit is NaN or plus infinity, none is finite, or `token` is outside the vocabulary.
pub fn score(logits: &[f32], token: u32, top: u8) -> Result<Scored, SampleError> {
    let (_, max) = argmax(logits)?;
    let index = token as usize;
    let Some(logit) = logits.get(index).copied() else {
        return Err(SampleError::UnknownToken { token, vocab_size: logits.len() });
    };
    let log_sum = sum_of_exp(logits, max).ln();
    let logprob = |logit: f32| (f64::from(logit - max) - log_sum) as f32;

    let ahead = logits[..index].iter().filter(|other| **other >= logit).count()
        + logits[index + 1..].iter().filter(|other| **other > logit).count();
    let mut keys = Vec::new();
    largest(logits, usize::from(top), &mut keys);
    keys.sort_unstable_by_key(|key| Reverse(*key));
    Ok(Scored {
        logprob: logprob(logit),
        rank: ahead as u32 + 1,
        top: keys.into_iter().map(|key| (token_of(key), logprob(logit_of(key)))).collect(),
    })
}

/// Sum of e^(logit - max); at least 1.
fn sum_of_exp(logits: &[f32], max: f32) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (groups, rest) = logits.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            sums[lane] += f64::from(exp(group[lane] - max));
        }
    }
    let rest: f64 = rest.iter().map(|logit| f64::from(exp(logit - max))).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scores_agree_with_a_full_sort_in_double_precision(
            halves in prop::collection::vec(-60_i32..60, 1..500), at in any::<prop::sample::Index>(), top in 0_u8..30,
        ) {
            let logits: Vec<f32> = halves.iter().map(|half| *half as f32 / 2.0).collect();
            let token = at.index(logits.len()) as u32;
            let log_sum = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
            let mut sorted: Vec<(u32, f64)> =
                (0..).zip(logits.iter().map(|logit| f64::from(*logit) - log_sum)).collect();
            sorted.sort_by(|left, right| right.1.total_cmp(&left.1));

            let scored = score(&logits, token, top).expect("finite");
            let place = sorted.iter().position(|(other, _)| *other == token).expect("is there");
            prop_assert_eq!(scored.rank as usize, place + 1);
            prop_assert!((f64::from(scored.logprob) - sorted[place].1).abs() < 1e-5);
            prop_assert_eq!(scored.top.len(), logits.len().min(usize::from(top)));
            for (found, expected) in scored.top.iter().zip(&sorted) {
                prop_assert_eq!(found.0, expected.0);
                prop_assert!((f64::from(found.1) - expected.1).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn two_equal_tokens_have_half_each_and_the_lower_ranks_first() {
        let logits = [f32::NEG_INFINITY, 3.0, 3.0];
        let half = -std::f32::consts::LN_2;
        let scored = score(&logits, 2, 5).expect("finite");
        assert_eq!(scored, Scored { logprob: half, rank: 2, top: vec![(1, half), (2, half)] });
        let ruled_out = score(&logits, 0, 0).expect("finite");
        assert_eq!(ruled_out, Scored { logprob: f32::NEG_INFINITY, rank: 3, top: vec![] });
    }

    #[test]
    fn a_large_offset_of_all_logits_changes_nothing() {
        let logits = [0.0, 1.0, 2.5, -4.0];
        let shifted = logits.map(|logit| logit + 8192.0);
        assert_eq!(score(&logits, 1, 4), score(&shifted, 1, 4));
    }

    #[test]
    fn what_cannot_be_scored_is_an_error() {
        assert_eq!(score(&[0.0, f32::NAN], 0, 0), Err(SampleError::NotANumber { token: 1 }));
        assert_eq!(score(&[0.0, 1.0], 2, 0), Err(SampleError::UnknownToken { token: 2, vocab_size: 2 }));
    }
}
