//! Times, counted in buckets that each are 2% wider than the one before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much wider a bucket is than the one before it. A quantile is known to within this factor.
pub const RATIO: f64 = 1.02;

/// Where the second bucket begins, in seconds.
const FIRST_S: f64 = 1e-5;
/// The last bucket holds everything above some 6 hours.
const LAST: u16 = 1_100;

/// Counts of times by bucket, empty ones left out. Two sketches are added bucket by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch(BTreeMap<u16, u64>);

impl Sketch {
    /// The bucket of a time in seconds; one that is no time at all lies in the first.
    pub fn bucket(seconds: f64) -> u16 {
        // Also what is no number.
        if seconds.is_nan() || seconds < FIRST_S {
            return 0;
        }
        let steps = (seconds / FIRST_S).ln() / RATIO.ln();
        steps.min(f64::from(LAST) - 1.0) as u16 + 1
    }

    /// The time at which a bucket begins, in seconds.
    pub fn begin(bucket: u16) -> f64 {
        if bucket == 0 { 0.0 } else { FIRST_S * RATIO.powi(i32::from(bucket) - 1) }
    }

    /// Counts one time, in seconds.
    pub fn add(&mut self, seconds: f64) {
        *self.0.entry(Self::bucket(seconds)).or_default() += 1;
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Buckets that hold something, from the lowest on, and how much.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// How many of them lie in `bucket` or above.
    pub fn count_from(&self, bucket: u16) -> u64 {
        self.0.range(bucket..).map(|(_, count)| count).sum()
    }

    /// The bucket that holds the quantile `q`, from 0 to 1; `None` where nothing was counted.
    pub fn quantile_bucket(&self, q: f64) -> Option<u16> {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.0.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= rank).then_some(*bucket)
        })
    }

    /// The quantile `q` in seconds: the middle of its bucket.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let bucket = self.quantile_bucket(q)?;
        Some((Self::begin(bucket) + Self::begin(bucket + 1)) / 2.0)
    }

    /// Adds the counts of another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            *self.0.entry(*bucket).or_default() += count;
        }
    }

    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        // Side by side: a gateway is read every second.
        let mut before = earlier.0.iter().peekable();
        let after = |(bucket, count): (&u16, &u64)| {
            while before.next_if(|(earlier, _)| *earlier < bucket).is_some() {}
            let before = before.next_if(|(earlier, _)| *earlier == bucket).map_or(0, |(_, count)| *count);
            let count = count.saturating_sub(before);
            (count > 0).then_some((*bucket, count))
        };
        Self(self.0.iter().filter_map(after).collect())
    }
}
