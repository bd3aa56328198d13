//! Answers given again.

use serde_json::{Value, json};

use crate::support::{Front, Reply, Worker, ask, chunks, completion, error_json, streamed, texts, with};

#[tokio::test]
async fn the_same_request_is_answered_again_byte_by_byte_without_a_worker() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let first = front.chat(&ask("x")).await;
    // Written otherwise, and asked by another of the tenant's users, it is the same.
    let again = r#"{"user":"u","temperature":0.0,"messages":[{"content":"x","role":"user"}],"model":"m"}"#;
    let second = front.post("/v1/chat/completions", again).await;
    assert_eq!((first.cache(), second.cache()), ("miss", "hit"));
    assert_eq!((first.text(), second.text()), (completion("Hi").as_str(), completion("Hi").as_str()));
    assert_eq!((second.header("x-tenk-worker"), second.header("x-tenk-model-version")), (None, Some("v1")));
    assert_eq!(front.chat(&ask("y")).await.cache(), "miss");
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn what_is_wrong_is_wrong_whether_an_answer_is_kept_or_not() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    assert_eq!(front.chat(&ask("x")).await.cache(), "miss");
    for (field, value) in [
        ("priority", json!("x")),
        ("priority", json!(99)),
        ("user", json!(5)),
        ("stream_options", json!(7)),
        ("stream_options", json!({})),
    ] {
        for text in ["x", "new"] {
            let got = front.chat(&with(ask(text), field, value.clone())).await;
            assert_eq!((got.status, &got.json()["error"]["param"]), (400, &json!(field)), "{value}");
        }
    }
    assert_eq!(front.chat(&with(ask("x"), "priority", json!(10))).await.cache(), "hit");
    assert_eq!(worker.count(), 1);
}

#[tokio::test]
async fn the_same_stream_is_replayed_byte_by_byte() {
    let worker = Worker::ours(Reply::stream(&["a", "b"])).await;
    let front = Front::of(&[&worker]).await;
    for usage in [false, true] {
        let request =
            with(streamed(ask(&usage.to_string())), "stream_options", json!({ "include_usage": usage }));
        let (first, second) = (front.chat(&request).await, front.chat(&request).await);
        assert_eq!((first.cache(), second.cache()), ("miss", "hit"));
        assert_eq!(first.body, second.body);
        assert_eq!(first.header("content-type"), second.header("content-type"));
        let mut sent = chunks(&["a", "b"]);
        sent.truncate(if usage { 5 } else { 4 });
        sent.push("[DONE]".into());
        assert_eq!(second.events(), sent);
    }
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn a_stream_answers_the_same_request_for_a_body_and_a_body_the_one_for_a_stream() {
    let worker = Worker::ours(Reply::stream(&["a", "b"])).await;
    let front = Front::of(&[&worker]).await;
    front.chat(&streamed(ask("x"))).await;
    let body = front.chat(&ask("x")).await;
    assert_eq!(body.cache(), "hit");
    assert_eq!(body.json()["choices"][0]["message"]["content"], "ab");
    assert_eq!(body.json()["usage"]["total_tokens"], 5);

    worker.reply(Reply::completion("Hi"));
    front.chat(&ask("y")).await;
    let stream = front.chat(&streamed(ask("y"))).await;
    assert_eq!((stream.cache(), texts(&stream.events()).as_str()), ("hit", "Hi"));
    assert_eq!(stream.events().last().map(String::as_str), Some("[DONE]"));
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn what_is_not_deterministic_is_kept_only_on_demand_and_no_store_is_obeyed() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let sampled = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] });
    let cache = async |request: &Value, headers: &[(&str, &str)]| {
        front.chat_with(request, headers).await.cache().to_owned()
    };
    assert_eq!(cache(&sampled, &[]).await, "bypass");
    assert_eq!(cache(&sampled, &[]).await, "bypass");
    assert_eq!(cache(&sampled, &[("x-tenk-cache", "force")]).await, "miss");
    assert_eq!(cache(&sampled, &[("x-tenk-cache", "Force")]).await, "hit");
    assert_eq!(cache(&sampled, &[]).await, "bypass");
    assert_eq!(cache(&with(sampled, "seed", 1), &[]).await, "miss");

    assert_eq!(cache(&ask("y"), &[("cache-control", "max-age=0, no-store")]).await, "bypass");
    assert_eq!(cache(&ask("y"), &[]).await, "miss", "the answer of a no-store request was kept");
    assert_eq!(cache(&ask("y"), &[("cache-control", "no-store"), ("x-tenk-cache", "force")]).await, "bypass");
    assert_eq!(cache(&ask("y"), &[]).await, "hit");
}

#[tokio::test]
async fn a_cache_that_is_switched_off_is_bypassed() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::with(&[&worker], |parts| parts.response_cache.enabled = false).await;
    for _ in 0..2 {
        assert_eq!(front.chat_with(&ask("x"), &[("x-tenk-cache", "force")]).await.cache(), "bypass");
    }
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn answers_of_an_unknown_version_are_never_kept() {
    let worker = Worker::foreign(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    for _ in 0..2 {
        let got = front.chat_with(&ask("x"), &[("x-tenk-cache", "force")]).await;
        assert_eq!((got.cache(), got.header("x-tenk-model-version")), ("bypass", Some("unknown")));
    }
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn a_foreign_worker_never_answers_for_a_version_that_is_known() {
    let ours = Worker::ours(Reply::completion("ours")).await;
    let foreign = Worker::foreign(Reply::completion("foreign")).await;
    let front = Front::of(&[&ours, &foreign]).await;
    for number in 0..20 {
        let got = front
            .chat_with(&with(ask("x"), "seed", number), &[("x-tenk-session", &number.to_string())])
            .await;
        let (text, cache) = if got.header("x-tenk-model-version") == Some("v1") {
            ("ours", "miss")
        } else {
            ("foreign", "bypass")
        };
        assert_eq!((got.text(), got.cache()), (completion(text).as_str(), cache));
    }
    assert!(ours.count() > 0 && foreign.count() > 0, "{} and {}", ours.count(), foreign.count());
}

#[tokio::test]
async fn an_answer_of_another_version_than_was_asked_says_so_and_is_not_kept() {
    // Restarted with a new version, and not yet probed since.
    let headers = vec![("x-tenk-model-version", "v2")];
    let worker = Worker::ours(Reply::Body { status: 200, headers, body: completion("new") }).await;
    let front = Front::of(&[&worker]).await;
    for _ in 0..2 {
        let got = front.chat(&ask("x")).await;
        assert_eq!((got.cache(), got.header("x-tenk-model-version")), ("miss", Some("v2")));
    }
    assert_eq!(worker.count(), 2);
}

#[tokio::test]
async fn a_new_version_is_asked_anew() {
    let worker = Worker::ours(Reply::completion("old")).await;
    let front = Front::of(&[&worker]).await;
    assert_eq!(front.chat(&ask("x")).await.text(), completion("old"));
    worker.reply(Reply::completion("new"));
    worker.report(|report| report.version = "v2".into());
    crate::support::eventually("the new version", async || {
        front.chat(&with(ask("probe"), "temperature", 1)).await.header("x-tenk-model-version") == Some("v2")
    })
    .await;
    assert_eq!(front.chat(&ask("x")).await.text(), completion("new"));
}

#[tokio::test]
async fn an_answer_that_is_not_whole_and_an_error_are_given_but_not_kept() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let cut = completion("Hi").replace(r#""finish_reason":"stop""#, r#""finish_reason":null"#);
    let mut unfinished = chunks(&["a"]);
    unfinished.remove(2);
    let no_finish = Reply::Stream { events: unfinished, gate: None, end: crate::support::End::Done };
    for (reply, stream, status) in [
        (Reply::json(200, cut.clone()), false, 200),
        (Reply::json(400, error_json("too long")), false, 400),
        (no_finish, true, 200),
    ] {
        worker.reply(reply.clone());
        for _ in 0..2 {
            let request = if stream { streamed(ask("x")) } else { ask("x") };
            let got = front.chat(&request).await;
            assert_eq!((got.status, got.cache()), (status, "miss"), "{reply:?}");
        }
    }
    assert_eq!(worker.count(), 6);
    worker.reply(Reply::json(200, cut.clone()));
    assert_eq!(front.chat(&ask("x")).await.text(), cut);
}
