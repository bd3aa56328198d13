//! Too many at once: refused at once, before any work.

use std::sync::Arc;

use engine::SchedulerConfig;
use http::header;
use serde_json::json;
use worker::Config;

use crate::support::{
    CHAT, COMPLETIONS, LONG_CONTEXT, Server, Setup, chat, completion, long_model, next_piece, streamed,
};

#[tokio::test]
async fn when_all_places_are_taken_a_request_is_refused_before_it_is_tokenized() {
    let scheduler = SchedulerConfig { max_num_seqs: 1, max_num_waiting: 1, ..SchedulerConfig::default() };
    let server = Arc::new(Server::with(Setup { scheduler, model: long_model(), ..Setup::default() }).await);
    let endless = streamed(chat(json!({"max_tokens": null})));
    let mut running = server.open(CHAT, &endless).await;
    next_piece(&mut running).await.expect("it runs");
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.open(CHAT, &endless).await }
    });
    server.until(|load| load.num_requests_running == 1 && load.num_requests_waiting == 1).await;

    let too_long = completion(json!({"prompt": "x".repeat(LONG_CONTEXT + 1)}));
    for (path, body) in
        [(CHAT, chat(json!({}))), (CHAT, streamed(chat(json!({})))), (COMPLETIONS, too_long.clone())]
    {
        let refused = server.post(path, &body).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(refused.header(header::RETRY_AFTER), "1");
        let error = refused.error();
        assert_eq!((&error["code"], &error["type"]), (&json!("overloaded"), &json!("rate_limit_error")));
        assert!(error["message"].as_str().expect("text").contains("all 2 places"));
    }
    assert_eq!(server.post(CHAT, &chat(json!({"n": 0}))).await.status, 400, "a wrong request stays wrong");
    assert!(server.load().await.ready, "an overloaded worker is still a ready one");

    drop(running);
    waiting.abort();
    server.until(|load| load.num_requests_running == 0 && load.num_requests_waiting == 0).await;
    assert_eq!(server.post(COMPLETIONS, &too_long).await.status, 400, "now it is read, and too long");
    assert_eq!(server.post(CHAT, &chat(json!({}))).await.status, 200);
}

#[tokio::test]
async fn tokenization_has_places_of_its_own_and_takes_none_from_answers() {
    let config = Config { tokenizations_max: 1, ..Setup::default().config };
    let server = Arc::new(Server::with(Setup { config, ..Setup::default() }).await);
    // Long enough to be there for a while.
    let large = json!({"prompt": "x y ".repeat(500_000)});
    let asked: Vec<_> = (0..6)
        .map(|_| {
            let (server, large) = (Arc::clone(&server), large.clone());
            tokio::spawn(async move { server.post("/tokenize", &large).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for reply in asked {
        let reply = reply.await.expect("no panic");
        if reply.status == 429 {
            assert_eq!(reply.header(header::RETRY_AFTER), "1");
            assert_eq!(reply.error()["code"], "overloaded");
            assert!(reply.text().contains("tokenization"), "{reply:?}");
        }
        statuses.push(reply.status);
    }
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert_eq!(
        server.post("/detokenize", &json!({"tokens": [1]})).await.status,
        200,
        "the place is free again"
    );
    server.chat(json!({})).await;
}

#[tokio::test]
async fn more_answers_than_there_are_places_is_a_wrong_request_and_not_one_to_try_again() {
    let scheduler = SchedulerConfig { max_num_seqs: 2, max_num_waiting: 2, ..SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, ..Setup::default() }).await;
    assert_eq!(server.chat(json!({"n": 4})).await["choices"].as_array().map(Vec::len), Some(4));
    for (path, body, param) in [
        (CHAT, chat(json!({"n": 5})), "n"),
        (COMPLETIONS, completion(json!({"prompt": ["x", "y", "z"], "n": 2})), "n"),
        (COMPLETIONS, completion(json!({"prompt": ["x", "y", "z", "1", "2"]})), "prompt"),
    ] {
        let refused = server.post(path, &body).await;
        assert_eq!((refused.status, &refused.error()["param"]), (400, &json!(param)), "{refused:?}");
        assert!(refused.text().contains("at most 4 at a time"), "{refused:?}");
    }
    assert_eq!(server.post(CHAT, &chat(json!({}))).await.status, 200, "no place was lost");
}

#[tokio::test]
async fn places_are_taken_all_or_none() {
    let scheduler = SchedulerConfig { max_num_seqs: 1, max_num_waiting: 2, ..SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, model: long_model(), ..Setup::default() }).await;
    let mut running = server.open(CHAT, &streamed(chat(json!({"max_tokens": null})))).await;
    next_piece(&mut running).await.expect("it runs");
    server.until(|load| load.num_requests_running == 1).await;
    for _ in 0..3 {
        assert_eq!(server.post(CHAT, &chat(json!({"n": 3}))).await.status, 429, "two places are not three");
    }
    drop(running);
    server.until(|load| load.num_requests_running == 0).await;
    assert_eq!(server.post(CHAT, &chat(json!({"n": 3}))).await.status, 200, "none was lost on the way");
}
