//! The definitions of the times, as functions of one record.

use crate::record::{Chunk, RequestRecord};
use crate::scenario::Targets;

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
                Some(rounded(end_to_end_us.saturating_sub(ttft_us), tokens - 1))
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

/// Whether `record` succeeded and met every target. Times run from the schedule. Where the first token's time is not
/// known, because the answer came whole, the reader saw it at the end. A target for tokens that an answer has too few
/// of is met.
pub fn is_good(record: &RequestRecord, targets: &Targets) -> bool {
    let timings = Timings::of(record);
    let end_us = timings
        .end_to_end_from_schedule_us
        .unwrap_or_else(|| record.done_us.saturating_sub(record.scheduled_us));
    let within = |us: u64, ms_max: Option<f64>| ms_max.is_none_or(|ms_max| us as f64 <= ms_max * 1e3);
    record.failure.is_none()
        && within(timings.ttft_from_schedule_us.unwrap_or(end_us), targets.ttft_ms)
        && within(timings.tpot_us.unwrap_or(0), targets.tpot_ms)
        && within(end_us, targets.end_to_end_ms)
}

/// The gaps between tokens as (when they ended, gap in microseconds, how many tokens came after such a gap).
///
/// A chunk of n tokens closes n gaps, each an n-th of the time since the last token: a server that sends tokens by
/// the handful is not n times as slow. The tokens that came with the first one have gaps of 0. So there is one gap less
/// than there are tokens, and they sum to last token − first token.
pub fn inter_token_gaps(chunks: &[Chunk]) -> impl Iterator<Item = (u64, u64, u64)> {
    let mut last_token_us = None;
    let with_tokens = chunks.iter().filter(|chunk| chunk.tokens > 0);
    with_tokens
        .flat_map(move |chunk| {
            let (at_us, tokens) = (chunk.at_us, u64::from(chunk.tokens));
            match last_token_us.replace(at_us) {
                None => [(at_us, 0, tokens - 1), (at_us, 0, 0)],
                Some(before_us) => {
                    let gap_us: u64 = at_us.saturating_sub(before_us);
                    // Whole microseconds: the remainder goes to as many gaps, so that the sum stays exact.
                    let longer = gap_us % tokens;
                    [(at_us, gap_us / tokens, tokens - longer), (at_us, gap_us / tokens + 1, longer)]
                }
            }
        })
        .filter(|(_, _, count)| *count > 0)
}
