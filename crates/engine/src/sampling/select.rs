//! The greatest logits, without a sort of the vocabulary.

use std::cmp::Reverse;

use super::SampleError;

/// A logit and its token in one integer: the greater, the likelier, and of equal logits the lower token first. So
/// plain integer order is the whole order, and no two keys are equal.
#[inline]
pub(super) fn key(logit: f32, token: usize) -> u64 {
    // Adding 0 turns -0 into 0: the two are equal logits.
    let bits = (logit + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!(token as u32))
}

/// The token in a key.
#[inline]
pub(super) fn token_of(key: u64) -> u32 {
    !(key as u32)
}

/// The logit in a key.
#[inline]
pub(super) fn logit_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

/// Replaces `keys` with those of the `count` greatest logits, in no order. Minus infinity is never among them, so
/// there may be fewer.
pub(super) fn largest(logits: &[f32], count: usize, keys: &mut Vec<u64>) {
    keys.clear();
    if count == 0 {
        return;
    }
    // Collect twice as many, throw the lesser half away, and from then on let only greater ones in: after the first
    // few rounds hardly any logit passes. One that equals the bar has a higher token than those at the bar.
    let room = count.saturating_mul(2).saturating_add(64);
    let mut bar = f32::NEG_INFINITY;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > bar {
            keys.push(key(*logit, token));
            if keys.len() == room {
                truncate_to_greatest(keys, count);
                bar = logit_of(keys[count - 1]);
            }
        }
    }
    truncate_to_greatest(keys, count);
}

/// Leaves the `count` greatest keys, the least of them last.
fn truncate_to_greatest(keys: &mut Vec<u64>, count: usize) {
    if keys.len() > count {
        keys.select_nth_unstable_by_key(count - 1, |key| Reverse(*key));
        keys.truncate(count);
    }
}

/// The greatest logit and the lowest token that has it, in one pass.
///
/// # Errors
/// If any logit is NaN or plus infinity, or none is finite.
pub(super) fn argmax(logits: &[f32]) -> Result<(u32, f32), SampleError> {
    const LANES: usize = 16;
    const CHUNK: usize = 16 * LANES;

    let (mut best, mut best_chunk, mut any_nan) = (f32::NEG_INFINITY, 0, false);
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        // A maximum per lane compiles to vector code, where a running one would not.
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut nans = [false; LANES];
        let (groups, rest) = chunk.as_chunks::<LANES>();
        for group in groups {
            for lane in 0..LANES {
                maxima[lane] = if group[lane] > maxima[lane] { group[lane] } else { maxima[lane] };
                nans[lane] |= group[lane].is_nan();
            }
        }
        any_nan |= nans.contains(&true) || rest.iter().any(|logit| logit.is_nan());
        let chunk_max = maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |max, logit| max.max(*logit));
        if chunk_max > best {
            (best, best_chunk) = (chunk_max, index * CHUNK);
        }
    }
    if any_nan {
        let token = logits.iter().position(|logit| logit.is_nan()).unwrap_or_default() as u32;
        return Err(SampleError::NotANumber { token });
    }
    let first =
        logits[best_chunk..].iter().position(|logit| *logit == best).map(|at| (best_chunk + at) as u32);
    match first {
        Some(token) if best == f32::INFINITY => Err(SampleError::Infinite { token }),
        Some(token) if best > f32::NEG_INFINITY => Ok((token, best)),
        _ => Err(SampleError::NoCandidate { vocab_size: logits.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct values, so that ties are common.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            9 => (-40_i32..40).prop_map(|half| half as f32 / 2.0), 1 => Just(f32::NEG_INFINITY), 1 => Just(-0.0_f32)
        ];
        prop::collection::vec(logit, 1..1200)
    }

    /// Finite logits with their tokens, likeliest first, by a stable sort.
    fn sorted(logits: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<_> =
            (0_u32..).zip(logits.iter().copied()).filter(|(_, logit)| logit.is_finite()).collect();
        all.sort_by(|left, right| right.1.partial_cmp(&left.1).expect("no NaN"));
        all
    }

    proptest! {
        #[test]
        fn the_largest_are_those_of_a_full_stable_sort(logits in logits(), count in 0_usize..1300) {
            let mut keys = vec![1, 2, 3];
            largest(&logits, count, &mut keys);
            keys.sort_unstable_by_key(|key| Reverse(*key));
            let found: Vec<_> = keys.iter().map(|key| (token_of(*key), logit_of(*key))).collect();
            let expected: Vec<_> = sorted(&logits).into_iter().take(count).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn the_greatest_is_the_first_of_a_full_stable_sort(logits in logits()) {
            let expected = sorted(&logits).first().copied();
            let found = argmax(&logits);
            prop_assert_eq!(found, expected.ok_or(SampleError::NoCandidate { vocab_size: logits.len() }));
        }

        #[test]
        fn a_nan_or_an_infinity_anywhere_is_found(mut logits in logits(), at in any::<prop::sample::Index>()) {
            let token = at.index(logits.len());
            logits[token] = f32::INFINITY;
            prop_assert_eq!(argmax(&logits), Err(SampleError::Infinite { token: token as u32 }));
            logits[token] = f32::NAN;
            prop_assert_eq!(argmax(&logits), Err(SampleError::NotANumber { token: token as u32 }));
        }
    }

    #[test]
    fn no_logits_have_no_greatest() {
        assert_eq!(argmax(&[]), Err(SampleError::NoCandidate { vocab_size: 0 }));
    }
}
