//! Streams: live, whole, and honest about an end that is not the end.

use serde_json::Value;

use crate::support::{End, Front, Gate, Reply, Worker, ask, chunks, streamed, texts, with};

/// Bypasses the cache, so that no flight stands between worker and client.
fn live(text: &str) -> Value {
    streamed(with(ask(text), "temperature", 0.7))
}

#[tokio::test]
async fn each_event_is_sent_on_as_it_comes_and_the_end_mark_last() {
    for request in [live("x"), streamed(ask("x"))] {
        let gate = Gate::closed();
        let worker = Worker::ours(Reply::gated_stream(&["a", "b"], &gate)).await;
        let front = Front::of(&[&worker]).await;
        gate.open(1);
        let mut stream = front.stream(&request).await;
        assert_eq!(stream.response.status(), 200);
        assert_eq!(stream.response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(stream.response.headers()["x-tenk-worker"], "worker-0");
        let sent = chunks(&["a", "b"]);
        assert_eq!(stream.next().await.as_ref(), Some(&sent[0]));
        for event in &sent[1..4] {
            gate.open(1);
            assert_eq!(stream.next().await.as_ref(), Some(event));
        }
        gate.open(1);
        assert_eq!(stream.rest().await, ["[DONE]"]);
    }
}

#[tokio::test]
async fn the_end_mark_does_not_wait_for_a_worker_that_keeps_its_body_open() {
    let worker = Worker::ours(Reply::cut_stream(&["a"], 3, End::DoneAndHold)).await;
    let front = Front::of(&[&worker]).await;
    let since = std::time::Instant::now();
    let events = front.stream(&live("x")).await.rest().await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert!(since.elapsed().as_millis() < 800, "{:?}", since.elapsed());
    worker.cancelled(1).await;
}

#[tokio::test]
async fn a_worker_that_breaks_off_in_mid_stream_is_told_of_and_not_retried() {
    for end in [End::BreakOff, End::NoMark] {
        for request in [live("x"), streamed(ask("x"))] {
            let workers = [
                Worker::ours(Reply::cut_stream(&["a", "b"], 2, end)).await,
                Worker::ours(Reply::cut_stream(&["a", "b"], 2, end)).await,
            ];
            let front = Front::of(&[&workers[0], &workers[1]]).await;
            let stream = front.stream(&request).await;
            let status = stream.response.status();
            let events = stream.rest().await;
            assert_eq!(workers[0].count() + workers[1].count(), 1, "asked again after the first byte");
            if status == 502 {
                // The worker was faster than the client's first read: all of it is an error, and that is right too.
                continue;
            }
            assert_eq!((status.as_u16(), texts(&events).as_str()), (200, "a"), "{events:?}");
            let error: Value = serde_json::from_str(events.last().expect("an error")).expect("JSON");
            assert_eq!(error["error"]["type"], "server_error", "{end:?}: {events:?}");
            assert!(!events.iter().any(|event| event == "[DONE]"));
        }
    }
}

#[tokio::test]
async fn an_error_event_of_the_worker_ends_the_stream_with_its_own_words() {
    let mut events = chunks(&["a"]);
    events.truncate(2);
    events.push(r#"{"error":{"message":"the engine has failed","type":"e","param":null,"code":500}}"#.into());
    events.push(r#"{"choices":[]}"#.into());
    for request in [live("x"), streamed(ask("x"))] {
        let gate = Gate::closed();
        let worker =
            Worker::ours(Reply::Stream { events: events.clone(), gate: Some(gate.clone()), end: End::Done });
        let worker = worker.await;
        let front = Front::of(&[&worker]).await;
        gate.open(2);
        let mut stream = front.stream(&request).await;
        assert!(stream.next().await.is_some() && stream.next().await.is_some());
        gate.open_for_all();
        let rest = stream.rest().await;
        assert!(rest.len() == 1 && rest[0].contains(r#""message":"the engine has failed""#), "{rest:?}");
    }
}

#[tokio::test]
async fn a_stream_of_garbage_is_cut_at_the_garbage() {
    let mut events = chunks(&["a"]);
    events.insert(2, "once upon a time".into());
    let worker = Worker::ours(Reply::Stream { events, gate: None, end: End::Done }).await;
    let front = Front::of(&[&worker]).await;
    let events = front.stream(&live("x")).await.rest().await;
    assert_eq!(texts(&events), "a");
    assert!(events.len() == 3 && events[2].starts_with(r#"{"error""#), "{events:?}");
}

#[tokio::test]
async fn a_worker_that_falls_silent_in_mid_stream_is_given_up() {
    let worker = Worker::ours(Reply::cut_stream(&["a"], 2, End::Silence)).await;
    let front = Front::with(&[&worker], |parts| parts.config.idle_timeout_s = 1).await;
    let events = front.stream(&live("x")).await.rest().await;
    assert_eq!(texts(&events), "a");
    assert!(events.last().is_some_and(|event| event.contains("timeout_error")), "{events:?}");
    worker.cancelled(1).await;
}

#[tokio::test]
async fn until_the_first_event_only_the_time_for_the_first_byte_counts_and_nobody_else_is_asked() {
    let timed_out = async |reply: Reply| {
        let workers = [Worker::ours(reply.clone()).await, Worker::ours(reply).await];
        let front = Front::with(&[&workers[0], &workers[1]], |parts| {
            parts.config.idle_timeout_s = 1;
            parts.config.first_byte_timeout_s = 2;
        })
        .await;
        let since = std::time::Instant::now();
        let got = front.chat(&live("x")).await;
        assert_eq!((got.status, got.error_type().as_str()), (504, "timeout_error"));
        assert!(since.elapsed().as_millis() >= 2000, "cut off after {:?}", since.elapsed());
        assert_eq!(workers[0].count() + workers[1].count(), 1, "the work may have been done already");
    };
    tokio::join!(timed_out(Reply::cut_stream(&["a"], 0, End::Silence)), timed_out(Reply::Hang));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_back_from_the_worker() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::gated_stream(&["a"], &gate)).await;
    let front = Front::of(&[&worker]).await;
    for (count, request) in [live("x"), streamed(ask("x"))].iter().enumerate() {
        gate.open(1);
        let mut stream = front.stream(request).await;
        assert!(stream.next().await.is_some());
        drop(stream);
        worker.cancelled(count + 1).await;
    }
    for (count, request) in [with(ask("x"), "temperature", 1), ask("x")].iter().enumerate() {
        let asked = front.spawn_chat(request);
        worker.asked(count + 3).await;
        asked.abort();
        worker.cancelled(count + 3).await;
    }
    front.metric_is(r#"tenk_gateway_worker_in_flight{worker="worker-0"}"#, 0.0).await;
    let cancelled = r#"tenk_gateway_worker_requests_total{outcome="cancelled",worker="worker-0"}"#;
    front.metric_is(cancelled, 4.0).await;
}
