//! The definitions of the figures, as functions of records, and what is kept of a run. Pure: everything here can be
//! tested on made-up records. Whatever is kept adds up, so that several processes' parts of a run give the whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::record::{CacheStatus, FailureKind, RequestRecord, TokenBasis};
use crate::scenario::Targets;

mod latencies;
mod sketch;
mod timeline;
mod timings;

pub use latencies::Latencies;
pub(crate) use latencies::counts;
pub use sketch::Sketch;
pub use timeline::{Bucket, Moment, Timeline};
pub use timings::{Timings, inter_token_gaps, is_good};

/// Sums over the measured run's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that were sent and failed.
    pub failed: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
    /// Successes that met all targets.
    pub good: u64,
    /// Their tokens.
    pub good_output_tokens: u64,
    /// Tokens of the answers that succeeded.
    pub output_tokens: u64,
    /// Tokens of their prompts, as far as servers said.
    pub prompt_tokens: u64,
    /// How many of these came from a prefix cache.
    pub cached_prompt_tokens: u64,
    /// Successes without usage.
    pub without_usage: u64,
    /// Streamed successes whose chunks' tokens were assumed to be one each.
    pub with_assumed_tokens: u64,
    /// Successes without any token.
    pub empty: u64,
    /// Successes with fewer tokens than were asked for.
    pub short: u64,
    /// Requests sent once more, since an idle connection had closed.
    pub resent: u64,
    /// Answers by what a response cache did.
    pub cache: CacheCounts,
}

/// Requests by what a response cache did for them, as far as the server said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheCounts {
    /// Answered from the cache.
    pub hit: u64,
    /// Answered by a model.
    pub miss: u64,
    /// Answered together with another request.
    pub coalesced: u64,
    /// None for the cache.
    pub bypass: u64,
}

impl CacheCounts {
    /// How many answers said what a cache did.
    pub const fn known(&self) -> u64 {
        self.hit + self.miss + self.coalesced + self.bypass
    }

    const fn of(&mut self, status: CacheStatus) -> &mut u64 {
        match status {
            CacheStatus::Hit => &mut self.hit,
            CacheStatus::Miss => &mut self.miss,
            CacheStatus::Coalesced => &mut self.coalesced,
            CacheStatus::Bypass => &mut self.bypass,
        }
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.succeeded, other.succeeded),
            (&mut self.failed, other.failed),
            (&mut self.unsent, other.unsent),
            (&mut self.good, other.good),
            (&mut self.good_output_tokens, other.good_output_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.prompt_tokens, other.prompt_tokens),
            (&mut self.cached_prompt_tokens, other.cached_prompt_tokens),
            (&mut self.without_usage, other.without_usage),
            (&mut self.with_assumed_tokens, other.with_assumed_tokens),
            (&mut self.empty, other.empty),
            (&mut self.short, other.short),
            (&mut self.resent, other.resent),
            (&mut self.cache.hit, other.cache.hit),
            (&mut self.cache.miss, other.cache.miss),
            (&mut self.cache.coalesced, other.cache.coalesced),
            (&mut self.cache.bypass, other.cache.bypass),
        ];
        for (sum, part) in pairs {
            *sum += part;
        }
    }
}

/// A first and a last moment, in microseconds since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub first_us: u64,
    /// The last.
    pub last_us: u64,
}

impl Span {
    /// Its length in seconds.
    pub const fn seconds(&self) -> f64 {
        self.last_us.saturating_sub(self.first_us) as f64 / 1e6
    }

    fn join(span: &mut Option<Self>, first_us: u64, last_us: u64) {
        let (first, last) = span.map_or((first_us, last_us), |span| (span.first_us, span.last_us));
        *span = Some(Self { first_us: first.min(first_us), last_us: last.max(last_us) });
    }

    fn merge(span: &mut Option<Self>, other: Option<Self>) {
        if let Some(other) = other {
            Self::join(span, other.first_us, other.last_us);
        }
    }
}

/// When things happened first and last. None when they never did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    /// From the first sending to the last end.
    pub run: Option<Span>,
    /// From the first request's schedule to the last one's.
    pub due: Option<Span>,
    /// From the first sending to the last one.
    pub sent: Option<Span>,
}

/// Everything that is kept of a run's records.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What a good request meets.
    pub targets: Targets,
    /// Sums.
    pub counts: Counts,
    /// Distributions.
    pub latencies: Latencies,
    /// What happened when.
    pub timeline: Timeline,
    /// First and last moments.
    pub spans: Spans,
    /// Failures by kind, as it is written, requests never sent among them: how many, and the first one's example.
    pub failures: BTreeMap<String, (u64, String)>,
    /// Successes by finish reason.
    pub finish_reasons: BTreeMap<String, u64>,
}

impl Metrics {
    /// The most finish reasons that are told apart; a server that invents more has them under `other`.
    pub const FINISH_REASONS_MAX: usize = 16;

    /// No records yet.
    pub fn new(targets: Targets) -> Result<Self, Error> {
        Ok(Self {
            targets,
            counts: Counts::default(),
            latencies: Latencies::new()?,
            timeline: Timeline::default(),
            spans: Spans::default(),
            failures: BTreeMap::new(),
            finish_reasons: BTreeMap::new(),
        })
    }

    /// Folds in one record of the measured run.
    pub fn add(&mut self, record: &RequestRecord) {
        let good = is_good(record, &self.targets);
        self.timeline.add(record, good);
        Span::join(&mut self.spans.due, record.scheduled_us, record.scheduled_us);
        if let Some(failure) = &record.failure {
            let kind = failure.kind.to_string();
            self.failures.entry(kind).or_insert_with(|| (0, failure.example.clone())).0 += 1;
            if failure.kind == FailureKind::Unsent {
                self.counts.unsent += 1;
                return;
            }
        }
        Span::join(&mut self.spans.run, record.sent_us, record.done_us);
        Span::join(&mut self.spans.sent, record.sent_us, record.sent_us);
        self.latencies.dispatch_delay.saturating_record(record.sent_us.saturating_sub(record.scheduled_us));
        self.counts.resent += u64::from(record.resent);
        match record.failure {
            Some(_) => self.counts.failed += 1,
            None => self.add_success(record, good),
        }
    }

    /// Adds another process' part of the same run: what comes of it is as if one process had seen all records.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        self.counts.merge(&other.counts);
        self.latencies.merge(&other.latencies)?;
        self.timeline.merge(&other.timeline);
        Span::merge(&mut self.spans.run, other.spans.run);
        Span::merge(&mut self.spans.due, other.spans.due);
        Span::merge(&mut self.spans.sent, other.spans.sent);
        for (kind, (count, example)) in &other.failures {
            self.failures.entry(kind.clone()).or_insert_with(|| (0, example.clone())).0 += count;
        }
        for (reason, count) in &other.finish_reasons {
            self.add_finish_reason(reason, *count);
        }
        Ok(())
    }

    /// Requests that have ended, well, badly, or before they began.
    pub const fn ended(&self) -> u64 {
        self.counts.succeeded + self.counts.failed + self.counts.unsent
    }

    /// From the first sending to the last end, in seconds; 0 without records.
    pub fn span_s(&self) -> f64 {
        self.spans.run.map_or(0.0, |span| span.seconds())
    }

    /// `count` a second of the span; 0 without a span.
    pub fn per_second(&self, count: u64) -> f64 {
        let span_s = self.span_s();
        if span_s > 0.0 { count as f64 / span_s } else { 0.0 }
    }

    fn add_success(&mut self, record: &RequestRecord, good: bool) {
        self.latencies.add(record);
        let counts = &mut self.counts;
        let tokens = record.output_tokens();
        counts.succeeded += 1;
        counts.output_tokens += tokens;
        if good {
            counts.good += 1;
            counts.good_output_tokens += tokens;
        }
        match &record.usage {
            Some(usage) => {
                counts.prompt_tokens += u64::from(usage.prompt_tokens);
                counts.cached_prompt_tokens += u64::from(usage.cached_prompt_tokens);
            }
            None => counts.without_usage += 1,
        }
        if let Some(status) = record.cache {
            *counts.cache.of(status) += 1;
        }
        counts.with_assumed_tokens +=
            u64::from(record.token_basis == TokenBasis::Assumed && !record.chunks.is_empty());
        let tokens_known = record.usage.is_some() || record.first_token_us.is_some();
        counts.empty += u64::from(tokens_known && tokens == 0);
        counts.short += u64::from(tokens_known && tokens < u64::from(record.max_tokens));
        self.add_finish_reason(record.finish_reason.as_deref().unwrap_or("none"), 1);
    }

    fn add_finish_reason(&mut self, reason: &str, count: u64) {
        let told_apart =
            self.finish_reasons.contains_key(reason) || self.finish_reasons.len() < Self::FINISH_REASONS_MAX;
        *self.finish_reasons.entry(if told_apart { reason } else { "other" }.to_owned()).or_default() +=
            count;
    }
}

#[cfg(test)]
mod tests;
