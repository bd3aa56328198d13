//! What a worker tells about itself: models, tokens, load, metrics.

use engine::{SchedulerConfig, Speculative};
use protocol::{Message, chat_digests, prompt_digests};
use serde_json::{Value, json};
use worker::Config;

use crate::support::{
    CHAT, CONTEXT, Reply, Server, Setup, chat, completion, large_stream, long_model, next_piece, patiently,
    streamed,
};

#[tokio::test]
async fn the_served_model_is_listed_and_found_by_its_name() {
    let server = Server::start().await;
    let list = server.get("/v1/models").await.ok();
    assert_eq!(list["object"], "list");
    let card = &list["data"][0];
    assert_eq!(
        (&card["id"], &card["object"], &card["max_model_len"]),
        (&json!("tiny"), &json!("model"), &json!(CONTEXT))
    );
    assert!(card["created"].as_u64().expect("a time") > 1_700_000_000);
    assert_eq!(server.get("/v1/models/tiny").await.ok(), *card);
}

#[tokio::test]
async fn text_becomes_tokens_and_comes_back() {
    let server = Server::start().await;
    for text in ["plain", "", " spaces  and\nlines\t", "häßlich 🦀 漢字", "<|im_start|>", "\u{0}\u{7f}"]
    {
        let tokens = server.post("/tokenize", &json!({"model": "tiny", "prompt": text})).await.ok();
        assert_eq!(tokens["max_model_len"], CONTEXT);
        assert_eq!(tokens["count"], tokens["tokens"].as_array().map_or(0, Vec::len));
        let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).await.ok();
        assert_eq!(back["prompt"], text);
    }
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let tokens = server.post("/tokenize", &json!({"messages": messages})).await.ok();
    let usage = server.chat(json!({})).await["usage"].clone();
    assert_eq!(tokens["count"], usage["prompt_tokens"], "messages are counted as chat counts them");
    let open = json!({"messages": messages, "add_generation_prompt": false});
    assert!(server.post("/tokenize", &open).await.ok()["count"].as_u64() < tokens["count"].as_u64());
}

#[tokio::test]
async fn what_cannot_be_tokenized_is_a_400_that_names_the_field() {
    let server = Server::start().await;
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": "x", "messages": []}), "prompt"),
        ("/tokenize", json!({"prompt": ["x"]}), "prompt"),
        ("/tokenize", json!({"messages": []}), "messages"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": "x"}), "tokens"),
        ("/detokenize", json!({"tokens": [1, -1]}), "tokens[1]"),
        ("/detokenize", json!({"tokens": [1, 2, 259]}), "tokens[2]"),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &json!(param)), "{path} {body}");
    }
}

#[tokio::test]
async fn the_load_report_tells_what_runs_and_what_it_holds() {
    let server = Server::with(Setup { model: long_model(), ..Setup::default() }).await;
    let idle = server.load().await;
    assert_eq!((idle.model.as_str(), idle.version.as_str(), idle.ready), ("tiny", "v1", true));
    assert_eq!((idle.num_requests_running, idle.num_requests_waiting), (0, 0));
    assert_eq!((idle.max_num_seqs, idle.max_model_len), (32, 65_536));
    assert_eq!(idle.kv_cache_usage, 0.0);
    let endless = streamed(chat(json!({"max_tokens": null, "n": 3})));
    let mut running = server.open(CHAT, &endless).await;
    next_piece(&mut running).await.expect("it runs");
    let busy = server.until(|load| load.num_requests_running == 3).await;
    assert!(busy.kv_cache_usage > 0.0 && busy.kv_cache_usage < 1.0);
    drop(running);
    let idle = server.until(|load| load.num_requests_running == 0).await;
    assert_eq!(idle.kv_cache_usage, 0.0, "its blocks are free");
}

#[tokio::test]
async fn hot_prefixes_are_the_digests_of_what_was_asked_last_and_bounded() {
    let config = Config { hot_prefixes_max: 4, ..Setup::default().config };
    let server = Server::with(Setup { config, model: long_model(), ..Setup::default() }).await;
    let messages = json!([{"role": "user", "content": "a".repeat(600)}]);
    server.chat(json!({"messages": messages, "cache_salt": "tenant"})).await;
    let parsed: Vec<Message> = serde_json::from_value(messages).expect("messages");
    let first = chat_digests("tenant", &parsed);
    assert_eq!(first.len(), 2);
    assert_eq!(server.load().await.hot_prefixes, first);
    server.complete(json!({"prompt": "b".repeat(900)})).await;
    let second = prompt_digests("", &protocol::Prompt::Text("b".repeat(900)));
    assert_eq!(second.len(), 3);
    assert_eq!(
        server.load().await.hot_prefixes,
        [&second[..], &first[..1]].concat(),
        "newest first, four at most"
    );
    let refused = completion(json!({"prompt": "c".repeat(900), "n": 0}));
    assert_eq!(server.post(crate::support::COMPLETIONS, &refused).await.status, 400);
    assert_eq!(server.load().await.hot_prefixes[..3], second[..], "what was refused left nothing");
}

/// The value of the first series of this name that has this label, or the name's first.
fn value(metrics: &str, name: &str, label: &str) -> f64 {
    let line = metrics.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    let line = line.unwrap_or_else(|| panic!("there is no {name} with {label} in:\n{metrics}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[tokio::test]
async fn metrics_have_vllms_names_and_move() {
    let server = Server::start().await;
    let metrics = async || {
        let reply = server.get("/metrics").await;
        assert!(reply.header(http::header::CONTENT_TYPE).starts_with("text/plain; version=0.0.4"));
        reply.text().to_owned()
    };
    let before = metrics().await;
    for name in [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:lora_requests_info",
        "vllm:cache_config_info",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:request_success_total",
        "vllm:num_preemptions_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:spec_decode_num_drafts_total",
        "vllm:spec_decode_num_draft_tokens_total",
        "vllm:spec_decode_num_accepted_tokens_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_count",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:request_queue_time_seconds_count",
        "vllm:request_prefill_time_seconds_count",
        "vllm:request_decode_time_seconds_count",
        "vllm:request_prompt_tokens_count",
        "vllm:request_generation_tokens_count",
        "vllm:iteration_tokens_total_count",
    ] {
        value(&before, name, "model_name=\"tiny\"");
    }
    assert_eq!(value(&before, "vllm:cache_config_info", "block_size=\"16\""), 1.0);
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let chat_prompt = server.post("/tokenize", &json!({"messages": messages})).await.ok()["count"].as_f64();
    let chat_prompt = chat_prompt.expect("a count");
    for _ in 0..2 {
        server.complete(json!({"prompt": "x".repeat(100)})).await;
    }
    let bias = json!({"258": 100});
    server.chat(json!({"ignore_eos": false, "logit_bias": bias, "temperature": 0})).await;
    // The engine reports a step just after it has sent the step's last events.
    let after = patiently(async {
        loop {
            let text = metrics().await;
            // Two prompts of 100, the second without the 96 that are in the cache; all tokens but the first of each.
            if value(&text, "vllm:iteration_tokens_total_sum", "") == 104.0 + 14.0 + chat_prompt {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    })
    .await;
    for (name, label, expected) in [
        ("vllm:prompt_tokens_total", "", 200.0 + chat_prompt),
        ("vllm:generation_tokens_total", "", 17.0),
        ("vllm:request_success_total", "finished_reason=\"length\"", 2.0),
        ("vllm:request_success_total", "finished_reason=\"stop\"", 1.0),
        ("vllm:request_success_total", "finished_reason=\"abort\"", 0.0),
        ("vllm:request_success_total", "finished_reason=\"error\"", 0.0),
        ("vllm:prefix_cache_queries_total", "", 200.0 + chat_prompt),
        ("vllm:prefix_cache_hits_total", "", 96.0),
        ("vllm:time_to_first_token_seconds_count", "", 3.0),
        ("vllm:inter_token_latency_seconds_count", "", 14.0),
        ("vllm:e2e_request_latency_seconds_count", "", 3.0),
        ("vllm:request_prompt_tokens_sum", "", 200.0 + chat_prompt),
        ("vllm:request_generation_tokens_sum", "", 17.0),
        ("vllm:num_requests_running", "", 0.0),
    ] {
        assert_eq!(value(&after, name, label), expected, "{name} {label}");
    }
}

#[tokio::test]
async fn guesses_and_those_that_came_true_are_counted_and_each_token_is_told() {
    let speculative = Speculative { num_speculative_tokens: 3, prompt_lookup_min: 2, row_cost_percent: 0 };
    let scheduler = SchedulerConfig { speculative, ..SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, ..Setup::default() }).await;
    let only_a = json!({"prompt": "aaaa", "max_tokens": 40, "temperature": 0, "logit_bias": {"97": 100}});
    let answer = server.complete(only_a).await;
    assert_eq!(answer["usage"]["completion_tokens"], 40);
    assert_eq!(answer["choices"][0]["text"], "a".repeat(40));
    // One token from the prompt, nine times one and three guesses, and what the limit leaves: one and two.
    let after = patiently(async {
        loop {
            let text = server.get("/metrics").await.text().to_owned();
            if value(&text, "vllm:iteration_tokens_total_count", "") == 11.0 {
                return text;
            }
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    })
    .await;
    for (name, expected) in [
        ("vllm:spec_decode_num_drafts_total", 10.0),
        ("vllm:spec_decode_num_draft_tokens_total", 29.0),
        ("vllm:spec_decode_num_accepted_tokens_total", 29.0),
        ("vllm:generation_tokens_total", 40.0),
        ("vllm:inter_token_latency_seconds_count", 39.0),
    ] {
        assert_eq!(value(&after, name, ""), expected, "{name}");
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_is_counted_as_such_and_leaves_the_gauges() {
    let scheduler = SchedulerConfig { max_num_seqs: 1, ..SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, model: long_model(), ..Setup::default() }).await;
    let body = streamed(chat(json!({"max_tokens": null})));
    let mut running = server.open(CHAT, &body).await;
    next_piece(&mut running).await.expect("it runs");
    server.until(|load| load.num_requests_running == 1).await;
    let busy = server.get("/metrics").await;
    assert_eq!(value(busy.text(), "vllm:num_requests_running", ""), 1.0);
    drop(running);
    server.until(|load| load.num_requests_running == 0).await;
    let after = server.get("/metrics").await;
    let prompt = server.post("/tokenize", &json!({"messages": body["messages"]})).await.ok();
    assert_eq!(
        value(after.text(), "vllm:prompt_tokens_total", ""),
        prompt["count"].as_f64().expect("a count")
    );
    assert!(value(after.text(), "vllm:generation_tokens_total", "") >= 1.0);
    assert_eq!(value(after.text(), "vllm:request_success_total", "finished_reason=\"abort\""), 1.0);
    assert_eq!(value(after.text(), "vllm:num_requests_running", ""), 0.0);
    assert_eq!(value(after.text(), "vllm:kv_cache_usage_perc", ""), 0.0);
}

#[tokio::test]
async fn latencies_and_tokens_are_the_engines_however_slowly_somebody_reads() {
    let server = Server::with(Setup { model: long_model(), ..Setup::default() }).await;
    // Sockets hold less than that, so most of it is read only after the pause.
    let mut slow = server.open(CHAT, &large_stream()).await;
    next_piece(&mut slow).await.expect("it runs");
    let computed = async || value(server.get("/metrics").await.text(), "vllm:generation_tokens_total", "");
    patiently(async {
        // Whoever reads them.
        while computed().await < 4800.0 {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    })
    .await;
    let pause = std::time::Duration::from_secs(2);
    tokio::time::sleep(pause).await;
    assert!(Reply::read(slow).await.text().ends_with("data: [DONE]\n\n"));
    let read = server.get("/metrics").await;
    assert_eq!(value(read.text(), "vllm:e2e_request_latency_seconds_count", ""), 8.0);
    assert_eq!(value(read.text(), "vllm:inter_token_latency_seconds_count", ""), 4792.0);
    // Each answer's gaps add up to its time in decode, as the engine has it.
    let gaps = value(read.text(), "vllm:inter_token_latency_seconds_sum", "");
    let decode = value(read.text(), "vllm:request_decode_time_seconds_sum", "");
    assert!((gaps - decode).abs() < 0.1 * decode, "{gaps} s between tokens, {decode} s in decode");
    let whole = value(read.text(), "vllm:e2e_request_latency_seconds_sum", "");
    assert!(whole < decode + 8.0 * pause.as_secs_f64(), "{whole} s, of which {decode} s in decode");
}

#[tokio::test]
async fn the_context_is_no_longer_than_the_caches_whole_blocks() {
    let scheduler = SchedulerConfig { block_size: 1000, ..SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, model: long_model(), ..Setup::default() }).await;
    assert_eq!(server.load().await.max_model_len, 65_000);
    let card: Value = server.get("/v1/models/tiny").await.ok();
    assert_eq!(card["max_model_len"], 65_000);
    let too_long = chat(json!({"max_tokens": 65_300}));
    assert_eq!(server.post(CHAT, &too_long).await.error()["code"], "context_length_exceeded");
}
