//! Clients that leave, clients that dawdle, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use worker::{Config, Worker, WorkerModel};

use crate::support::{
    CHAT, COMPLETIONS, LONG_CONTEXT, Reply, Server, Setup, chat, completion, events, large_stream, let_go,
    load, long_model, next_piece, patiently, post_bytes, streamed, text_of,
};

async fn long() -> Server {
    Server::with(Setup { model: long_model(), ..Setup::default() }).await
}

async fn long_with(config: Config) -> Server {
    Server::with(Setup { config, model: long_model(), ..Setup::default() }).await
}

/// A request whose client reads the head of the answer and then nothing.
async fn held(server: &Server, body: &serde_json::Value) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(&post_bytes(CHAT, body)).await.expect("sent");
    let mut head = [0; 15];
    patiently(stream.read_exact(&mut head)).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine_streamed_or_not() {
    let server = long().await;
    let endless = json!({"max_tokens": null, "n": 2});
    let mut stream = server.open(CHAT, &streamed(chat(endless.clone()))).await;
    next_piece(&mut stream).await.expect("it runs");
    server.until(|load| load.num_requests_running == 2).await;
    drop(stream);
    server.until(|load| load.num_requests_running == 0).await;
    for (path, body) in
        [(CHAT, chat(endless.clone())), (COMPLETIONS, completion(json!({"max_tokens": 60_000})))]
    {
        let mut whole = server.connect().await;
        whole.write_all(&post_bytes(path, &body)).await.expect("sent");
        server.until(|load| load.num_requests_running > 0).await;
        drop(whole);
        server.until(|load| load.num_requests_running == 0).await;
    }
    server.chat(json!({})).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_up_its_place_in_line() {
    let scheduler = engine::SchedulerConfig { max_num_seqs: 1, ..engine::SchedulerConfig::default() };
    let server = Server::with(Setup { scheduler, model: long_model(), ..Setup::default() }).await;
    let mut running = server.open(CHAT, &streamed(chat(json!({"max_tokens": null})))).await;
    next_piece(&mut running).await.expect("it runs");
    let mut waiting = server.connect().await;
    waiting.write_all(&post_bytes(CHAT, &chat(json!({})))).await.expect("sent");
    server.until(|load| load.num_requests_waiting == 1).await;
    drop(waiting);
    let load = server.until(|load| load.num_requests_waiting == 0).await;
    assert_eq!(load.num_requests_running, 1, "the other one runs on");
}

#[tokio::test]
async fn a_client_that_reads_slowly_slows_neither_the_engine_nor_anybody_else() {
    let server = long().await;
    let mut slow = held(&server, &large_stream()).await;
    server.chat(json!({})).await;
    server.until(|load| load.num_requests_running == 0).await;
    assert_eq!(server.complete(json!({})).await["usage"]["completion_tokens"], 8);
    let mut rest = Vec::new();
    let mut piece = vec![0; 1 << 20];
    while !rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n") {
        let read = patiently(slow.read(&mut piece)).await.expect("more");
        assert_ne!(read, 0, "the stream is whole");
        rest.extend_from_slice(&piece[..read]);
    }
    assert!(rest.len() > 6 << 20, "sockets could not hold all of it: {} bytes", rest.len());
}

#[tokio::test]
async fn draining_lets_streams_end_refuses_what_is_new_and_then_returns() {
    let mut server = long().await;
    let mut running = held(&server, &large_stream()).await;
    // Pooled connections, as a gateway has them, and fresh ones are told alike.
    server.chat(json!({})).await;
    server.stop();
    let refused = patiently(async {
        loop {
            let ready = server.get("/health/ready").await;
            if ready.status != 200 {
                return ready;
            }
        }
    })
    .await;
    assert_eq!((refused.status, refused.header(header::RETRY_AFTER)), (503, "1"));
    assert_eq!(server.get("/health/live").await.status, 200);
    assert!(!server.load().await.ready);
    for (path, body) in [
        (CHAT, chat(json!({}))),
        (COMPLETIONS, streamed(completion(json!({})))),
        ("/tokenize", json!({"prompt": "x"})),
        ("/detokenize", json!({"tokens": [1]})),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("unavailable")));
        assert_eq!(reply.header(header::RETRY_AFTER), "1");
        assert!(server.raw(&post_bytes(path, &body)).await.starts_with("HTTP/1.1 503"));
    }
    let mut rest = Vec::new();
    patiently(running.read_to_end(&mut rest)).await.expect("the rest, and then the end");
    assert!(rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"), "the stream is whole");
    server.ended().await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_idle_worker_ends_at_once_whatever_connections_there_are() {
    let mut server = Server::start().await;
    server.chat(json!({})).await;
    let _idle = server.connect().await;
    let started = Instant::now();
    server.stop();
    server.ended().await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn at_the_drain_time_out_answers_are_cut_off_and_say_so() {
    let model = Arc::new(load(LONG_CONTEXT));
    let config = Config { drain_timeout_s: 0, ..Setup::default().config };
    let mut server = Server::with(Setup { config, model: Arc::clone(&model), ..Setup::default() }).await;
    let mut stream = server.open(CHAT, &streamed(chat(json!({"max_tokens": null})))).await;
    let first = next_piece(&mut stream).await.expect("it runs");
    let mut whole = server.connect().await;
    whole.write_all(&post_bytes(CHAT, &chat(json!({"max_tokens": null})))).await.expect("sent");
    server.until(|load| load.num_requests_running == 2).await;
    server.stop();
    let rest = Reply::read(stream).await;
    let text = String::from_utf8([first, rest.body].concat()).expect("UTF-8");
    let (events, ended) = events(&text);
    assert!(!ended, "a stream that was cut has no end mark");
    let last = events.last().expect("events");
    assert_eq!(last["error"]["code"], "unavailable");
    assert!(events.iter().rev().skip(1).all(|event| event["choices"][0]["finish_reason"].is_null()));
    assert!(!text_of(&events[..events.len() - 1], 0).is_empty());
    let mut reply = String::new();
    patiently(whole.read_to_string(&mut reply)).await.expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 503") && reply.contains("retry-after: 1"), "{reply}");
    server.ended().await;
    let_go(&model).await;
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_keep_a_worker_from_ending() {
    let mut server = long_with(Config { drain_timeout_s: 0, ..Setup::default().config }).await;
    let mut stuck = held(&server, &large_stream()).await;
    let _half = {
        let mut half = server.connect().await;
        half.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            .await
            .expect("sent");
        half
    };
    server.stop();
    server.ended().await;
    let mut rest = Vec::new();
    let _ = patiently(stuck.read_to_end(&mut rest)).await;
    assert!(!rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"), "it was cut off");
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let server = long_with(Config { idle_timeout_s: 1, ..Setup::default().config }).await;
    let mut stuck = held(&server, &large_stream()).await;
    server.until(|load| load.num_requests_running == 8).await;
    server.until(|load| load.num_requests_running == 0).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rest = Vec::new();
    let _ = patiently(stuck.read_to_end(&mut rest)).await;
    assert!(!rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"), "{} bytes came", rest.len());
}

#[tokio::test]
async fn dropping_a_worker_that_serves_closes_its_port_and_frees_its_engine() {
    let Setup { config, scheduler, .. } = Setup::default();
    let model = Arc::new(load(LONG_CONTEXT));
    let shared = WorkerModel { model: Arc::clone(&model), scheduler };
    let worker = Worker::bind(config, shared).await.expect("binds");
    let address = worker.address();
    let serving = tokio::spawn(worker.serve(std::future::pending()));
    let mut client = TcpStream::connect(address).await.expect("connects");
    client.write_all(&post_bytes(CHAT, &streamed(chat(json!({"max_tokens": null}))))).await.expect("sent");
    let mut piece = [0; 1000];
    assert_ne!(patiently(client.read(&mut piece)).await.expect("it runs"), 0);
    serving.abort();
    let mut rest = Vec::new();
    let _ = patiently(client.read_to_end(&mut rest)).await;
    let_go(&model).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_a_slow_body_is_refused() {
    let server = long_with(Config { idle_timeout_s: 1, ..Setup::default().config }).await;
    let mut silent = server.connect().await;
    let mut slow_head = server.connect().await;
    slow_head.write_all(b"GET /health/live HTT").await.expect("sent");
    let mut slow_body = server.connect().await;
    let whole = post_bytes(CHAT, &chat(json!({})));
    slow_body.write_all(&whole[..whole.len() - 1]).await.expect("sent");
    let mut rest = [String::new(), String::new(), String::new()];
    let [first, second, third] = &mut rest;
    let (silent, slow_head, slow_body) = tokio::join!(
        patiently(silent.read_to_string(first)),
        patiently(slow_head.read_to_string(second)),
        patiently(slow_body.read_to_string(third)),
    );
    assert_eq!(silent.ok(), Some(0), "closed without a word");
    assert!(slow_head.is_ok() && !rest[1].contains("live"), "{}", rest[1]);
    assert!(
        slow_body.is_ok() && rest[2].starts_with("HTTP/1.1 400") && rest[2].contains("too long"),
        "{}",
        rest[2]
    );
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_closes() {
    let server = long_with(Config { connections_max: 1, ..Setup::default().config }).await;
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = server.connect().await;
    first.write_all(request).await.expect("sent");
    let mut answer = [0; 15];
    patiently(first.read_exact(&mut answer)).await.expect("an answer");
    let mut second = server.connect().await;
    second.write_all(request).await.expect("sent");
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut answer)).await;
    assert!(early.is_err(), "it waits");
    drop(first);
    patiently(second.read_exact(&mut answer)).await.expect("its turn has come");
}

#[tokio::test]
async fn two_workers_share_one_model_and_answer_alike() {
    let (left, right) = (Server::start().await, Server::start().await);
    assert_ne!(left.address, right.address);
    let fields = json!({"seed": 9, "max_tokens": 30, "n": 2});
    let (left_answer, right_answer) = tokio::join!(left.chat(fields.clone()), right.chat(fields));
    assert_eq!(left_answer["choices"], right_answer["choices"]);
    drop(left);
    right.chat(json!({})).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_to_be() {
    let server = Server::start().await;
    let Setup { config, scheduler, model } = Setup::default();
    let config = Config { listen: server.address, ..config };
    let error = Worker::bind(config, WorkerModel { model, scheduler }).await.expect_err("taken");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}
