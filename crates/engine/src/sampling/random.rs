//! Randomness without state.

/// The odd number nearest to 2^64 divided by the golden ratio.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number in [0, 1), evenly spread, in steps of 2^-53; a pure function of its arguments.
///
/// Draw number `position` of the SplitMix64 generator (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014) that starts in the mixed seed: mixing keeps the draws of neighbouring seeds apart. The function
/// is part of the contract between workers: one that changed it would continue another's sequence differently.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let start = mix(seed.wrapping_add(STEP));
    let bits = mix(start.wrapping_add(position.wrapping_add(1).wrapping_mul(STEP)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// SplitMix64's output function: a bijection where every bit of the input moves every bit of the output.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_gives_the_published_first_outputs_of_splitmix64_from_zero() {
        let outputs = [1, 2, 3].map(|count: u64| mix(STEP.wrapping_mul(count)));
        assert_eq!(outputs, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    #[test]
    fn draws_are_pinned_since_workers_of_two_versions_must_agree() {
        let draws =
            [(0, 0), (0, 1), (1, 0), (u64::MAX, u64::MAX)].map(|(seed, position)| uniform(seed, position));
        // Worked out by another implementation, in arbitrary-precision integers.
        assert_eq!(draws, [0.6524484863740322, 0.7012121095215252, 0.36818951565166946, 0.2668471864940366]);
    }

    /// Pearson's statistic of `draws` in 64 equal bins; with 63 degrees of freedom it exceeds 103.4 once in a
    /// thousand times.
    fn chi_squared(draws: impl Iterator<Item = f64>) -> f64 {
        let mut bins = [0_u32; 64];
        let mut count = 0;
        for draw in draws {
            assert!((0.0..1.0).contains(&draw));
            bins[(draw * 64.0) as usize] += 1;
            count += 1;
        }
        let expected = f64::from(count) / 64.0;
        bins.iter().map(|bin| (f64::from(*bin) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn draws_are_even_along_positions_and_along_seeds() {
        for fixed in [0, 1, 42, u64::MAX] {
            assert!(chi_squared((0..64_000).map(|position| uniform(fixed, position))) < 103.4);
            assert!(chi_squared((0..64_000).map(|seed| uniform(seed, fixed))) < 103.4);
        }
    }

    #[test]
    fn neighbouring_positions_and_seeds_are_uncorrelated() {
        let count = 50_000_u64;
        let correlation = |pair: fn(u64) -> (f64, f64)| {
            let product: f64 = (0..count).map(pair).map(|(left, right)| (left - 0.5) * (right - 0.5)).sum();
            product / count as f64 * 12.0
        };
        // Four standard deviations of the mean of uncorrelated pairs.
        let limit = 4.0 / (count as f64).sqrt();
        assert!(correlation(|at| (uniform(3, at), uniform(3, at + 1))).abs() < limit);
        assert!(correlation(|at| (uniform(at, 3), uniform(at + 1, 3))).abs() < limit);
        assert!(correlation(|at| (uniform(at, 3), uniform(3, at))).abs() < limit);
        assert!(correlation(|at| (uniform(at, at + 1), uniform(at + 1, at))).abs() < limit);
    }
}
