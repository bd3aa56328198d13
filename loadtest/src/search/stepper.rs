//! Which rate to try next. Pure: a function of what was observed, so that a search can be replayed and gone on with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How a search goes about it. Rates are requests a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The first rate.
    pub start: f64,
    /// No lower one is tried.
    pub rate_min: f64,
    /// No higher one is tried.
    pub rate_max: f64,
    /// What the rate is multiplied by until it misses, or divided by until it meets.
    pub growth: f64,
    /// The search ends when the bracket is this share of its upper end.
    pub resolution: f64,
    /// Runs a rate; most of them decide.
    pub repeats: u32,
    /// The most runs in all.
    pub runs_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: 1.0,
            rate_min: 0.01,
            rate_max: 100_000.0,
            growth: 2.0,
            resolution: 0.05,
            repeats: 3,
            runs_max: 100,
        }
    }
}

impl Settings {
    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |problem: &str| Err(Error::Config(problem.to_owned()));
        if !(self.rate_min > 0.0 && self.rate_min <= self.start && self.start <= self.rate_max) {
            return refuse("rates must be 0 < rate-min <= start <= rate-max");
        }
        if !self.rate_max.is_finite() || !(1.05..=100.0).contains(&self.growth) {
            return refuse("growth must be between 1.05 and 100, and rate-max a number");
        }
        if !(0.001..=0.5).contains(&self.resolution) {
            return refuse("resolution must be between 0.001 and 0.5, a share of the rate");
        }
        if !(1..=99).contains(&self.repeats) || !(1..=10_000).contains(&self.runs_max) {
            return refuse("repeats must be between 1 and 99, and runs-max between 1 and 10000");
        }
        Ok(())
    }
}

/// What one run at a rate came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All targets were met.
    Met,
    /// A target was missed.
    Missed,
    /// The tester could not keep its schedule: the run says nothing of the target.
    Invalid,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Invalid => "invalid",
        })
    }
}

/// The runs at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tally {
    /// Requests a second.
    pub rate: f64,
    /// Runs that met all targets.
    pub met: u32,
    /// Runs that missed one.
    pub missed: u32,
    /// Runs that do not count.
    pub invalid: u32,
    /// Runs that may decide; more for the rate that is confirmed.
    pub votes_max: u32,
}

impl Tally {
    /// Whether the rate is met, once no further run can change it.
    pub const fn decision(&self) -> Option<bool> {
        let needed = self.votes_max / 2 + 1;
        if self.met >= needed {
            Some(true)
        } else if self.missed + self.invalid > self.votes_max - needed {
            Some(false)
        } else {
            None
        }
    }
}

/// What keeps the found rate from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The next rate missed a target.
    Target,
    /// At the next rate the tester itself could not keep its schedule: the target may do more.
    Tester,
    /// No higher rate was to be tried.
    RateMax,
}

/// How far a search came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The highest rate that met the targets; none if no rate did.
    pub rate: Option<f64>,
    /// The lowest one above it that did not.
    pub above: Option<f64>,
    /// What lies between; none while nothing limits.
    pub limit: Option<Limit>,
    /// Whether the bracket is as narrow as was asked for and its lower end was run again.
    pub complete: bool,
}

/// A search under way: growth until the targets are missed, bisection between, and once more at the end.
#[derive(Clone, Debug)]
pub struct SearchState {
    settings: Settings,
    tallies: Vec<Tally>,
    runs: u32,
    /// The rate that is being decided.
    current: Option<f64>,
}

impl SearchState {
    /// Nothing observed yet.
    pub const fn new(settings: Settings) -> Self {
        Self { settings, tallies: Vec::new(), runs: 0, current: Some(settings.start) }
    }

    /// The rate to run next; none when the search is complete or has used up its runs.
    pub fn next(&self) -> Option<f64> {
        self.current.filter(|_| self.runs < self.settings.runs_max)
    }

    /// Takes what a run at `rate`, which [`Self::next`] gave, came to.
    pub fn observe(&mut self, rate: f64, outcome: Outcome) {
        self.runs += 1;
        let repeats = self.settings.repeats;
        let tally = self.tally_mut(rate, repeats);
        match outcome {
            Outcome::Met => tally.met += 1,
            Outcome::Missed => tally.missed += 1,
            Outcome::Invalid => tally.invalid += 1,
        }
        if tally.decision().is_some() {
            self.current = self.choose();
        }
    }

    /// The runs at each rate, from the lowest.
    pub fn tallies(&self) -> Vec<Tally> {
        let mut tallies = self.tallies.clone();
        tallies.sort_by(|left, right| left.rate.total_cmp(&right.rate));
        tallies
    }

    /// How far it came.
    pub fn found(&self) -> Found {
        let (low, high) = self.bracket();
        let limit = match high {
            Some(high) if high.missed > high.invalid => Some(Limit::Target),
            Some(_) => Some(Limit::Tester),
            None if low.is_some_and(|low| low.rate >= self.settings.rate_max) => Some(Limit::RateMax),
            None => None,
        };
        Found {
            rate: low.map(|low| low.rate),
            above: high.map(|high| high.rate),
            limit,
            complete: self.current.is_none(),
        }
    }

    /// The lowest rate that is decided not to meet, and the highest below it that is decided to meet.
    fn bracket(&self) -> (Option<Tally>, Option<Tally>) {
        let decided =
            |met: bool| self.tallies.iter().filter(move |tally| tally.decision() == Some(met)).copied();
        let high = decided(false).min_by(|left, right| left.rate.total_cmp(&right.rate));
        let below = |tally: &Tally| high.is_none_or(|high| tally.rate < high.rate);
        // The rate under confirmation has met once and stays the lower end until it is refuted.
        let low = self
            .tallies
            .iter()
            .filter(|tally| tally.decision().unwrap_or(tally.votes_max > self.settings.repeats))
            .filter(|tally| below(tally))
            .max_by(|left, right| left.rate.total_cmp(&right.rate));
        (low.copied(), high)
    }

    fn choose(&mut self) -> Option<f64> {
        let Settings { rate_min, rate_max, growth, resolution, start, .. } = self.settings;
        match self.bracket() {
            (None, None) => Some(start),
            (Some(low), None) if low.rate < rate_max => Some((low.rate * growth).min(rate_max)),
            (None, Some(high)) if high.rate > rate_min => Some((high.rate / growth).max(rate_min)),
            (None, Some(_)) => None,
            (Some(low), Some(high)) if high.rate - low.rate > resolution * high.rate => {
                Some(f64::midpoint(low.rate, high.rate))
            }
            (Some(low), _) => self.confirm(low.rate),
        }
    }

    /// Doubles the votes of the lower end, lest a lucky majority be taken for the answer.
    fn confirm(&mut self, rate: f64) -> Option<f64> {
        let votes_max = 2 * self.settings.repeats;
        let tally = self.tally_mut(rate, votes_max);
        if tally.votes_max == votes_max && tally.decision().is_some() {
            return None;
        }
        tally.votes_max = votes_max;
        Some(rate)
    }

    fn tally_mut(&mut self, rate: f64, votes_max: u32) -> &mut Tally {
        let at = self.tallies.iter().position(|tally| tally.rate.to_bits() == rate.to_bits());
        let at = at.unwrap_or_else(|| {
            self.tallies.push(Tally { rate, met: 0, missed: 0, invalid: 0, votes_max });
            self.tallies.len() - 1
        });
        &mut self.tallies[at]
    }
}

#[cfg(test)]
mod tests;
