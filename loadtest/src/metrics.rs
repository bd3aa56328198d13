//! The definitions of the figures, as functions of records, and their histograms. Pure: everything here can be tested
//! on made-up records. Goodput will be one more function of [`Timings`], over requests offered.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::error::Error;
use crate::record::{Chunk, FailureKind, RequestRecord, TokenBasis};

/// The derived times of one request that succeeded. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timings {
    /// First text − sent; absent when the answer was not streamed or had no text.
    pub ttft_us: Option<u64>,
    /// First text − scheduled.
    pub ttft_from_schedule_us: Option<u64>,
    /// (end-to-end − TTFT) / (output tokens − 1); absent below two tokens.
    pub tpot_us: Option<u64>,
    /// Last text − sent; absent when there was no text.
    pub end_to_end_us: Option<u64>,
    /// Last text − scheduled.
    pub end_to_end_from_schedule_us: Option<u64>,
    /// Sent − scheduled.
    pub dispatch_delay_us: u64,
}

impl Timings {
    /// Derives the times of `record`.
    pub fn of(record: &RequestRecord) -> Self {
        let since = |start_us: u64| move |at_us: u64| at_us.saturating_sub(start_us);
        let ttft_us = record.first_token_us.map(since(record.sent_us));
        let end_to_end_us = record.last_token_us.map(since(record.sent_us));
        let tpot_us = match (ttft_us, end_to_end_us, record.output_tokens()) {
            (Some(ttft_us), Some(end_to_end_us), tokens @ 2..) => {
                Some(rounded(end_to_end_us - ttft_us, tokens - 1))
            }
            _ => None,
        };
        Self {
            ttft_us,
            ttft_from_schedule_us: record.first_token_us.map(since(record.scheduled_us)),
            tpot_us,
            end_to_end_us,
            end_to_end_from_schedule_us: record.last_token_us.map(since(record.scheduled_us)),
            dispatch_delay_us: record.sent_us.saturating_sub(record.scheduled_us),
        }
    }
}

const fn rounded(numerator: u64, denominator: u64) -> u64 {
    (numerator + denominator / 2) / denominator
}

/// The gaps between tokens as pairs of (gap in microseconds, how many tokens came after such a gap).
///
/// A chunk of n tokens closes n gaps, each an n-th of the time since the last token: a server that sends tokens by
/// the handful is not n times as slow. The tokens that came with the first one have gaps of 0. So there is one gap less
/// than there are tokens, and they sum to last token − first token.
pub fn inter_token_gaps(chunks: &[Chunk]) -> impl Iterator<Item = (u64, u64)> {
    let mut last_token_us = None;
    chunks.iter().filter(|chunk| chunk.tokens > 0).flat_map(move |chunk| {
        let tokens = u64::from(chunk.tokens);
        match last_token_us.replace(chunk.at_us) {
            None => [(0, tokens - 1), (0, 0)],
            Some(before_us) => {
                let gap_us: u64 = chunk.at_us.saturating_sub(before_us);
                // Whole microseconds: the remainder goes to as many gaps, so that the sum stays exact.
                let longer = gap_us % tokens;
                [(gap_us / tokens, tokens - longer), (gap_us / tokens + 1, longer)]
            }
        }
    })
}

/// The histograms of one run; microseconds from 1 to an hour, three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// See [`Timings::ttft_us`].
    pub ttft: Histogram<u64>,
    /// See [`Timings::ttft_from_schedule_us`].
    pub ttft_from_schedule: Histogram<u64>,
    /// See [`Timings::tpot_us`].
    pub tpot: Histogram<u64>,
    /// See [`inter_token_gaps`].
    pub inter_token: Histogram<u64>,
    /// Gaps between chunks.
    pub inter_chunk: Histogram<u64>,
    /// See [`Timings::end_to_end_us`].
    pub end_to_end: Histogram<u64>,
    /// See [`Timings::end_to_end_from_schedule_us`].
    pub end_to_end_from_schedule: Histogram<u64>,
    /// See [`Timings::dispatch_delay_us`]; of failed requests too.
    pub dispatch_delay: Histogram<u64>,
}

const HOUR_US: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

impl Latencies {
    fn new() -> Result<Self, Error> {
        let empty = Histogram::new_with_bounds(1, HOUR_US, SIGNIFICANT_DIGITS)
            .map_err(|error| Error::Broken(format!("a histogram cannot be made: {error}")))?;
        Ok(Self {
            ttft: empty.clone(),
            ttft_from_schedule: empty.clone(),
            tpot: empty.clone(),
            inter_token: empty.clone(),
            inter_chunk: empty.clone(),
            end_to_end: empty.clone(),
            end_to_end_from_schedule: empty.clone(),
            dispatch_delay: empty,
        })
    }

    fn add(&mut self, record: &RequestRecord) {
        let timings = Timings::of(record);
        let optional = [
            (&mut self.ttft, timings.ttft_us),
            (&mut self.ttft_from_schedule, timings.ttft_from_schedule_us),
            (&mut self.tpot, timings.tpot_us),
            (&mut self.end_to_end, timings.end_to_end_us),
            (&mut self.end_to_end_from_schedule, timings.end_to_end_from_schedule_us),
        ];
        for (histogram, value) in optional {
            if let Some(value_us) = value {
                histogram.saturating_record(value_us);
            }
        }
        for (gap_us, count) in inter_token_gaps(&record.chunks).filter(|(_, count)| *count > 0) {
            self.inter_token.saturating_record_n(gap_us, count);
        }
        for pair in record.chunks.windows(2) {
            self.inter_chunk.saturating_record(pair[1].at_us.saturating_sub(pair[0].at_us));
        }
    }
}

/// Everything that is kept of a run's records.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Of requests that succeeded, but for the dispatch delay.
    pub latencies: Latencies,
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Failures by kind: how many, and the first one's example.
    pub failures: BTreeMap<FailureKind, (u64, String)>,
    /// Successes by finish reason.
    pub finish_reasons: BTreeMap<String, u64>,
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
    /// The first sending and the last end.
    pub span_us: Option<(u64, u64)>,
}

impl Metrics {
    /// The most finish reasons that are told apart; a server that invents more has them under `other`.
    pub const FINISH_REASONS_MAX: usize = 16;

    /// No records yet.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            latencies: Latencies::new()?,
            succeeded: 0,
            failed: 0,
            failures: BTreeMap::new(),
            finish_reasons: BTreeMap::new(),
            output_tokens: 0,
            prompt_tokens: 0,
            cached_prompt_tokens: 0,
            without_usage: 0,
            with_assumed_tokens: 0,
            empty: 0,
            short: 0,
            span_us: None,
        })
    }

    /// Folds in one record of the measured run.
    pub fn add(&mut self, record: &RequestRecord) {
        let (first_us, last_us) = self.span_us.unwrap_or((record.sent_us, record.done_us));
        self.span_us = Some((first_us.min(record.sent_us), last_us.max(record.done_us)));
        self.latencies.dispatch_delay.saturating_record(record.sent_us.saturating_sub(record.scheduled_us));
        match &record.failure {
            Some(failure) => {
                self.failed += 1;
                self.failures.entry(failure.kind).or_insert_with(|| (0, failure.example.clone())).0 += 1;
            }
            None => self.add_success(record),
        }
    }

    /// From the first sending to the last end, in seconds; 0 without records.
    pub fn span_s(&self) -> f64 {
        self.span_us.map_or(0.0, |(first_us, last_us)| last_us.saturating_sub(first_us) as f64 / 1e6)
    }

    /// `count` a second of the span; 0 without a span.
    pub fn per_second(&self, count: u64) -> f64 {
        let span_s = self.span_s();
        if span_s > 0.0 { count as f64 / span_s } else { 0.0 }
    }

    fn add_success(&mut self, record: &RequestRecord) {
        self.succeeded += 1;
        self.latencies.add(record);
        let tokens = record.output_tokens();
        self.output_tokens += tokens;
        match &record.usage {
            Some(usage) => {
                self.prompt_tokens += u64::from(usage.prompt_tokens);
                self.cached_prompt_tokens += u64::from(usage.cached_prompt_tokens);
            }
            None => self.without_usage += 1,
        }
        self.with_assumed_tokens +=
            u64::from(record.token_basis == TokenBasis::Assumed && !record.chunks.is_empty());
        let tokens_known = record.usage.is_some() || record.first_token_us.is_some();
        self.empty += u64::from(tokens_known && tokens == 0);
        self.short += u64::from(tokens_known && tokens < u64::from(record.max_tokens));

        let reason = record.finish_reason.as_deref().unwrap_or("none");
        let told_apart =
            self.finish_reasons.contains_key(reason) || self.finish_reasons.len() < Self::FINISH_REASONS_MAX;
        *self.finish_reasons.entry(if told_apart { reason } else { "other" }.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
