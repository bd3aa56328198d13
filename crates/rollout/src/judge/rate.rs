//! By how much it happens more often that something goes wrong.

use evidence::{Count, Rate, VersionEvidence};
use serde::{Deserialize, Serialize};

use super::table::{Bet, Block, Learnt};
use super::wealth::{Ladder, Side};
use super::{Comparison, Levels, Metric};
use crate::JudgeSpec;

/// Differences that are tried, in margins.
const DIFFERENCES: [f64; 11] = [-2.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0];
/// An error rate fails above this, in margins: each error counts, and none is a matter of taste.
const ERROR_TOLERANCE: f64 = 0.0;
/// Refused requests, truncated and empty answers fail above this, in margins. Who asks decides about them as well as the version does,
/// and a few users ask for much: shares differ a little also between two halves of one version's users.
const ANSWER_TOLERANCE: f64 = 0.2;
/// Fewer users with an error than this fail nobody, however small the new version's share of the traffic is.
const ERRORS_MIN: u64 = 2;
/// What a rate is guessed to be, until so many requests are heard.
const GUESS: (f64, f64) = (2e-4, 50.0);
/// Multiples of the odds that are bet on: far ones, since from one error in 10,000 to two in a hundred it is far.
const MULTIPLES: [f64; 6] = [1.5, 3.0, 8.0, 25.0, 100.0, 400.0];

/// The comparison of one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RateTest {
    rate: Rate,
    ladder: Ladder,
    learnt: Learnt,
    /// The block that is not full yet.
    open: Block,
    /// All that was heard.
    total: Block,
}

impl RateTest {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            ladder: Ladder::new(DIFFERENCES.len(), MULTIPLES.len()),
            learnt: Learnt::NOTHING,
            open: Block::default(),
            total: Block::default(),
        }
    }

    /// Takes in what one gateway saw in one interval.
    pub(super) fn observe(&mut self, spec: &JudgeSpec, stable: &VersionEvidence, canary: &VersionEvidence) {
        for block in [&mut self.open, &mut self.total] {
            add(&mut block.stable, stable.rate(self.rate));
            add(&mut block.canary, canary.rate(self.rate));
        }
        if !self.open.is_full() {
            return;
        }
        let block = std::mem::take(&mut self.open);
        let share = self.learnt.share(GUESS.0, GUESS.1);
        let margin = self.margin(spec);
        for side in Side::ALL {
            for (difference, wealth) in DIFFERENCES.iter().zip(self.ladder.side(side)) {
                let bet = |multiple: &f64| Bet::new(&block, side, share, difference * margin, *multiple);
                wealth.multiply(MULTIPLES.iter().map(|multiple| bet(multiple).log_factor(&block)));
            }
        }
        self.learnt.learn(block.stable);
    }

    pub(super) fn compare(&self, spec: &JudgeSpec, levels: Levels) -> Comparison {
        let is_error = self.rate == Rate::Error;
        let margin = self.margin(spec);
        let tolerance = if is_error { ERROR_TOLERANCE } else { ANSWER_TOLERANCE };
        let rung = |difference: f64| DIFFERENCES.iter().position(|known| *known >= difference).unwrap_or(0);
        let (fail, pass) = (rung(tolerance), rung(1.0));
        let low = self.ladder.low(fail, levels.fail);
        let high = self.ladder.high(pass, levels.pass);
        let is_enough = !is_error || self.total.canary.events >= ERRORS_MIN;
        Comparison {
            metric: Metric::Rate(self.rate),
            stable: share(self.total.stable),
            canary: share(self.total.canary),
            low: low.map_or(-1.0, |rung| DIFFERENCES[rung] * margin).max(-1.0),
            high: high.map_or(1.0, |rung| DIFFERENCES[rung] * margin).min(1.0),
            tolerance: tolerance * margin,
            margin,
            stable_samples: self.total.stable.trials,
            samples: self.total.canary.trials,
            fails: is_enough && low.is_some_and(|rung| rung >= fail),
            passes: high.is_some_and(|rung| rung <= pass),
        }
    }

    /// Which one.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    fn margin(&self, spec: &JudgeSpec) -> f64 {
        match self.rate {
            Rate::Error => spec.error_margin,
            Rate::Refused | Rate::Truncated | Rate::Empty => spec.answer_margin,
        }
    }
}

fn add(sum: &mut Count, more: Count) {
    sum.trials += more.trials;
    // Readings of two gateways may cross; a share is never above 1.
    sum.events = (sum.events + more.events).min(sum.trials);
}

fn share(count: Count) -> Option<f64> {
    (count.trials > 0).then(|| count.events as f64 / count.trials as f64)
}

#[cfg(test)]
mod tests;
