use proptest::prelude::*;

use super::*;
use crate::record::{Chunk, Failure, Usage};

/// Due at 100, sent at 150, text at 1,150, 1,250 and 1,550 µs with 1, 1 and 3 tokens, `[DONE]` at 2,000.
fn streamed() -> RequestRecord {
    let chunks = vec![
        Chunk { at_us: 1_150, tokens: 1 },
        Chunk { at_us: 1_250, tokens: 1 },
        Chunk { at_us: 1_550, tokens: 3 },
    ];
    RequestRecord {
        scheduled_us: 100,
        sent_us: 150,
        first_token_us: Some(1_150),
        last_token_us: Some(1_550),
        done_us: 2_000,
        chunks,
        token_basis: TokenBasis::Usage,
        status: Some(200),
        finish_reason: Some("length".into()),
        usage: Some(Usage { prompt_tokens: 12, cached_prompt_tokens: 8, completion_tokens: 5 }),
        max_tokens: 5,
        ..RequestRecord::default()
    }
}

fn failed(kind: FailureKind, example: &str) -> RequestRecord {
    RequestRecord { failure: Some(Failure::new(kind, example)), ..streamed() }
}

#[test]
fn times_follow_their_definitions() {
    let timings = Timings::of(&streamed());
    let expected = Timings {
        ttft_us: Some(1_000),
        ttft_from_schedule_us: Some(1_050),
        tpot_us: Some(100),
        end_to_end_us: Some(1_400),
        end_to_end_from_schedule_us: Some(1_450),
        dispatch_delay_us: 50,
    };
    assert_eq!(timings, expected, "end-to-end ends at the last token, not at [DONE]");
}

#[test]
fn a_gap_before_several_tokens_is_divided_among_them() {
    let gaps: Vec<_> = inter_token_gaps(&streamed().chunks).collect();
    assert_eq!(gaps, [(1_250, 100, 1), (1_550, 100, 3)]);
}

#[test]
fn tokens_that_came_with_the_first_have_gaps_of_nothing() {
    let chunks = [Chunk { at_us: 10, tokens: 3 }, Chunk { at_us: 21, tokens: 2 }];
    let gaps: Vec<_> = inter_token_gaps(&chunks).collect();
    assert_eq!(gaps, [(10, 0, 2), (21, 5, 1), (21, 6, 1)]);
}

#[test]
fn one_token_has_no_time_per_output_token_and_no_gap() {
    let mut record = streamed();
    record.chunks.truncate(1);
    record.last_token_us = record.first_token_us;
    record.usage = None;
    assert_eq!(Timings::of(&record).tpot_us, None);
    assert_eq!(inter_token_gaps(&record.chunks).map(|(_, _, count)| count).sum::<u64>(), 0);
}

#[test]
fn an_answer_that_was_not_streamed_has_only_its_end() {
    let record = RequestRecord { first_token_us: None, chunks: Vec::new(), ..streamed() };
    let timings = Timings::of(&record);
    assert_eq!((timings.ttft_us, timings.tpot_us), (None, None));
    assert_eq!(timings.end_to_end_us, Some(1_400));
    assert_eq!(record.output_tokens(), 5);
}

#[test]
fn failures_are_counted_by_kind_with_the_first_example_and_stay_out_of_latencies() {
    let mut metrics = Metrics::new(Targets::default()).expect("bounds");
    metrics.add(&streamed());
    metrics.add(&failed(FailureKind::Http(429), "first"));
    metrics.add(&failed(FailureKind::Http(429), "second"));
    metrics.add(&failed(FailureKind::Truncated, "cut"));
    assert_eq!((metrics.counts.succeeded, metrics.counts.failed), (1, 3));
    assert_eq!(metrics.failures["http_429"], (2, "first".to_owned()));
    assert_eq!(metrics.failures["truncated"], (1, "cut".to_owned()));
    assert_eq!(metrics.latencies.sent_ttft.len(), 1);
    assert_eq!(metrics.counts.output_tokens, 5);
    assert_eq!(metrics.latencies.dispatch_delay.len(), 4);
}

#[test]
fn throughput_is_over_the_time_from_first_sending_to_last_end() {
    let mut metrics = Metrics::new(Targets::default()).expect("bounds");
    metrics.add(&RequestRecord { sent_us: 1_000_000, done_us: 2_000_000, ..streamed() });
    metrics.add(&RequestRecord { sent_us: 500_000, done_us: 2_500_000, ..streamed() });
    assert_eq!(metrics.span_s(), 2.0);
    assert_eq!(metrics.per_second(metrics.counts.output_tokens), 5.0);
    assert_eq!((metrics.counts.prompt_tokens, metrics.counts.cached_prompt_tokens), (24, 16));
}

#[test]
fn nothing_measured_is_no_division_by_zero() {
    let metrics = Metrics::new(Targets::default()).expect("bounds");
    assert_eq!((metrics.span_s(), metrics.per_second(5)), (0.0, 0.0));
}

#[test]
fn finish_reasons_are_bounded() {
    let mut metrics = Metrics::new(Targets::default()).expect("bounds");
    for index in 0..100 {
        metrics.add(&RequestRecord { finish_reason: Some(format!("reason-{index}")), ..streamed() });
    }
    assert_eq!(metrics.finish_reasons.len(), Metrics::FINISH_REASONS_MAX + 1);
    assert_eq!(metrics.finish_reasons["other"], 100 - Metrics::FINISH_REASONS_MAX as u64);
}

#[test]
fn short_and_empty_answers_are_counted() {
    let mut metrics = Metrics::new(Targets::default()).expect("bounds");
    metrics.add(&streamed());
    metrics.add(&RequestRecord { max_tokens: 6, ..streamed() });
    let usage = Usage { completion_tokens: 0, ..Usage::default() };
    metrics.add(&RequestRecord {
        usage: Some(usage),
        chunks: Vec::new(),
        first_token_us: None,
        ..streamed()
    });
    assert_eq!((metrics.counts.short, metrics.counts.empty), (2, 1));
}

proptest! {
    #[test]
    fn gaps_are_one_fewer_than_tokens_and_sum_to_the_time_between_first_and_last(
        arrivals in prop::collection::vec((0_u64..100_000, 1_u32..9), 1..40),
    ) {
        let mut at_us = 0;
        let chunks: Vec<Chunk> =
            arrivals.iter().map(|(gap_us, tokens)| { at_us += gap_us; Chunk { at_us, tokens: *tokens } }).collect();
        let (mut count, mut sum_us) = (0, 0);
        for (_, gap_us, gaps) in inter_token_gaps(&chunks) {
            count += gaps;
            sum_us += gap_us * gaps;
        }
        let tokens: u64 = chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        prop_assert_eq!(count, tokens - 1);
        prop_assert_eq!(sum_us, chunks[chunks.len() - 1].at_us - chunks[0].at_us);
    }
}
