//! Bodies that no client should send.

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tests::{Api, Launch, Random, Tenk, TinyModel};

const BODIES: usize = 500;
const PATHS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"];
/// Stands for one of [`RAW`], which no JSON value can hold.
const PLACEHOLDER: &str = "@raw@";
const RAW: [&str; 9] = [
    "1e400",
    "-0",
    "1e-400",
    "18446744073709551616",
    "NaN",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "01",
    "99999999999999999999.5",
];

fn good() -> Vec<Value> {
    vec![
        json!({
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "me"},
            ],
            "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "n": 2,
            "stop": ["x", "yz"], "logprobs": true, "top_logprobs": 2, "logit_bias": {"5": 1.5}, "user": "me",
            "frequency_penalty": 0.5, "presence_penalty": 0.5, "repetition_penalty": 1.1,
        }),
        json!({
            "model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 4,
            "stream": true, "stream_options": {"include_usage": true}, "priority": 1, "cache_salt": "x",
            "chat_template_kwargs": {"a": {"b": [1]}}, "add_generation_prompt": true, "temperature": 0,
        }),
        json!({
            "model": "tiny", "prompt": ["one", "two"], "max_tokens": 4, "logprobs": 2, "stop": "x", "stream": true,
            "ignore_eos": true, "return_token_ids": true,
        }),
        json!({"model": "tiny", "prompt": [72, 105], "max_tokens": 4, "prompt_logprobs": 1, "temperature": 0}),
        json!({"model": "tiny", "prompt": "hello", "add_special_tokens": true}),
        json!({"model": "tiny", "tokens": [72, 105]}),
    ]
}

/// A path and a body of one of ten kinds of wrong, or of none.
fn malformed(random: &mut Random) -> (&'static str, Vec<u8>) {
    let path = *random.pick(&PATHS);
    let mut value = random.pick(&good()).clone();
    let text = value.to_string().into_bytes();
    let body = match random.below(10) {
        0 => flipped(text, random),
        1 => text[..random.below(text.len())].to_vec(),
        2 => inserted(text, random),
        3 => (0..random.below(400)).map(|_| random.bits() as u8).collect(),
        4 => nested(&mut value, random),
        5 => [&b"{\"model\":\"tiny\",\"model\":7,\"stream\":true,\"stream\":false,"[..], &text[1..]].concat(),
        6 => {
            let other = random.pick(&good()).to_string().into_bytes();
            [&text[..random.below(text.len())], &other[random.below(other.len())..]].concat()
        }
        _ => {
            for _ in 0..=random.below(2) {
                replace(&mut value, random);
            }
            let raw = random.pick(&RAW);
            value.to_string().replace(&format!("\"{PLACEHOLDER}\""), raw).into_bytes()
        }
    };
    (path, body)
}

fn flipped(mut text: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        let at = random.below(text.len());
        text[at] ^= 1 << random.below(8);
    }
    text
}

fn inserted(mut text: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        let at = random.below(text.len());
        text.insert(at, random.bits() as u8);
    }
    text
}

/// Far deeper than any reader should follow, alone or in a field.
fn nested(value: &mut Value, random: &mut Random) -> Vec<u8> {
    let depth = *random.pick(&[100, 127, 128, 1_000, 100_000]);
    let (open, close) = *random.pick(&[("[", "]"), ("{\"a\":", "}")]);
    let closed = random.below(2) == 0;
    let deep = format!("{}1{}", open.repeat(depth), if closed { close.repeat(depth) } else { String::new() });
    if random.below(3) == 0 {
        return deep.into_bytes();
    }
    let fields = ["messages", "chat_template_kwargs", "stop", "metadata", "prompt", "tools"];
    value[*random.pick(&fields)] = PLACEHOLDER.into();
    value.to_string().replace(&format!("\"{PLACEHOLDER}\""), &deep).into_bytes()
}

/// Puts something of another type or size in some place, or takes it away.
fn replace(value: &mut Value, random: &mut Random) {
    let go_on = random.below(3) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let key = random.pick(&keys);
            if random.below(6) == 0 {
                fields.remove(key);
            } else if let Some(field) = fields.get_mut(key) {
                replace(field, random);
            }
        }
        Value::Array(items) if go_on && !items.is_empty() => {
            let at = random.below(items.len());
            replace(&mut items[at], random);
        }
        _ => {
            let others = [
                Value::Null,
                json!(true),
                json!(-1),
                json!(0),
                json!(1e300),
                json!(4_294_967_296_u64),
                json!(0.5),
                json!(""),
                json!("x"),
                json!("x".repeat(20_000)),
                json!([]),
                json!({}),
                json!([[[]]]),
                json!({"a": 1}),
                json!([null]),
                json!(vec![1; 5_000]),
                json!("\u{0}\u{ffff}🦀"),
                json!(PLACEHOLDER),
                json!("<|im_end|>"),
                json!(i64::MIN),
            ];
            *value = random.pick(&others).clone();
        }
    }
}

/// Whether the body was accepted.
async fn send(api: &Api, path: &str, body: Vec<u8>) -> Result<bool> {
    let reply = api.post_bytes(path, body).await?;
    let (status, text) = (reply.status, reply.text());
    if status == 200 {
        let streamed = reply.header("content-type").starts_with("text/event-stream");
        ensure!(!streamed || text.ends_with("data: [DONE]\n\n"), "{text}");
        return Ok(true);
    }
    ensure!((400..500).contains(&status), "status {status}: {text}");
    let error = &reply.json()["error"];
    ensure!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
    ensure!(error["type"].is_string() && error.get("param").is_some(), "{text}");
    Ok(false)
}

#[tokio::test]
async fn five_hundred_malformed_bodies_get_no_5xx_and_no_hang_and_the_gateway_goes_on() {
    let model = TinyModel::new().expect("a model");
    let mut worker = Tenk::worker(&model.path()).await.expect("a worker");
    let mut gateway = Launch::gateway([&worker]).start().await.expect("a gateway");
    gateway.ready().await.expect("ready");
    let api = gateway.api();

    let mut random = Random::new(1);
    let bodies: Vec<_> = (0..BODIES).map(|_| malformed(&mut random)).collect();
    let accepted: Vec<bool> = stream::iter(bodies.into_iter().enumerate())
        .map(async |(number, (path, body))| {
            let shown = String::from_utf8_lossy(&body[..body.len().min(1_000)]).into_owned();
            let sent = send(&api, path, body).await;
            sent.unwrap_or_else(|error| panic!("body {number} to {path}: {error:#}\n{shown}"))
        })
        .buffer_unordered(8)
        .collect()
        .await;

    // Were all refused, or none, the bodies would not reach far.
    let count = accepted.iter().filter(|accepted| **accepted).count();
    assert!((BODIES / 50..BODIES / 2).contains(&count), "{count} of {BODIES} were accepted");
    assert!(worker.is_running().expect("known") && gateway.is_running().expect("known"), "both live");
    for body in &good()[..2] {
        let reply = api.post(PATHS[0], body).await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}
