//! Connections and the gateway's end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{End, Front, Gate, Reply, Worker, ask, chunks, eventually, streamed, with, within};

/// Sends bytes and reads until the gateway closes or has nothing more to say for now.
pub(crate) async fn raw(front: &Front, bytes: &str) -> String {
    let mut stream = TcpStream::connect(front.address).await.expect("connects");
    stream.write_all(bytes.as_bytes()).await.expect("writes");
    let mut answer = vec![0; 16 << 10];
    let length = within("an answer", stream.read(&mut answer)).await.expect("reads");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Until the gateway closes the connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = within("the connection's end", stream.read_to_end(&mut rest)).await;
}

fn chat(body: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn at_its_end_a_gateway_takes_no_more_connections_and_lets_streams_finish() {
    let worker = Worker::ours(Reply::Hang).await;
    let mut front = Front::of(&[&worker]).await;
    let gates = [Gate::closed(), Gate::closed()];
    let mut streams = Vec::new();
    for (gate, temperature) in gates.iter().zip([0, 1]) {
        worker.reply(Reply::gated_stream(&["a", "b"], gate));
        gate.open(1);
        let mut stream = front.stream(&streamed(with(ask("x"), "temperature", temperature))).await;
        assert!(stream.next().await.is_some());
        streams.push(stream);
    }
    let mut idle = TcpStream::connect(front.address).await.expect("connects");
    front.get("/health/live").await;
    front.shut_down();
    eventually("connections to be refused", async || TcpStream::connect(front.address).await.is_err()).await;
    closed(&mut idle).await;
    gates.iter().for_each(Gate::open_for_all);
    for stream in streams {
        assert_eq!(stream.rest().await.last().map(String::as_str), Some("[DONE]"));
    }
    front.ended().await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let worker = Worker::ours(Reply::cut_stream(&["a"], 1, End::Silence)).await;
    let mut front = Front::with(&[&worker], |parts| parts.config.drain_timeout_s = 0).await;
    let mut stream = front.stream(&streamed(ask("x"))).await;
    assert!(stream.next().await.is_some());
    front.shut_down();
    front.ended().await;
    assert_eq!(stream.next().await, None);
    worker.cancelled(1).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_blocks_only_itself_and_not_for_ever() {
    let event = chunks(&["x".repeat(64 << 10).as_str()]).swap_remove(1);
    let flood = Reply::Stream { events: vec![event; 1000], gate: None, end: End::Done };
    let worker = Worker::ours(flood).await;
    let front = Front::with(&[&worker], |parts| parts.config.client_timeout_s = 1).await;
    let mut stalled = Vec::new();
    for temperature in [0, 1] {
        let mut stream = TcpStream::connect(front.address).await.expect("connects");
        let request = streamed(with(ask("x"), "temperature", temperature)).to_string();
        stream.write_all(chat(&request).as_bytes()).await.expect("writes");
        worker.asked(stalled.len() + 1).await;
        stalled.push(stream);
    }
    worker.reply(Reply::completion("a"));
    for number in 0..20 {
        assert_eq!(front.chat(&with(ask("y"), "seed", number)).await.status, 200);
    }
    worker.cancelled(2).await;
    front.metric_is("tenk_gateway_requests_in_flight", 0.0).await;
}

#[tokio::test]
async fn a_client_that_does_not_send_its_request_is_not_waited_for_for_ever() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::with(&[&worker], |parts| parts.config.client_timeout_s = 1).await;
    let starts = [String::new(), "POST /v1/chat".into(), chat(&ask("x").to_string()).replace("\"m\"", "\"")];
    let mut streams = Vec::new();
    for start in starts {
        let mut stream = TcpStream::connect(front.address).await.expect("connects");
        stream.write_all(start.as_bytes()).await.expect("writes");
        streams.push(stream);
    }
    for stream in &mut streams {
        closed(stream).await;
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::of(&[&worker]).await;
    let mut stream = TcpStream::connect(front.address).await.expect("connects");
    for (number, reply) in
        [Reply::completion("a"), Reply::stream(&["a"]), Reply::json(400, "{}")].into_iter().enumerate()
    {
        worker.reply(reply);
        let request = streamed(with(ask("x"), "seed", number));
        stream.write_all(chat(&request.to_string()).as_bytes()).await.expect("writes");
        let mut answer = Vec::new();
        let ended = |answer: &[u8]| {
            let answer = String::from_utf8_lossy(answer);
            answer.ends_with("0\r\n\r\n") || answer.ends_with("}}") || answer.trim_end().ends_with("} }")
        };
        while !ended(&answer) {
            let length = within("an answer", stream.read_buf(&mut answer)).await.expect("reads");
            assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 "));
    }
    assert_eq!(worker.count(), 3);
}

#[tokio::test]
async fn connections_above_the_bound_wait_until_one_ends() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::with(&[&worker], |parts| parts.config.connections_max = 2).await;
    let live = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(front.address).await.expect("connects");
        stream.write_all(live.as_bytes()).await.expect("writes");
        within("an answer", stream.read_u8()).await.expect("answered");
        held.push(stream);
    }
    let mut third = TcpStream::connect(front.address).await.expect("the kernel takes it");
    third.write_all(live.as_bytes()).await.expect("writes");
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), third.read_u8()).await;
    assert!(early.is_err(), "answered beyond the bound");
    held.pop();
    within("an answer", third.read_u8()).await.expect("answered");
}

#[tokio::test]
async fn a_gateway_that_is_asked_to_end_says_so_and_goes_on_answering_for_a_while() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let mut front = Front::with(&[&worker], |parts| parts.config.drain_delay_ms = 600_000).await;
    assert_eq!(front.chat(&ask("1")).await.header("connection"), None);
    front.shut_down();
    eventually("unready", async || front.get("/health/ready").await.status == 503).await;
    let got = front.chat(&ask("2")).await;
    assert_eq!((got.status, got.header("connection")), (200, Some("close")), "{got:?}");
}
