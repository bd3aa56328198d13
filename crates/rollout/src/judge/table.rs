//! Two shares compared block by block.
//!
//! In a block, `n` trials of the stable version and `m` of the new one each have an event or not. Against a hypothesis
//! about the two shares, one bets with the likelihood ratio of a guess (made before the block) to the hypothesis' own
//! member that comes closest to the guess. For a convex set of pairs of shares, such as "the new share is at most the
//! stable one plus δ", this factor is 1 at most in expectation under each of its pairs, also if they change from block
//! to block, so that what happens to both alike at a time is no evidence. Turner, Ly and Grünwald, "Generic E-variables
//! for exact sequential k-sample tests that allow for optional stopping", 2024; for differences other than 0 Turner and
//! Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond", 2023.

use evidence::Count;
use serde::{Deserialize, Serialize};

use super::wealth::Side;

/// A share is never taken for closer to 0 or to 1 than this.
const SHARE_MIN: f64 = 1e-6;
/// A block ends once it has this many trials of each version: one that has only one version's tells nothing.
const TRIALS_MIN: u64 = 2;
/// The stable share is learnt from about the last 2,000 to 4,000 trials, so that it follows what changes.
const MEMORY_TRIALS: u64 = 4_000;

/// What was seen of both versions at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    /// The stable version.
    pub(super) stable: Count,
    /// The new one.
    pub(super) canary: Count,
}

impl Block {
    /// Whether it says something about the difference. That depends on trials alone, never on events.
    pub(super) fn is_full(&self) -> bool {
        self.stable.trials.min(self.canary.trials) >= TRIALS_MIN
    }
}

/// What is known of the stable version's share from earlier blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Learnt(Count);

impl Learnt {
    /// Nothing is known yet.
    pub(super) const NOTHING: Self = Self(Count { trials: 0, events: 0 });

    /// The share, given what one would guess without any trial, and how many trials this guess is worth.
    pub(super) fn share(&self, guess: f64, worth: f64) -> f64 {
        bounded((self.0.events as f64 + guess * worth) / (self.0.trials as f64 + worth))
    }

    /// Learns from a block that has been judged.
    pub(super) fn learn(&mut self, stable: Count) {
        self.0.trials += stable.trials;
        self.0.events += stable.events;
        while self.0.trials >= MEMORY_TRIALS {
            self.0 = Count { trials: self.0.trials / 2, events: self.0.events / 2 };
        }
    }
}

/// A bet on one block: what each trial multiplies the wealth by, as logarithms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bet {
    stable: Factors,
    canary: Factors,
}

#[derive(Clone, Copy, Debug)]
struct Factors {
    event: f64,
    none: f64,
}

impl Factors {
    fn new(guess: f64, null: f64) -> Self {
        Self { event: (guess / null).ln(), none: ((1.0 - guess) / (1.0 - null)).ln() }
    }

    fn of(self, count: Count) -> f64 {
        count.events as f64 * self.event + (count.trials - count.events) as f64 * self.none
    }
}

impl Bet {
    /// Bets against "the new share is at most (or at least, by `side`) the `stable` one plus `delta`": namely that its
    /// odds are `multiple` times as high (or as low) as that.
    pub(super) fn new(block: &Block, side: Side, stable: f64, delta: f64, multiple: f64) -> Self {
        let edge = bounded(stable + delta);
        let odds = edge / (1.0 - edge) * if side == Side::Above { multiple } else { 1.0 / multiple };
        let canary = bounded(odds / (1.0 + odds));
        let is_outside = if side == Side::Above { canary > stable + delta } else { canary < stable + delta };
        // A guess that the hypothesis holds as well is no bet.
        let null = if is_outside { closest(block, stable, canary, delta) } else { (stable, canary) };
        Self { stable: Factors::new(stable, null.0), canary: Factors::new(canary, null.1) }
    }

    /// The logarithm of what the whole block multiplies the wealth by.
    pub(super) fn log_factor(&self, block: &Block) -> f64 {
        self.stable.of(block.stable) + self.canary.of(block.canary)
    }
}

fn bounded(share: f64) -> f64 {
    share.clamp(SHARE_MIN, 1.0 - SHARE_MIN)
}

/// The pair of shares that differ by `delta` from which a block of the guessed shares is the hardest to tell: the root
/// of the derivative of the relative entropy, whose numerator is a cubic with one root between the guesses.
fn closest(block: &Block, stable: f64, canary: f64, delta: f64) -> (f64, f64) {
    let (n, m) = (block.stable.trials as f64, block.canary.trials as f64);
    if delta == 0.0 {
        let pooled = (n * stable + m * canary) / (n + m);
        return (pooled, pooled);
    }
    let (mut low, mut high) = (stable.min(canary - delta), stable.max(canary - delta));
    low = low.max(SHARE_MIN / 2.0).max(SHARE_MIN / 2.0 - delta);
    high = high.min(1.0 - SHARE_MIN / 2.0).min(1.0 - SHARE_MIN / 2.0 - delta);
    let mut share = (n * stable + m * (canary - delta)) / (n + m);
    for _ in 0..60 {
        share = if share > low && share < high { share } else { (low + high) / 2.0 };
        let other = share + delta;
        let (spread, spread_other) = (share * (1.0 - share), other * (1.0 - other));
        let value = n * (share - stable) * spread_other + m * (other - canary) * spread;
        let slope = n * (spread_other + (share - stable) * (1.0 - 2.0 * other))
            + m * (spread + (other - canary) * (1.0 - 2.0 * share));
        *(if value > 0.0 { &mut high } else { &mut low }) = share;
        let next = share - value / slope;
        if (next - share).abs() < 1e-15 || value == 0.0 {
            break;
        }
        share = next;
    }
    let share = share.clamp(low.min(high), high.max(low));
    (share, share + delta)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(trials: u64, events: u64) -> Count {
        Count { trials, events }
    }

    /// What a bet brings on average when events have these shares: the sum over all outcomes of a small block.
    fn expectation(bet: &Bet, n: u64, m: u64, stable: f64, canary: f64) -> f64 {
        let mean = |factors: Factors, trials: u64, share: f64| {
            // Independent trials: the mean of a product is the product of the means.
            (share * factors.event.exp() + (1.0 - share) * factors.none.exp()).powi(trials as i32)
        };
        mean(bet.stable, n, stable) * mean(bet.canary, m, canary)
    }

    proptest! {
        #[test]
        fn no_bet_wins_on_average_while_the_hypothesis_holds(
            n in 1_u64..60,
            m in 1_u64..60,
            guess in 1e-5_f64..0.9,
            delta in prop_oneof![Just(0.0), -0.3_f64..0.3],
            multiple in 1.1_f64..500.0,
            above in any::<bool>(),
            stable in 0.0_f64..1.0,
            beyond in 0.0_f64..0.5,
        ) {
            let side = if above { Side::Above } else { Side::Below };
            let canary = if above { stable + delta - beyond } else { stable + delta + beyond };
            prop_assume!((0.0..=1.0).contains(&canary));
            let block = Block { stable: count(n, 0), canary: count(m, 0) };
            let bet = Bet::new(&block, side, guess, delta, multiple);
            let mean = expectation(&bet, n, m, stable, canary);
            prop_assert!(mean <= 1.0 + 1e-7, "{mean}");
        }
    }

    #[test]
    fn three_events_against_none_at_a_twentieth_of_the_traffic_are_rare() {
        let block = Block { stable: count(1_900, 0), canary: count(100, 3) };
        let bet = Bet::new(&block, Side::Above, 1e-5, 0.0, 250.0);
        assert!(bet.log_factor(&block) > 2_000_f64.ln(), "{}", bet.log_factor(&block));
    }

    #[test]
    fn what_was_learnt_follows_what_changes() {
        let mut learnt = Learnt::NOTHING;
        assert!((learnt.share(0.05, 40.0) - 0.05).abs() < 1e-12);
        (0..100).for_each(|_| learnt.learn(count(100, 0)));
        (0..100).for_each(|_| learnt.learn(count(100, 50)));
        assert!((learnt.share(0.05, 40.0) - 0.5).abs() < 0.05, "{}", learnt.share(0.05, 40.0));
    }
}
