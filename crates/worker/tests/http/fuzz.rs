//! Requests that went wrong on the way.

use futures::stream::{self, StreamExt as _};
use http::Method;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::support::{CHAT, COMPLETIONS, Server, chat, completion, events, streamed};

const NUM_BODIES: usize = 300;

/// One accident.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Delete(Index, usize),
    Repeat(Index, usize),
    Insert(Index, Vec<u8>),
    Field(Index, Value),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let odd_values = prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("x"),
        json!("\u{0}"),
        json!("tiny"),
        json!([]),
        json!([[]]),
        json!([1, 2]),
        json!(["x"]),
        json!({}),
        json!({"type": "text"}),
        json!({"1": -100}),
        json!([{"role": "user", "content": "x"}]),
        json!([{"role": "assistant"}]),
        json!([null]),
        json!("<|im_end|>"),
        json!("🦀".repeat(50)),
    ]);
    let tokens = prop::sample::select(vec![
        &b"\""[..],
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e999",
        b"-",
        b"\\u0000",
        b"\\ud83d",
        b"\xff",
        b"\0",
    ]);
    let mutation = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (any::<Index>(), 1_usize..20).prop_map(|(at, len)| Mutation::Delete(at, len)),
        (any::<Index>(), 1_usize..200).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        (any::<Index>(), tokens).prop_map(|(at, token)| Mutation::Insert(at, token.to_vec())),
        (any::<Index>(), odd_values.clone()).prop_map(|(at, value)| Mutation::Field(at, value)),
        (any::<Index>(), odd_values).prop_map(|(at, value)| Mutation::Field(at, value)),
    ];
    prop::collection::vec(mutation, 1..4)
}

/// A request that says something about every field.
fn seeds() -> [(&'static str, Value); 4] {
    let fields = json!({
        "seed": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "stop": ["\n\n", "END"],
        "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5, "n": 2,
        "logit_bias": {"65": 5, "66": -5}, "return_token_ids": true, "priority": 1, "cache_salt": "s",
        "user": "u", "ignore_eos": false, "max_completion_tokens": 6, "tools": [], "response_format": {"type": "text"},
    });
    let stream = json!({"stream_options": {"include_usage": true}});
    let streaming = |body| streamed(crate::support::merged(body, stream.clone()));
    let scored_chat = json!({"logprobs": true, "top_logprobs": 2, "chat_template_kwargs": {"x": 1}});
    let scored_text = json!({"logprobs": 2, "prompt": ["one", "two"], "add_special_tokens": false});
    let chat = chat(crate::support::merged(fields.clone(), scored_chat));
    let text = completion(crate::support::merged(fields, scored_text));
    [
        (CHAT, chat.clone()),
        (CHAT, streaming(chat)),
        (COMPLETIONS, crate::support::merged(text.clone(), json!({"prompt_logprobs": 1}))),
        (COMPLETIONS, streaming(text)),
    ]
}

fn mutated(seed: &Value, mutations: &[Mutation]) -> Vec<u8> {
    let mut body = seed.clone();
    for mutation in mutations {
        if let (Mutation::Field(at, value), Some(fields)) = (mutation, body.as_object_mut()) {
            let name = at.get(&fields.keys().cloned().collect::<Vec<_>>()).clone();
            fields.insert(name, value.clone());
        }
    }
    let mut bytes = body.to_string().into_bytes();
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        let place = |at: &Index, len: usize| {
            let start = at.index(bytes.len());
            start..(start + len).min(bytes.len())
        };
        match mutation {
            Mutation::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Mutation::Delete(at, len) => {
                let place = place(at, *len);
                bytes.drain(place);
            }
            Mutation::Repeat(at, len) => {
                let place = place(at, *len);
                let piece = bytes[place.clone()].to_vec();
                bytes.splice(place.end..place.end, piece);
            }
            Mutation::Insert(at, token) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, token.iter().copied());
            }
            Mutation::Field(..) => {}
        }
    }
    bytes
}

#[tokio::test]
async fn no_body_however_mangled_makes_a_worker_fail_or_hang() {
    let server = Server::start().await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = mutations();
    let seeds = seeds();
    for (path, seed) in &seeds {
        assert_eq!(server.post(path, seed).await.status, 200, "the request that is mangled is a good one");
    }
    let bodies: Vec<(&str, Vec<u8>)> = (0..NUM_BODIES)
        .map(|number| {
            let (path, seed) = &seeds[number % seeds.len()];
            let mutations = strategy.new_tree(&mut runner).expect("a value").current();
            (*path, mutated(seed, &mutations))
        })
        .collect();
    let server = &server;
    let statuses: Vec<u16> = stream::iter(bodies)
        .map(|(path, body)| async move {
            let reply = server.send(Method::POST, path, body.clone()).await;
            let shown = String::from_utf8_lossy(&body);
            match reply.status {
                200 if reply.header("content-type").starts_with("text/event-stream") => {
                    assert!(events(reply.text()).1, "{shown}: {reply:?}");
                }
                200 => assert!(reply.json()["choices"].is_array(), "{shown}: {reply:?}"),
                400 | 404 => drop(reply.error()),
                other => panic!("{other} for {shown}: {reply:?}"),
            }
            reply.status
        })
        .buffer_unordered(8)
        .collect()
        .await;
    for status in [200, 400] {
        let count = statuses.iter().filter(|other| **other == status).count();
        assert!(count >= NUM_BODIES / 20, "only {count} of {NUM_BODIES} were answered with {status}");
    }
    let load = server.until(|load| load.num_requests_running == 0).await;
    assert!(load.ready && load.num_requests_waiting == 0);
}
