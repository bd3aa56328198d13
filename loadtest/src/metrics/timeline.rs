//! What happened when: a run's seconds, each with its counts and latencies.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sketch::Sketch;
use super::timings::{Timings, inter_token_gaps};
use crate::record::{FailureKind, RequestRecord};

/// A run cut into equal stretches of time. They are seconds at first. A run of more than [`Self::BUCKETS_MAX`] of them
/// has them joined two by two, as often as it takes, so that memory is bounded. When that happens does not matter to
/// what comes of it, nor in which order records come, so timelines of several processes add up exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    width_s: u64,
    buckets: Vec<Bucket>,
}

/// One stretch. A moment is counted where it lies: a request's schedule, its sending and its end may be apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Requests that became due.
    pub offered: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that became due and were never sent.
    pub unsent: u64,
    /// Requests that ended well.
    pub completed: u64,
    /// Requests that were sent and ended badly.
    pub failed: u64,
    /// Requests that ended well and met all targets.
    pub good: u64,
    /// Tokens that came, of requests that ended well.
    pub output_tokens: u64,
    /// Times to first token from schedule, of requests that became due here.
    pub ttft_us: Sketch,
    /// Gaps between tokens that ended here.
    pub inter_token_us: Sketch,
}

/// A stretch and what follows from it and from those before it. This is a line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Moment<'a> {
    /// Where it starts, in seconds since the run's start.
    pub at_s: u64,
    /// Requests that were sent and have not ended, at the stretch's end.
    pub in_flight: u64,
    /// Of the times to first token from schedule of requests that became due here.
    pub ttft_p50_ms: Option<f64>,
    /// The same's 99th percentile.
    pub ttft_p99_ms: Option<f64>,
    /// Of the gaps between tokens that ended here.
    pub inter_token_p99_ms: Option<f64>,
    /// What was counted.
    #[serde(flatten)]
    pub bucket: &'a Bucket,
}

impl Bucket {
    fn merge(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.completed += other.completed;
        self.failed += other.failed;
        self.good += other.good;
        self.output_tokens += other.output_tokens;
        self.ttft_us.merge(&other.ttft_us);
        self.inter_token_us.merge(&other.inter_token_us);
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width_s: 1, buckets: Vec::new() }
    }
}

impl Timeline {
    /// The most stretches: an hour of seconds.
    pub const BUCKETS_MAX: usize = 3_600;

    /// How long each stretch is, in seconds: a power of two.
    pub const fn width_s(&self) -> u64 {
        self.width_s
    }

    /// The stretches from the start on.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The same with stretches so wide that there are at most `buckets_max`, for drawing.
    pub fn coarser(&self, buckets_max: usize) -> Self {
        let mut coarser = self.clone();
        while coarser.buckets.len() > buckets_max.max(1) {
            coarser.widen();
        }
        coarser
    }

    /// The stretches with what follows from them.
    pub fn moments(&self) -> impl Iterator<Item = Moment<'_>> {
        let mut in_flight = 0_u64;
        self.buckets.iter().zip(0..).map(move |(bucket, index)| {
            in_flight = (in_flight + bucket.sent).saturating_sub(bucket.completed + bucket.failed);
            Moment {
                at_s: index * self.width_s,
                in_flight,
                ttft_p50_ms: bucket.ttft_us.quantile_ms(0.5),
                ttft_p99_ms: bucket.ttft_us.quantile_ms(0.99),
                inter_token_p99_ms: bucket.inter_token_us.quantile_ms(0.99),
                bucket,
            }
        })
    }

    /// Folds in a record of the measured run; `good` is whether it met all targets.
    pub(super) fn add(&mut self, record: &RequestRecord, good: bool) {
        self.at(record.scheduled_us).offered += 1;
        match &record.failure {
            Some(failure) if failure.kind == FailureKind::Unsent => self.at(record.scheduled_us).unsent += 1,
            Some(_) => {
                self.at(record.sent_us).sent += 1;
                self.at(record.done_us).failed += 1;
            }
            None => {
                self.at(record.sent_us).sent += 1;
                let end = self.at(record.done_us);
                end.completed += 1;
                end.good += u64::from(good);
                self.add_tokens(record);
            }
        }
    }

    fn add_tokens(&mut self, record: &RequestRecord) {
        if let Some(ttft_us) = Timings::of(record).ttft_from_schedule_us {
            self.at(record.scheduled_us).ttft_us.add(ttft_us, 1);
        }
        for (at_us, gap_us, count) in inter_token_gaps(&record.chunks) {
            self.at(at_us).inter_token_us.add(gap_us, count);
        }
        // Usage rules: where chunks brought less than it says, as in an answer that came whole, the rest came last.
        let mut left = record.output_tokens();
        for chunk in &record.chunks {
            let tokens = u64::from(chunk.tokens).min(left);
            self.at(chunk.at_us).output_tokens += tokens;
            left -= tokens;
        }
        self.at(record.last_token_us.unwrap_or(record.done_us)).output_tokens += left;
    }

    /// Adds another process' timeline of the same run.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        while self.width_s < other.width_s {
            self.widen();
        }
        while other.width_s < self.width_s {
            other.widen();
        }
        for (index, bucket) in other.buckets.iter().enumerate() {
            self.reach(index);
            self.buckets[index].merge(bucket);
        }
    }

    fn at(&mut self, at_us: u64) -> &mut Bucket {
        let index = |width_s: u64| at_us / 1_000_000 / width_s;
        while index(self.width_s) >= Self::BUCKETS_MAX as u64 {
            self.widen();
        }
        let index = index(self.width_s) as usize;
        self.reach(index);
        &mut self.buckets[index]
    }

    fn reach(&mut self, index: usize) {
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
    }

    fn widen(&mut self) {
        let joined = self.buckets.chunks(2).map(|pair| {
            let mut sum = pair[0].clone();
            pair[1..].iter().for_each(|bucket| sum.merge(bucket));
            sum
        });
        self.buckets = joined.collect();
        self.width_s *= 2;
    }
}

#[derive(Serialize)]
struct Written<'a> {
    width_s: u64,
    buckets: Vec<Moment<'a>>,
}

#[derive(Deserialize)]
struct Read {
    width_s: u64,
    buckets: Vec<Bucket>,
}

impl Serialize for Timeline {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Written { width_s: self.width_s, buckets: self.moments().collect() }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Timeline {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Read { width_s, buckets } = Read::deserialize(from)?;
        if !width_s.is_power_of_two() || buckets.len() > Self::BUCKETS_MAX {
            return Err(D::Error::custom(format!(
                "a timeline has at most {} buckets of a power of two seconds, but this one has {} of {width_s}",
                Self::BUCKETS_MAX,
                buckets.len()
            )));
        }
        Ok(Self { width_s, buckets })
    }
}
