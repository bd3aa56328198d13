//! What goes through unchanged, what is added, and what is refused at the door.

use serde_json::{Value, json};

use crate::support::{Front, Reply, Worker, ask, completion, eventually, streamed, with};

#[tokio::test]
async fn an_answer_comes_through_byte_by_byte_with_headers_that_say_where_it_is_from() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let got = front.chat(&ask("Hello")).await;
    assert_eq!((got.status, got.text()), (200, completion("Hi").as_str()));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("x-tenk-worker"), Some("worker-0"));
    assert_eq!(got.header("x-tenk-model-version"), Some("v1"));
    assert_eq!(got.cache(), "miss");
    let port = worker.url().rsplit_once(':').expect("an address").1.to_owned();
    assert!(!format!("{:?}", got.headers).contains(&port), "the worker's address is shown: {got:?}");
}

#[tokio::test]
async fn a_request_reaches_the_worker_byte_by_byte_where_nothing_has_to_be_added() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let body = r#" { "model":"m",  "messages":[{"role":"user","content":"\u00e9"}],"top_p":0.50 }"#;
    assert_eq!(front.post("/v1/chat/completions", body).await.status, 200);
    assert_eq!(worker.seen()[0].bytes, body.as_bytes());
    assert_eq!(front.post("/v1/completions", r#"{"model":"m","prompt":"x"}"#).await.status, 200);
    assert_eq!(worker.seen()[1].path, "/v1/completions");
}

#[tokio::test]
async fn tokenizing_goes_to_the_only_model_where_none_is_named() {
    let worker = Worker::ours(Reply::json(200, r#"{"count":1}"#)).await;
    let front = Front::of(&[&worker]).await;
    for (path, body) in [("/tokenize", r#"{"prompt":"x"}"#), ("/detokenize", r#"{"tokens":[1],"model":"m"}"#)]
    {
        let got = front.post(path, body).await;
        assert_eq!((got.status, got.text(), got.cache()), (200, r#"{"count":1}"#, "bypass"));
    }
    let paths: Vec<String> = worker.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/tokenize", "/detokenize"]);
}

#[tokio::test]
async fn a_plain_request_id_is_kept_and_any_other_replaced() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let id_of = async |sent: &str| {
        let got = front.chat_with(&with(ask("x"), "seed", worker.count()), &[("x-request-id", sent)]).await;
        let id = got.header("x-request-id").expect("always there").to_owned();
        assert_eq!(worker.seen().last().expect("asked").headers["x-request-id"], id);
        id
    };
    assert_eq!(id_of("job-7.a:b_C").await, "job-7.a:b_C");
    for strange in ["a b", "x\"y", "{}", &"x".repeat(129)] {
        let id = id_of(strange).await;
        assert!(id != strange && id.len() == 32, "{id}");
    }
    let (one, other) = (front.get("/v1/models").await, front.get("/v1/models").await);
    assert!(one.header("x-request-id").is_some_and(|id| Some(id) != other.header("x-request-id")));
}

#[tokio::test]
async fn headers_of_the_client_do_not_reach_the_worker() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    let headers = [
        ("authorization", "Bearer mine"),
        ("x-tenk-worker", "w"),
        ("x-tenk-tenant", "other"),
        ("x-tenk-session", "s"),
        ("x-forwarded-for", "10.0.0.1"),
        ("cookie", "c"),
    ];
    assert_eq!(front.chat_with(&with(ask("x"), "cache_salt", "mine"), &headers).await.status, 200);
    let seen = &worker.seen()[0];
    assert!(headers.iter().all(|(name, _)| !seen.headers.contains_key(*name)), "{seen:?}");
    assert_eq!(seen.json().get("cache_salt"), None);
}

#[tokio::test]
async fn models_are_listed_and_found_one_by_one() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::of(&[&worker]).await;
    let list = front.get("/v1/models").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("m")));
    assert_eq!(front.get("/v1/models/m").await.json()["id"], "m");
    let no_text = front.get("/v1/models/%ff").await;
    assert_eq!((no_text.status, no_text.error_type()), (400, "invalid_request_error".into()));
    let missing = front.get("/v1/models/org/other").await;
    assert_eq!((missing.status, missing.error_type().as_str()), (404, "invalid_request_error"));
}

#[tokio::test]
async fn an_unknown_model_path_or_method_is_told_in_openais_words() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::of(&[&worker]).await;
    let got = front.chat(&with(ask("x"), "model", "gpt-5")).await;
    assert_eq!((got.status, got.error_type().as_str()), (404, "invalid_request_error"));
    assert_eq!(
        (&got.json()["error"]["param"], &got.json()["error"]["code"]),
        (&json!("model"), &json!("model_not_found"))
    );
    assert_eq!(front.get("/v1/nothing").await.error_type(), "invalid_request_error");
    let got = front.get("/v1/chat/completions").await;
    assert_eq!((got.status, got.error_type().as_str()), (405, "invalid_request_error"));
    assert_eq!(worker.count(), 0);
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_with_413_whether_it_says_its_length_or_not() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::with(&[&worker], |parts| parts.config.body_bytes_max = 1024).await;
    let fits = ask(&"x".repeat(900));
    assert_eq!(front.chat(&fits).await.status, 200);
    let got = front.chat(&ask(&"x".repeat(1024))).await;
    assert_eq!((got.status, got.error_type().as_str()), (413, "invalid_request_error"));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer =
        crate::lifecycle::raw(&front, &format!("{head}401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025))).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn no_malformed_body_is_answered_with_5xx_or_reaches_a_worker() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::of(&[&worker]).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_inside = format!(r#"{{"model":"m","messages":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "{}",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{\"model\":}",
        "{'model':'m'}",
        "\u{feff}{}",
        r#"{"model":7}"#,
        r#"{"model":null}"#,
        r#"{"model":["m"]}"#,
        r#"{"model":"m","stream":"yes"}"#,
        r#"{"model":"m","stream":1}"#,
        r#"{"model":"m"} trailing"#,
        r#"{"model":"\ud800"}"#,
        "{\"model\":\"\u{0}\"}",
        &deep,
        &deep_inside,
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .chain([b"\xff\xfe".to_vec(), b"{\"model\":\"\xff\"}".to_vec(), vec![0; 100]])
    .collect();
    for body in bodies {
        for path in ["/v1/chat/completions", "/v1/completions"] {
            let got = front.post(path, body.clone()).await;
            assert_eq!(got.status, 400, "{:?}: {got:?}", String::from_utf8_lossy(&body));
            assert_eq!(got.error_type(), "invalid_request_error");
        }
    }
    assert_eq!(worker.count(), 0);
}

#[tokio::test]
async fn odd_but_valid_requests_are_the_workers_to_judge() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::of(&[&worker]).await;
    for body in [
        r#"{"model":"m","messages":"all of them"}"#,
        r#"{"model":"m","messages":[{"role":7}],"stream_options":[]}"#,
        r#"{"model":"m","messages":[null],"temperature":"hot"}"#,
        r#"{"model":"m","prompt":[[1],"x"],"stream":null,"temperature":0,"seed":1e400000}"#,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}],"temperature":0}"#,
    ] {
        let got = front.post("/v1/chat/completions", body).await;
        assert!(matches!(got.status, 200 | 400), "{body}: {got:?}");
    }
}

#[tokio::test]
async fn the_usage_chunk_is_sent_only_where_the_client_asked_though_workers_always_are() {
    let worker = Worker::ours(Reply::stream(&["a", "b"])).await;
    let front = Front::of(&[&worker]).await;
    let options = |value: Value| with(streamed(ask("x")), "stream_options", value);
    // With and without the cache, and at a miss as at a hit.
    for fixed in [true, false] {
        for (request, wanted) in [
            (streamed(ask("x")), false),
            (options(Value::Null), false),
            (options(json!({ "include_usage": false })), false),
            (options(json!({ "include_usage": true })), true),
        ] {
            let request = if fixed { request } else { with(request, "temperature", 0.7) };
            let events = front.stream(&request).await.rest().await;
            assert_eq!(events.iter().any(|event| event.contains("usage")), wanted, "{request}: {events:?}");
            assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        }
    }
    assert_eq!(worker.count(), 1 + 4);
    assert!(worker.seen().iter().all(|seen| seen.json()["stream_options"]["include_usage"] == true));
}

#[tokio::test]
async fn an_answer_that_a_server_compressed_unasked_or_garbled_is_not_passed_on() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::of(&[&worker]).await;
    let zipped = Reply::Body { status: 200, headers: vec![("content-encoding", "gzip")], body: "{}".into() };
    for reply in [zipped, Reply::json(200, "<html>"), Reply::json(200, ""), Reply::json(302, "{}")] {
        worker.reply(reply.clone());
        let got = front.chat(&ask("x")).await;
        assert_eq!((got.status, got.error_type().as_str()), (502, "server_error"), "{reply:?}");
    }
}

#[tokio::test]
async fn an_answer_larger_than_the_bound_is_not_taken_in() {
    let worker = Worker::ours(Reply::completion(&"x".repeat(3000))).await;
    let other = Worker::ours(Reply::completion(&"x".repeat(3000))).await;
    let front = Front::with(&[&worker, &other], |parts| parts.config.answer_bytes_max = 2048).await;
    assert_eq!(front.chat(&ask("x")).await.status, 502);
    assert_eq!(worker.count() + other.count(), 1, "the other worker's answer would be as large");
}

#[tokio::test]
async fn bodies_that_end_with_their_connection_are_whole() {
    let worker = Worker::ours(Reply::Raw(format!("HTTP/1.0 200 OK\r\n\r\n{}", completion("Hi")))).await;
    let front = Front::of(&[&worker]).await;
    assert_eq!(front.chat(&ask("x")).await.text(), completion("Hi"));
    worker.reply(Reply::Raw(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
         : hello\r\ndata: {\"choices\":[]}\r\n\r\ndata: [DONE]\r\n\r\n"
            .into(),
    ));
    let events = front.stream(&streamed(with(ask("x"), "temperature", 1))).await.rest().await;
    assert_eq!(events, [r#"{"choices":[]}"#, "[DONE]"]);
}

#[tokio::test]
async fn connections_to_workers_are_used_again_after_bodies_and_streams() {
    let worker = Worker::ours(Reply::stream(&["a"])).await;
    let front = Front::of(&[&worker]).await;
    for number in 0..10 {
        let request = with(ask("x"), "seed", number);
        if number % 2 == 0 {
            worker.reply(Reply::stream(&["a"]));
            front.stream(&streamed(request)).await.rest().await;
        } else {
            worker.reply(Reply::completion("a"));
            front.chat(&request).await;
        }
        // The client has its end mark before the connection is back in its pool.
        eventually("the worker to be free", async || {
            front.metric(r#"tenk_gateway_worker_in_flight{worker="worker-0"}"#).await < 0.5
        })
        .await;
    }
    assert_eq!(worker.count(), 10);
    assert!(worker.connections() <= 2, "{} connections for 10 requests in turn", worker.connections());
}
