//! Simulated devices behind a gateway, in one process.

use std::collections::BTreeSet;

use anyhow::ensure;
use futures::future::try_join_all;
use serde_json::{Value, json};
use tests::{Api, Launch, Stream, eventually};

const CHAT: &str = "/v1/chat/completions";

fn chat(user: usize, max_tokens: usize) -> Value {
    json!({
        "model": "l40s-llama-8b",
        "messages": [{"role": "user", "content": format!("question {user}")}],
        "max_tokens": max_tokens,
        "user": user.to_string(),
    })
}

#[tokio::test]
async fn five_simulated_workers_behind_a_gateway_share_the_load_and_one_that_crashes_is_not_missed() {
    let mut up = Launch::simulated_up(5).arg("--profile").arg("l40s-llama-8b").start().await.expect("starts");
    up.ready().await.expect("ready");
    let api = up.api();
    let models = api.get("/v1/models").await.expect("models").json();
    assert_eq!(models["data"][0]["id"], "l40s-llama-8b");

    let asked = try_join_all((0..40).map(|user| {
        let api = &api;
        async move { api.post(CHAT, &chat(user, 12)).await }
    }));
    let answers = asked.await.expect("answers");
    let mut workers = BTreeSet::new();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["usage"]["completion_tokens"], 12);
        assert_eq!(answer.content().split_whitespace().count(), 12);
        assert_eq!(answer.header("x-tenk-model-version").len(), 12, "a digest of the profile");
        workers.insert(answer.header("x-tenk-worker").to_owned());
    }
    assert_eq!(workers.len(), 5, "all of them work");

    let mut streamed = chat(3, 12);
    streamed["stream"] = true.into();
    // Whoever answers, it is the same answer.
    let events = api.stream(CHAT, &streamed).await.expect("a stream").rest().await.expect("events");
    assert!(Stream::is_complete(&events));
    assert_eq!(Stream::content(&events), answers[3].content());

    let worker = |line: &str| line.trim().strip_prefix("http://")?.strip_suffix("/metrics")?.parse().ok();
    let named = up.wait_for("a worker was named", |log| log.lines().find_map(worker)).await;
    let crashed = Api::new(named.expect("the welcome names some"));
    let _ = crashed.post("/admin/faults", &json!({"kind": "crash"})).await;
    eventually("nobody listens there", || async {
        ensure!(crashed.get("/health/live").await.is_err());
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("it is gone");
    for user in 100..140 {
        assert_eq!(api.post(CHAT, &chat(user, 2)).await.expect("an answer").status, 200);
    }
}
