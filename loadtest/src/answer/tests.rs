use proptest::prelude::*;
use serde_json::json;

use super::settle::Spread;
use super::*;

fn event(value: serde_json::Value) -> String {
    protocol::sse::event(&value.to_string())
}

fn text(content: &str) -> String {
    event(json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]}))
}

fn end(reason: &str) -> String {
    event(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

fn usage(completion_tokens: u32) -> String {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": completion_tokens, "total_tokens": 9 + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 4}});
    event(json!({"choices": [], "usage": usage}))
}

/// Reads the pieces at 10, 20, 30, … µs.
fn read(pieces: &[String]) -> Answer {
    let mut answer = Answer::default();
    for (index, piece) in pieces.iter().enumerate() {
        answer.take_stream(piece.as_bytes(), 10 * (index as u64 + 1)).expect("readable");
    }
    answer
}

fn done() -> String {
    protocol::sse::event(DONE)
}

fn tokens(settled: &Settled) -> Vec<(u64, u32)> {
    settled.chunks.iter().map(|chunk| (chunk.at_us, chunk.tokens)).collect()
}

fn settled(pieces: &[String]) -> Settled {
    read(pieces).settle()
}

/// With its text and hash kept.
fn kept(pieces: &[String], whole: Option<serde_json::Value>) -> Settled {
    let mut answer = Answer::new(Wanted { hash: true, text: true });
    for piece in pieces {
        answer.take_stream(piece.as_bytes(), 1).expect("readable");
    }
    if let Some(body) = whole {
        answer.take_whole(body.to_string().as_bytes()).expect("whole");
    }
    answer.settle()
}

#[test]
fn a_chunk_with_only_a_role_is_no_token() {
    let role =
        event(json!({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}));
    let null = event(json!({"choices": [{"delta": {"role": "assistant", "content": null}}]}));
    let answer = settled(&[role, null, text("a"), end("stop"), done()]);
    assert_eq!(tokens(&answer), [(30, 1)]);
    assert_eq!(answer.token_basis, TokenBasis::Assumed);
}

#[test]
fn usage_is_spread_over_chunks_one_each_and_the_rest_by_length() {
    let answer = settled(&[text("a"), text("bb cc dd"), text("e"), end("stop"), usage(5), done()]);
    assert_eq!(tokens(&answer), [(10, 1), (20, 2), (30, 2)]);
    assert_eq!(answer.token_basis, TokenBasis::Usage);
    let expected = Usage { prompt_tokens: 9, cached_prompt_tokens: 4, completion_tokens: 5 };
    assert_eq!(answer.usage, Some(expected));
}

#[test]
fn token_ids_say_what_each_chunk_brought_and_textless_ones_count_with_the_next_text() {
    let ids = |content: &str, ids: &[u32]| {
        event(json!({"choices": [{"delta": {"content": content}, "token_ids": ids}]}))
    };
    let last =
        event(json!({"choices": [{"delta": {"content": ""}, "token_ids": [2], "finish_reason": "stop"}]}));
    let answer = settled(&[ids("", &[7]), ids("é", &[8]), ids("xyz", &[9, 10, 11]), last, usage(6), done()]);
    assert_eq!(tokens(&answer), [(20, 2), (30, 4)]);
    assert_eq!(answer.token_basis, TokenBasis::PerChunk);
}

#[test]
fn running_usage_says_what_each_chunk_brought() {
    let running = |content: &str, so_far: u32| {
        event(json!({"choices": [{"delta": {"content": content}}], "usage": {"completion_tokens": so_far}}))
    };
    let answer = settled(&[running("", 0), running("ab", 3), running("c", 4), end("length"), done()]);
    assert_eq!(tokens(&answer), [(20, 3), (30, 1)]);
    assert_eq!(answer.token_basis, TokenBasis::PerChunk);
}

#[test]
fn reasoning_is_text_too() {
    let thought = event(json!({"choices": [{"delta": {"reasoning_content": "hm"}}]}));
    assert_eq!(tokens(&settled(&[thought, text("a")])), [(10, 1), (20, 1)]);
}

#[test]
fn a_stream_without_its_end_mark_or_without_a_finish_reason_is_truncated() {
    let kind = |pieces: &[String]| {
        read(pieces).check_stream_end("text/event-stream").map_err(|failure| failure.kind)
    };
    assert_eq!(kind(&[text("a"), end("stop"), done()]), Ok(()));
    assert_eq!(kind(&[text("a"), end("stop")]), Err(FailureKind::Truncated));
    assert_eq!(kind(&[text("a"), done()]), Err(FailureKind::Truncated));
    assert_eq!(kind(&[]), Err(FailureKind::Truncated));
}

#[test]
fn an_error_event_fails_the_stream_with_its_message() {
    let error = event(json!({"error": {"message": "worker\nlost", "type": "server_error"}}));
    let failure = Answer::default().take_stream(error.as_bytes(), 1).expect_err("an error");
    assert_eq!(failure, Failure { kind: FailureKind::StreamError, example: "worker lost".into() });
}

#[test]
fn what_is_no_json_is_a_bad_answer() {
    let failure = Answer::default().take_stream(b"data: <html>\n\n", 1).expect_err("no json");
    assert_eq!(failure.kind, FailureKind::BadAnswer);
    assert!(failure.example.contains("<html>"), "{}", failure.example);
}

#[test]
fn a_whole_answer_is_truncated_without_a_finish_reason() {
    let whole = |reason: serde_json::Value| {
        let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
        let mut answer = Answer::default();
        answer
            .take_whole(body.to_string().as_bytes())
            .map(|()| answer.settle().usage.map(|usage| usage.completion_tokens))
    };
    assert_eq!(whole(json!("length")), Ok(Some(2)));
    assert_eq!(whole(json!(null)).map_err(|failure| failure.kind), Err(FailureKind::Truncated));
}

#[test]
fn a_streamed_and_a_whole_answer_of_one_text_have_one_hash_and_one_text() {
    let thought = event(json!({"choices": [{"delta": {"reasoning_content": "hm"}}]}));
    let streamed = kept(&[thought, text("a \"quoted\n"), text("word"), end("stop"), done()], None);
    let message = json!({"content": "a \"quoted\nword", "reasoning_content": "hm"});
    let whole = kept(&[], Some(json!({"choices": [{"message": message.clone(), "finish_reason": "stop"}]})));
    assert_eq!(streamed.text.as_deref(), Some("a \"quoted\nword"));
    assert_eq!((streamed.text, streamed.hash), (whole.text, whole.hash));
    assert!(settled(&[text("a"), done()]).hash.is_none(), "what nobody wants is not kept");
}

#[test]
fn a_second_choice_is_not_read() {
    let two = event(json!({"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "bcd"}}]}));
    assert_eq!(kept(&[two], None).text.as_deref(), Some("a"));
}

proptest! {
    #[test]
    fn spreading_loses_no_token_and_leaves_no_chunk_empty_that_need_not_be(
        total in 0_u32..10_000, text_bytes in prop::collection::vec(1_usize..100, 1..50),
    ) {
        let mut spread = Spread::new(total, text_bytes.iter().copied());
        let tokens: Vec<u32> = text_bytes.iter().map(|bytes| spread.next(*bytes)).collect();
        prop_assert_eq!(tokens.iter().sum::<u32>(), total);
        if total as usize >= text_bytes.len() {
            prop_assert!(tokens.iter().all(|tokens| *tokens >= 1));
        } else {
            prop_assert!(tokens.iter().all(|tokens| *tokens <= 1));
        }
    }
}
