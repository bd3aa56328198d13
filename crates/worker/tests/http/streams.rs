//! Server-sent events: their framing, their order, and that they say what whole answers say.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Server, text_of};

#[tokio::test]
async fn a_chat_stream_is_a_role_then_text_then_a_reason_and_nothing_else() {
    let server = Server::start().await;
    let events = server.chat_events(json!({"logit_bias": crate::support::letters()})).await;
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["model"], "tiny");
        assert_eq!(event["system_fingerprint"], "v1");
        assert_eq!((&event["id"], &event["created"]), (&events[0]["id"], &events[0]["created"]));
        assert!(event.get("usage").is_none(), "usage was not asked for: {event}");
        assert_eq!(event["choices"].as_array().map(Vec::len), Some(1));
        assert!(event["choices"][0].get("finish_reason").is_some(), "present even when null");
    }
    let choices: Vec<&Value> = events.iter().map(|event| &event["choices"][0]).collect();
    assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
    let (last, rest) = choices.split_last().expect("chunks");
    assert_eq!(last["finish_reason"], "length");
    assert_eq!(last["delta"], json!({}));
    for choice in rest {
        assert!(choice["finish_reason"].is_null());
    }
    for choice in &rest[1..] {
        assert!(choice["delta"].get("role").is_none(), "the role comes once");
        assert_eq!(choice["delta"]["content"].as_str().map(str::len), Some(1), "a letter a token");
    }
    assert_eq!(rest.len(), 1 + 8);
}

#[tokio::test]
async fn a_completion_stream_is_text_then_a_reason() {
    let server = Server::start().await;
    let events = server.completion_events(json!({"logit_bias": crate::support::letters()})).await;
    let (last, rest) = events.split_last().expect("chunks");
    for event in &events {
        assert_eq!(event["object"], "text_completion");
        assert!(event.get("usage").is_none());
    }
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(rest.len(), 8);
    assert!(rest.iter().all(|event| event["choices"][0]["finish_reason"].is_null()));
}

#[tokio::test]
async fn usage_comes_when_asked_for_in_one_last_event_without_choices() {
    let server = Server::start().await;
    let asked = json!({"seed": 1, "n": 2, "stream_options": {"include_usage": true}});
    for (events, whole) in [
        (server.chat_events(asked.clone()).await, server.chat(json!({"seed": 1, "n": 2})).await),
        (server.completion_events(asked).await, server.complete(json!({"seed": 1, "n": 2})).await),
    ] {
        let (last, rest) = events.split_last().expect("events");
        assert_eq!(last["choices"], json!([]));
        assert!(rest.iter().all(|event| event.get("usage").is_none()));
        for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(last["usage"][field], whole["usage"][field], "{field}");
        }
        assert_eq!(last["usage"]["completion_tokens"], 16);
    }
    for off in [json!({"include_usage": false}), json!({}), Value::Null] {
        let events = server.chat_events(json!({"stream_options": off})).await;
        assert!(events.iter().all(|event| event.get("usage").is_none()));
    }
}

#[tokio::test]
async fn streams_joined_say_what_the_whole_answer_says() {
    let server = Server::start().await;
    for seed in 0..6 {
        // Random bytes: half of them are parts of characters that never come.
        let fields = json!({"seed": seed, "max_tokens": 40, "n": 2});
        let whole = server.chat(fields.clone()).await;
        let events = server.chat_events(fields.clone()).await;
        for index in 0..2 {
            let expected = &whole["choices"][index as usize]["message"]["content"];
            assert_eq!(text_of(&events, index), *expected, "chat, seed {seed}");
        }
        let whole = server.complete(fields.clone()).await;
        let events = server.completion_events(fields).await;
        for index in 0..2 {
            let expected = &whole["choices"][index as usize]["text"];
            assert_eq!(text_of(&events, index), *expected, "completion, seed {seed}");
        }
    }
}

#[tokio::test]
async fn answers_of_one_stream_come_together_and_each_opens_and_ends_once() {
    let server = Server::start().await;
    let events = server.chat_events(json!({"n": 4, "max_tokens": 20})).await;
    for index in 0..4 {
        let own: Vec<&Value> = events.iter().filter(|event| event["choices"][0]["index"] == index).collect();
        assert_eq!(own[0]["choices"][0]["delta"]["role"], "assistant");
        let ends = |event: &&&Value| !event["choices"][0]["finish_reason"].is_null();
        assert_eq!(own.iter().filter(ends).count(), 1);
        assert_eq!(own.last().expect("chunks")["choices"][0]["finish_reason"], "length");
    }
    let indices = events.iter().map(|event| event["choices"][0]["index"].as_u64().expect("an index"));
    let order: Vec<u64> = indices.collect();
    assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (0..4).collect());
    assert!(!order.is_sorted(), "they are generated in one batch, so they come side by side: {order:?}");
}
