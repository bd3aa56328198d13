//! By how much the 95th percentile of a time differs.
//!
//! The threshold `c` of a block is the 95th percentile of the stable version's times before it. If the new version's
//! times are `r` times as long, then just as many of them are above `r·c` as the stable version's are above `c`; if
//! they are longer, more are. Sketches have buckets on a logarithmic grid, so that times above `r·c` can be counted
//! exactly for every power `r` of the grid's ratio. Times to the first token are compared within strata, and the
//! wealths of the strata multiplied. A percentile lies within a bucket, which may hold many times that are equal:
//! "longer" is judged by those above the bucket, "shorter" by those in it or above, so that both can be seen.

use std::collections::BTreeMap;

use evidence::{Count, Latency, LatencyKey, RATIO, Sketch, Stratum, VersionEvidence};
use serde::{Deserialize, Serialize};

use super::table::{Bet, Block, Learnt};
use super::wealth::{Ladder, Side};
use super::{Comparison, Levels, Metric, UNBOUNDED};
use crate::JudgeSpec;

/// The percentile, as a share.
const QUANTILE: f64 = 0.95;
/// Of so many times of the stable version is the first percentile made; nothing is judged before.
const RUN_IN: u64 = 20;
/// What the stable version's share above its own percentile is guessed to be, until so many times are heard.
const GUESS: (f64, f64) = (1.0 - QUANTILE, 40.0);
/// Multiples of the odds that are bet on. A time that is 1.5 times as long brings 3 times the odds where the logarithm
/// of times has a standard deviation of a half, and more where they vary less.
const MULTIPLES: [f64; 3] = [1.5, 2.5, 5.0];
/// The share of the level at which a time is called shorter.
const SHORTER_LEVEL: f64 = 0.05;
/// Ratios that are tried, as powers of a bucket's ratio: from a half to three.
const POWERS: [i16; 19] = [-35, -20, -12, -8, -5, -3, -1, 1, 3, 5, 7, 9, 11, 14, 18, 24, 32, 42, 55];

/// The comparison of one latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LatencyTest {
    latency: Latency,
    /// The ratios, as powers of a bucket's ratio.
    powers: Vec<i16>,
    ladder: Ladder,
    strata: BTreeMap<Stratum, Track>,
    canary: Sketch,
}

/// One stratum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Track {
    /// The stable version's times.
    stable: Sketch,
    above: Tail,
    below: Tail,
}

/// What is counted for one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tail {
    learnt: Learnt,
    open: Option<Open>,
}

/// A block that is not full yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    /// Stable times from this bucket on are events.
    cut: u16,
    stable: Count,
    canary_trials: u64,
    /// Events of the new version by ratio.
    canary_events: Vec<u64>,
}

/// The smallest power of a bucket's ratio that is at least `1 + share`.
fn power_at_least(share: f64) -> i16 {
    (share.ln_1p() / RATIO.ln() - 1e-9).ceil() as i16
}

/// The largest power of a bucket's ratio that is at most `1 + share`.
fn power_at_most(share: f64) -> i16 {
    (share.ln_1p() / RATIO.ln() + 1e-9).floor() as i16
}

impl LatencyTest {
    pub(super) fn new(latency: Latency, spec: &JudgeSpec) -> Self {
        let mut powers = POWERS.to_vec();
        powers.extend([power_at_least(spec.tolerance), power_at_most(spec.margin)]);
        powers.sort_unstable();
        powers.dedup();
        let ladder = Ladder::new(powers.len(), MULTIPLES.len());
        Self { latency, powers, ladder, strata: BTreeMap::new(), canary: Sketch::default() }
    }

    /// Which one.
    pub(super) fn latency(&self) -> Latency {
        self.latency
    }

    /// Takes in what one gateway saw in one interval.
    pub(super) fn observe(&mut self, stable: &VersionEvidence, canary: &VersionEvidence) {
        let mut strata: BTreeMap<Stratum, [Sketch; 2]> = BTreeMap::new();
        for (arm, version) in [stable, canary].into_iter().enumerate() {
            let of_it = |(key, _): &(&LatencyKey, &Sketch)| key.latency == self.latency;
            for (key, sketch) in version.latencies.iter().filter(of_it) {
                strata.entry(key.stratum).or_default()[arm].merge(sketch);
            }
        }
        for (stratum, [stable, canary]) in strata {
            self.canary.merge(&canary);
            let track = self.strata.entry(stratum).or_insert_with(Track::new);
            // Before the interval: a threshold must not know what it judges.
            if track.stable.count() >= RUN_IN {
                let quantile = track.stable.quantile_bucket(QUANTILE).unwrap_or(0);
                track.above.observe(
                    Side::Above,
                    quantile + 1,
                    (&stable, &canary),
                    &self.powers,
                    &mut self.ladder,
                );
                track.below.observe(
                    Side::Below,
                    quantile,
                    (&stable, &canary),
                    &self.powers,
                    &mut self.ladder,
                );
            }
            track.stable.merge(&stable);
        }
    }

    pub(super) fn compare(&self, spec: &JudgeSpec, levels: Levels) -> Comparison {
        let rung = |power: i16| self.powers.binary_search(&power).unwrap_or(0);
        let (fail, pass) = (rung(power_at_least(spec.tolerance)), rung(power_at_most(spec.margin)));
        let low = self.ladder.low(fail, levels.fail);
        let high = self.high(pass, levels.pass);
        let difference = |rung: usize| RATIO.powi(i32::from(self.powers[rung])) - 1.0;
        let mut stable = Sketch::default();
        self.strata.values().for_each(|track| stable.merge(&track.stable));
        Comparison {
            metric: Metric::Latency(self.latency),
            stable: stable.quantile(QUANTILE),
            canary: self.canary.quantile(QUANTILE),
            low: low.map_or(-1.0, difference),
            high: high.map_or(UNBOUNDED, difference),
            tolerance: spec.tolerance,
            margin: spec.margin,
            stable_samples: stable.count(),
            samples: self.canary.count(),
            fails: low.is_some_and(|rung| rung >= fail),
            passes: high.is_some_and(|rung| rung <= pass),
        }
    }

    /// The upper bound. That a time is surely shorter nobody has asked, and it would be said of three times at each look
    /// and step: that takes more.
    fn high(&self, pass: usize, level: f64) -> Option<usize> {
        let no_shorter = self.powers.partition_point(|power| *power < 0);
        let high = self.ladder.high(pass, level)?;
        if high >= no_shorter {
            return Some(high);
        }
        let surely = self.ladder.high(pass, level * SHORTER_LEVEL).unwrap_or(no_shorter);
        Some(surely.min(no_shorter))
    }
}

impl Track {
    fn new() -> Self {
        let tail = Tail { learnt: Learnt::NOTHING, open: None };
        Self { stable: Sketch::default(), above: tail.clone(), below: tail }
    }
}

impl Tail {
    /// Counts times of both versions, and bets once the block is full.
    fn observe(
        &mut self,
        side: Side,
        cut: u16,
        (stable, canary): (&Sketch, &Sketch),
        powers: &[i16],
        ladder: &mut Ladder,
    ) {
        let open = self.open.get_or_insert_with(|| Open {
            cut,
            stable: Count::default(),
            canary_trials: 0,
            canary_events: vec![0; powers.len()],
        });
        open.stable.trials += stable.count();
        open.stable.events += stable.count_from(open.cut);
        open.canary_trials += canary.count();
        for (events, power) in open.canary_events.iter_mut().zip(powers) {
            *events += canary.count_from(open.cut.saturating_add_signed(*power));
        }
        if open.block(0).is_full() {
            self.bet(side, ladder);
        }
    }

    fn bet(&mut self, side: Side, ladder: &mut Ladder) {
        let Some(open) = self.open.take() else { return };
        let share = self.learnt.share(GUESS.0, GUESS.1);
        let bets = MULTIPLES.map(|multiple| Bet::new(&open.block(0), side, share, 0.0, multiple));
        for (rung, wealth) in ladder.side(side).iter_mut().enumerate() {
            let block = open.block(rung);
            wealth.multiply(bets.iter().map(|bet| bet.log_factor(&block)));
        }
        self.learnt.learn(open.stable);
    }
}

impl Open {
    /// As it looks for one ratio.
    fn block(&self, rung: usize) -> Block {
        let canary = Count { trials: self.canary_trials, events: self.canary_events[rung] };
        Block { stable: self.stable, canary }
    }
}

#[cfg(test)]
mod tests;
