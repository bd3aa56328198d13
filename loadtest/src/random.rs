//! Numbers that look random and are functions of a seed, a purpose and an index.

/// SplitMix64's increment and finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
pub(crate) const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer: one-to-one on 64 bits.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a number is for. Numbers for different purposes have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A prompt's own words.
    Words = 1,
    /// The words of a prefix.
    Prefix,
    /// Which prefix a prompt takes.
    PrefixChoice,
    /// The words of a block of a trace.
    Block,
    /// Which of the prompts that come again it is.
    Rank,
    /// Tokens of a prompt.
    PromptTokens,
    /// The most tokens of an answer.
    MaxTokens,
    /// Whether an answer is streamed.
    Stream,
    /// What the target's tokenizer is tried with.
    Sample,
}

/// A seed of its own for a purpose.
pub(crate) const fn seed_for(seed: u64, purpose: Purpose) -> u64 {
    mix(seed ^ mix((purpose as u64).wrapping_mul(GOLDEN_GAMMA)))
}

/// One-to-one in `index`.
pub(crate) const fn draw(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA)))
}

/// The uniform number in [0, 1) that 64 random bits mean.
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A whole number below `bound`, each as likely as the other but for one part in 2^64 / `bound`.
pub(crate) const fn below(bits: u64, bound: u64) -> u64 {
    ((bits as u128 * bound as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_number_is_at_least_0_and_below_1() {
        assert_eq!(unit(0).to_bits(), 0.0_f64.to_bits());
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!((below(0, 10), below(u64::MAX, 10), below(u64::MAX / 2, 10)), (0, 9, 4));
    }

    #[test]
    fn purposes_have_seeds_of_their_own() {
        assert_ne!(seed_for(1, Purpose::Words), seed_for(1, Purpose::Prefix));
        assert_ne!(seed_for(1, Purpose::Words), seed_for(2, Purpose::Words));
    }
}
