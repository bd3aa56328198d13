//! Evidence as the wealth of bets.
//!
//! Whoever bets against a hypothesis that is true, at fair or worse odds, multiplies the stake by `1/level` with a
//! probability of at most `level`, however long the play and whenever it is looked at (Ville's inequality). So a
//! hypothesis is rejected at `level` once the wealth of bets against it has ever reached `1/level`. Shafer, "Testing by
//! betting", 2021; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid inference",
//! 2023. Nobody knows the best bet beforehand, so that the stake is split evenly over a few: the mean of their wealths
//! is again the wealth of a bet, and costs the logarithm of their number.

use serde::{Deserialize, Serialize};

/// Wealth is kept as the logarithm, in millionths of a nat: whole numbers are short in JSON and come back from it
/// exactly.
const PER_NAT: f64 = 1e6;
/// Some 1,000 nats, which decide everything.
const LIMIT: i32 = 1_000_000_000;

/// The wealth of a few bets against one hypothesis: each one's logarithm, then the logarithm of the most that their
/// mean ever was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wealth(Vec<i32>, i32);

impl Wealth {
    /// A stake of 1 on `bets` bets.
    pub(super) fn new(bets: usize) -> Self {
        Self(vec![0; bets], 0)
    }

    /// Multiplies the wealth of each bet by a factor, given as its logarithm.
    pub(super) fn multiply(&mut self, log_factors: impl Iterator<Item = f64>) {
        for (bet, log_factor) in self.0.iter_mut().zip(log_factors) {
            // Down, so that rounding makes no evidence.
            let change = (log_factor * PER_NAT).floor().clamp(-f64::from(LIMIT), f64::from(LIMIT)) as i32;
            *bet = bet.saturating_add(change).clamp(-LIMIT, LIMIT);
        }
        let largest = self.0.iter().copied().max().unwrap_or(0);
        // The mean is never above the largest.
        if largest > self.1 {
            let relative = |bet: &i32| ((f64::from(*bet) - f64::from(largest)) / PER_NAT).exp();
            let mean = self.0.iter().map(relative).sum::<f64>() / self.0.len() as f64;
            let log_mean = f64::from(largest) + mean.ln() * PER_NAT;
            self.1 = self.1.max(log_mean.floor() as i32);
        }
    }

    /// Whether the hypothesis was ever rejected at this level.
    pub(super) fn rejects(&self, level: f64) -> bool {
        f64::from(self.1) >= -level.ln() * PER_NAT
    }
}

/// Which hypothesis about a difference is bet against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// That it is at most so much: evidence shows that it is above.
    Above,
    /// That it is at least so much: evidence shows that it is below.
    Below,
}

impl Side {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Above, Self::Below];
}

/// Bets on both sides of several possible differences, from the smallest to the largest. Those that are rejected bound
/// the true one from below and from above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ladder {
    above: Vec<Wealth>,
    below: Vec<Wealth>,
}

impl Ladder {
    /// So many differences, and so many bets on each side of each.
    pub(super) fn new(rungs: usize, bets: usize) -> Self {
        Self { above: vec![Wealth::new(bets); rungs], below: vec![Wealth::new(bets); rungs] }
    }

    /// The wealth on one side of each difference.
    pub(super) fn side(&mut self, side: Side) -> &mut [Wealth] {
        match side {
            Side::Above => &mut self.above,
            Side::Below => &mut self.below,
        }
    }

    /// The largest difference that the true one is surely above. The climb begins at the lowest rung, and once more at
    /// `decisive`, which decides alone whether a version fails. Rungs that were not reached from there don't count:
    /// else each would be one more chance to be wrong. So the bound is wrong with a probability of at most twice
    /// `level`, and a verdict by the decisive rung with at most `level`.
    pub(super) fn low(&self, decisive: usize, level: f64) -> Option<usize> {
        let climb =
            |from: usize| (from..self.above.len()).take_while(|rung| self.above[*rung].rejects(level));
        climb(0).chain(climb(decisive)).max()
    }

    /// The smallest difference that the true one is surely below, found in the same way from above.
    pub(super) fn high(&self, decisive: usize, level: f64) -> Option<usize> {
        let descend = |from: usize| (0..=from).rev().take_while(|rung| self.below[*rung].rejects(level));
        descend(self.below.len() - 1).chain(descend(decisive)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_the_bets_decides_and_its_best_moment_counts() {
        let mut wealth = Wealth::new(2);
        wealth.multiply([40_f64.ln() + 1e-5, -100.0].into_iter());
        assert!(wealth.rejects(0.05) && !wealth.rejects(0.049));
        wealth.multiply([-50.0, -50.0].into_iter());
        assert!(wealth.rejects(0.05), "what was once rejected stays so");
    }

    #[test]
    fn wealth_without_end_stays_within_its_bounds() {
        let mut wealth = Wealth::new(2);
        for _ in 0..5 {
            wealth.multiply([f64::INFINITY, f64::NEG_INFINITY].into_iter());
        }
        assert!(wealth.rejects(1e-300));
    }

    #[test]
    fn a_bound_is_climbed_to_from_an_end_or_from_the_decisive_rung() {
        let mut ladder = Ladder::new(5, 1);
        for rung in [0, 3, 4] {
            ladder.side(Side::Above)[rung].multiply([10.0].into_iter());
        }
        assert_eq!((ladder.low(2, 0.05), ladder.low(3, 0.05)), (Some(0), Some(4)));
        assert_eq!((ladder.low(2, 1e-9), ladder.high(2, 0.05)), (None, None));
        for rung in [4, 1] {
            ladder.side(Side::Below)[rung].multiply([10.0].into_iter());
        }
        assert_eq!((ladder.high(2, 0.05), ladder.high(1, 0.05)), (Some(4), Some(1)));
    }
}
