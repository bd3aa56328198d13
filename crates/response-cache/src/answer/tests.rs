use proptest::prelude::*;
use protocol::{ChatChunk, ChatCompletion, Completion, FinishReason};
use serde_json::{Value, json};

use super::*;

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("valid JSON")
}

fn refused(answer: Result<CachedAnswer, Error>) -> String {
    answer.expect_err("must be refused").to_string()
}

fn chat_chunk(choices: &Value) -> String {
    json!({"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m",
        "system_fingerprint": "fp", "choices": choices})
    .to_string()
}

fn usage_event(endpoint: Endpoint) -> String {
    let object = if endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
    json!({"id": "chatcmpl-7", "object": object, "created": 1_700_000_000, "model": "m", "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}})
    .to_string()
}

/// The pieces of one choice: text with the ids and log-likelihoods of its tokens.
#[derive(Clone, Debug)]
struct Piece {
    text: String,
    token_ids: Vec<u32>,
}

fn any_choices() -> impl Strategy<Value = Vec<Vec<Piece>>> {
    let piece = ("[ -~é\n\"\\\\🦀]{0,6}", prop::collection::vec(any::<u32>(), 0..3))
        .prop_map(|(text, token_ids)| Piece { text, token_ids });
    prop::collection::vec(prop::collection::vec(piece, 0..5), 1..4)
}

fn logprobs(endpoint: Endpoint, piece: &Piece) -> Value {
    match endpoint {
        Endpoint::Chat => {
            let of = |id: &u32| json!({"token": id.to_string(), "logprob": -0.25, "bytes": null, "top_logprobs": []});
            json!({"content": piece.token_ids.iter().map(of).collect::<Vec<_>>()})
        }
        Endpoint::Completion => json!({
            "text_offset": piece.token_ids, "tokens": piece.token_ids.iter().map(u32::to_string).collect::<Vec<_>>(),
            "token_logprobs": piece.token_ids.iter().map(|_| -0.5).collect::<Vec<_>>(),
            "top_logprobs": piece.token_ids.iter().map(|_| Value::Null).collect::<Vec<_>>(),
        }),
    }
}

/// A stream as our worker would send it, choices interleaved.
fn stream(endpoint: Endpoint, choices: &[Vec<Piece>]) -> Vec<String> {
    let chat = endpoint == Endpoint::Chat;
    let chunk = |choice: Value| {
        let mut chunk = parse(chat_chunk(&json!([choice])).as_bytes());
        chunk["object"] = json!(if chat { "chat.completion.chunk" } else { "text_completion" });
        chunk.to_string()
    };
    let mut events = Vec::new();
    if chat {
        let start = |index| {
            chunk(json!({"index": index, "delta": {"role": "assistant", "content": ""},
            "logprobs": null, "finish_reason": null}))
        };
        events.extend((0..choices.len()).map(start));
    }
    for at in 0..5 {
        for (index, pieces) in choices.iter().enumerate() {
            let Some(piece) = pieces.get(at) else { continue };
            let mut choice = json!({"index": index, "logprobs": logprobs(endpoint, piece), "finish_reason": null,
                "token_ids": piece.token_ids});
            if chat {
                choice["delta"] = json!({"content": piece.text});
            } else {
                choice["text"] = json!(piece.text);
            }
            events.push(chunk(choice));
        }
    }
    for index in 0..choices.len() {
        let mut choice = json!({"index": index, "logprobs": null, "finish_reason": "stop"});
        choice[if chat { "delta" } else { "text" }] = if chat { json!({}) } else { json!("") };
        events.push(chunk(choice));
    }
    events
}

fn text_of(endpoint: Endpoint, choice: &Value) -> &Value {
    if endpoint == Endpoint::Chat { &choice["message"]["content"] } else { &choice["text"] }
}

proptest! {
    #[test]
    fn a_stream_becomes_a_body_with_the_same_text_ids_logprobs_and_usage(choices in any_choices(), chat in any::<bool>()) {
        let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completion };
        let (events, usage) = (stream(endpoint, &choices), usage_event(endpoint));
        let answer = CachedAnswer::from_events(endpoint, &events, Some(usage.as_bytes())).expect("complete");
        let body = parse(&answer.json());

        prop_assert_eq!(&body["id"], "chatcmpl-7");
        prop_assert_eq!(&body["created"], 1_700_000_000);
        prop_assert_eq!(&body["usage"]["total_tokens"], 5);
        prop_assert_eq!(body["choices"].as_array().expect("a list").len(), choices.len());
        for (index, pieces) in choices.iter().enumerate() {
            let choice = &body["choices"][index];
            let text: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
            prop_assert_eq!(text_of(endpoint, choice), &json!(text));
            prop_assert_eq!(&choice["finish_reason"], "stop");
            if !pieces.is_empty() {
                let ids: Vec<u32> = pieces.iter().flat_map(|piece| piece.token_ids.clone()).collect();
                prop_assert_eq!(&choice["token_ids"], &json!(ids));
                let all = logprobs(endpoint, &Piece { text, token_ids: ids });
                prop_assert_eq!(&choice["logprobs"], &all);
            }
        }
        // Our own clients' types read it.
        if chat {
            serde_json::from_slice::<ChatCompletion>(&answer.json()).expect("a chat completion");
        } else {
            serde_json::from_slice::<Completion>(&answer.json()).expect("a completion");
        }
    }

    #[test]
    fn a_body_split_into_a_stream_and_put_together_again_is_the_same_answer(choices in any_choices(), chat in any::<bool>()) {
        let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completion };
        let (events, usage) = (stream(endpoint, &choices), usage_event(endpoint));
        let body = CachedAnswer::from_events(endpoint, &events, Some(usage.as_bytes())).expect("complete").json();

        let whole = CachedAnswer::from_json(endpoint, &body).expect("complete");
        let split = whole.events(false);
        let usage = whole.usage_event().expect("the body has usage");
        let again = CachedAnswer::from_events(endpoint, &split, Some(&usage)).expect("complete");
        prop_assert_eq!(parse(&again.json()), parse(&body));
        for event in split.iter().chain([&usage]) {
            prop_assert!(!event.contains(&b'\n'), "an event is one line");
            if chat {
                serde_json::from_slice::<ChatChunk>(event).expect("a chunk");
            } else {
                serde_json::from_slice::<Completion>(event).expect("a chunk");
            }
        }
    }

    #[test]
    fn replay_in_the_first_form_is_byte_by_byte(choices in any_choices(), chat in any::<bool>()) {
        let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completion };
        let (events, usage) = (stream(endpoint, &choices), usage_event(endpoint));
        let answer = CachedAnswer::from_events(endpoint, &events, Some(usage.as_bytes())).expect("complete");
        prop_assert_eq!(answer.events(false), events.clone());
        prop_assert_eq!(answer.events(true), events.into_iter().chain([usage]).collect::<Vec<_>>());
        let body = answer.json();
        prop_assert_eq!(CachedAnswer::from_json(endpoint, &body).expect("complete").json(), body);
    }

    #[test]
    fn a_stream_that_broke_off_is_never_an_answer(choices in any_choices(), cut in any::<prop::sample::Index>()) {
        let events = stream(Endpoint::Chat, &choices);
        let cut = cut.index(events.len());
        let answer = CachedAnswer::from_events(Endpoint::Chat, &events[..cut], None);
        prop_assert!(matches!(answer, Err(Error::Incomplete(_))), "{answer:?}");
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[\\[\\]{}\":,a-z0-9]{0,60}") {
        for endpoint in [Endpoint::Chat, Endpoint::Completion] {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                prop_assert!(CachedAnswer::from_json(endpoint, bytes).is_err());
                prop_assert!(CachedAnswer::from_events(endpoint, &[bytes], None).is_err());
            }
        }
    }
}

#[test]
fn values_keep_the_digits_and_fields_that_the_worker_gave_them() {
    let event = r#"{"id":"a","created":1,"weird":[1.10,2e0],"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"logprob":-0.123456789012345678}]},"finish_reason":"stop","stop_reason":7}]}"#;
    let answer = CachedAnswer::from_events(Endpoint::Chat, &[event], None).expect("complete");
    let body = String::from_utf8(answer.json().to_vec()).expect("text");
    for part in [r#""weird":[1.10,2e0]"#, "-0.123456789012345678", r#""stop_reason":7"#, r#""usage":null"#] {
        assert!(body.contains(part), "{part} in {body}");
    }
    let whole = CachedAnswer::from_json(Endpoint::Chat, &body).expect("complete");
    let events = whole.events(true);
    assert_eq!(events.len(), 3, "a role, the text, the end; no usage is known");
    let all: String = events.iter().map(|event| String::from_utf8_lossy(event).into_owned()).collect();
    for part in [r#""weird":[1.10,2e0]"#, "-0.123456789012345678", r#""stop_reason":7"#] {
        assert_eq!(all.matches(part).count(), 1, "{part} in {all}");
    }
}

#[test]
fn a_body_is_streamed_as_role_text_end_and_usage() {
    let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi\nthere", "refusal": null},
            "logprobs": null, "finish_reason": "length", "token_ids": [4, 5]}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    // Pretty-printed, as some servers do: an event is one line all the same.
    let body = serde_json::to_string_pretty(&body).expect("serializes");
    let answer = CachedAnswer::from_json(Endpoint::Chat, body).expect("complete");
    let events = answer.events(true);
    let chunks: Vec<ChatChunk> =
        events.iter().map(|event| serde_json::from_slice(event).expect("a chunk")).collect();
    assert_eq!(chunks.len(), 4);
    assert!(chunks.iter().all(|chunk| chunk.id == "chatcmpl-1" && chunk.created == 5));
    assert_eq!(chunks[0].choices[0].delta.role.as_deref(), Some("assistant"));
    assert_eq!(chunks[1].choices[0].delta.content.as_deref(), Some("hi\nthere"));
    assert_eq!(chunks[1].choices[0].token_ids, Some(vec![4, 5]));
    assert_eq!(chunks[2].choices[0].finish_reason, Some(FinishReason::Length));
    assert_eq!(chunks[3].usage.map(|usage| usage.total_tokens), Some(3));
    assert!(events.iter().all(|event| !event.contains(&b'\n')));
    assert_eq!(answer.events(false).len(), 3);
}

#[test]
fn an_answer_without_an_end_of_its_own_is_incomplete() {
    let chunk = |index: u32, end: &Value| {
        chat_chunk(&json!([{"index": index, "delta": {"content": "x"}, "finish_reason": end}]))
    };
    let stop = json!("stop");
    let of = |events: &[String]| refused(CachedAnswer::from_events(Endpoint::Chat, events, None));
    assert!(of(&[chunk(0, &stop), chunk(1, &Value::Null)]).contains("choice 1 has no finish_reason"));
    assert!(of(&[chunk(1, &stop)]).contains("a choice is missing"));
    assert!(of(&[chunk(0, &json!("abort"))]).contains("did not end by itself"));
    assert!(of(&[]).contains("no choices"));
    let body = json!({"choices": [{"index": 0, "text": "x", "finish_reason": null}]}).to_string();
    assert!(refused(CachedAnswer::from_json(Endpoint::Completion, body)).contains("no finish_reason"));
}

#[test]
fn an_error_or_another_shape_is_malformed() {
    let error = json!({"error": {"message": "no"}}).to_string();
    let of = |body: &str| refused(CachedAnswer::from_json(Endpoint::Chat, body));
    assert!(of(&error).contains("`choices` should be a list"));
    assert!(of("[]").contains("should be a JSON object"));
    let twice =
        r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"a","\u0063ontent":"b"}}]}"#;
    assert!(of(twice).contains("`message` should be a JSON object with each name once"));
    assert!(of(r#"{"choices":[{"index":0,"finish_reason":"stop","text":"x"}]}"#).contains("`message`"));
    assert!(
        of(r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"content":7}}]}"#)
            .contains("`content`")
    );
    let events = [chat_chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])), error];
    assert!(refused(CachedAnswer::from_events(Endpoint::Chat, &events, None)).contains("`choices`"));
    let usage = CachedAnswer::from_events(Endpoint::Chat, &events[..1], Some(b"{\"choices\":[]}"));
    assert!(refused(usage).contains("`usage`"));
}

#[test]
fn what_has_no_faithful_replay_in_both_forms_is_not_kept() {
    let call = json!([{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]);
    let event =
        chat_chunk(&json!([{"index": 0, "delta": {"tool_calls": call}, "finish_reason": "tool_calls"}]));
    assert!(refused(CachedAnswer::from_events(Endpoint::Chat, &[event], None)).contains("delta.tool_calls"));
    let body = json!({"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": call},
        "finish_reason": "tool_calls"}]});
    assert!(refused(CachedAnswer::from_json(Endpoint::Chat, body.to_string())).contains("tool_calls"));
    let changing =
        |value| chat_chunk(&json!([{"index": 0, "delta": {}, "new": value, "finish_reason": "stop"}]));
    let events = [changing(1), changing(2)];
    assert!(refused(CachedAnswer::from_events(Endpoint::Chat, &events, None)).contains("`new`"));
}

#[test]
fn a_kept_answer_does_not_pin_the_buffers_it_came_in() {
    let network = Bytes::from(format!(
        "{}{}",
        " ".repeat(1 << 16),
        chat_chunk(&json!([
        {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]))
    ));
    let event = network.slice(1 << 16..);
    let answer =
        CachedAnswer::from_events(Endpoint::Chat, std::slice::from_ref(&event), None).expect("complete");
    assert_eq!(answer.events(false), std::slice::from_ref(&event));
    drop(event);
    assert!(network.is_unique(), "nobody else holds the network's buffer");
    assert!(answer.memory_bytes() < 2000, "{}", answer.memory_bytes());
}
