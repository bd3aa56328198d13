//! How many may be with workers, and how many may wait.

use gateway::GatewayParts;

use crate::support::{Front, Gate, Reply, Worker, ask, streamed, with};

const QUEUE: &str = "tenk_gateway_queue_depth";

fn one_and_one(parts: &mut GatewayParts) {
    parts.config.in_flight_max = 1;
    parts.config.queue_max = 1;
}

#[tokio::test]
async fn one_is_with_the_worker_one_waits_and_the_third_is_sent_away_at_once() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::completion("a").after(&gate)).await;
    let front = Front::with(&[&worker], one_and_one).await;
    let first = front.spawn_chat(&ask("1"));
    worker.asked(1).await;
    let second = front.spawn_chat(&ask("2"));
    front.metric_is(QUEUE, 1.0).await;
    let third = front.chat(&ask("3")).await;
    assert_eq!((third.status, third.error_type().as_str()), (429, "rate_limit_error"));
    assert_eq!(third.header("retry-after"), Some("1"));
    assert_eq!(front.metric(r#"tenk_gateway_rejected_total{reason="queue_full"}"#).await, 1.0);
    assert_eq!(worker.count(), 1);
    gate.open_for_all();
    assert_eq!(first.await.expect("answered").status, 200);
    assert_eq!(second.await.expect("answered").status, 200);
    front.metric_is(QUEUE, 0.0).await;
    assert_eq!(front.chat(&ask("4")).await.status, 200);
}

#[tokio::test]
async fn who_waits_too_long_is_sent_away_and_its_place_in_line_is_free() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::with(&[&worker], |parts| {
        one_and_one(parts);
        parts.config.queue_timeout_ms = 50;
    })
    .await;
    let _first = front.spawn_chat(&ask("1"));
    worker.asked(1).await;
    for text in ["2", "3"] {
        let got = front.chat(&ask(text)).await;
        assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
    }
    assert_eq!(front.metric(r#"tenk_gateway_rejected_total{reason="queue_timeout"}"#).await, 2.0);
    assert_eq!(front.metric("tenk_gateway_queue_wait_seconds_count").await, 2.0);
}

#[tokio::test]
async fn a_client_that_leaves_the_line_frees_its_place_there() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::completion("a").after(&gate)).await;
    let front = Front::with(&[&worker], one_and_one).await;
    let _first = front.spawn_chat(&ask("1"));
    worker.asked(1).await;
    for request in [ask("2"), with(ask("2"), "temperature", 1)] {
        let waiting = front.spawn_chat(&request);
        front.metric_is(QUEUE, 1.0).await;
        waiting.abort();
        front.metric_is(QUEUE, 0.0).await;
    }
    assert_eq!(worker.count(), 1);
}

#[tokio::test]
async fn the_place_is_free_again_however_a_request_ends() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::with(&[&worker], |parts| {
        parts.config.in_flight_max = 1;
        parts.config.queue_max = 0;
        parts.routing.health.request_failures_max = 1000;
    })
    .await;
    for temperature in [0.0, 0.7] {
        let request = with(ask("x"), "temperature", temperature);
        // A stream that its client leaves.
        worker.reply(Reply::gated_stream(&["a", "b"], &gate));
        gate.open(1);
        let cancellations = worker.cancellations();
        let mut stream = front.stream(&streamed(request.clone())).await;
        assert!(stream.next().await.is_some());
        assert_eq!(front.chat(&ask("other")).await.status, 429, "the stream holds the only place");
        drop(stream);
        worker.cancelled(cancellations + 1).await;
        front.metric_is(r#"tenk_gateway_worker_in_flight{worker="worker-0"}"#, 0.0).await;
        // A fault, a refusal, a stream that breaks off, one that ends.
        let cut = Reply::cut_stream(&["a"], 2, crate::support::End::BreakOff);
        for reply in [Reply::hang_up(), Reply::json(400, "{}"), cut, Reply::stream(&["a"])] {
            worker.reply(reply.clone());
            let got = front.chat(&streamed(request.clone())).await;
            assert_ne!(got.status, 429, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_from_the_cache_needs_no_place() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::with(&[&worker], |parts| {
        parts.config.in_flight_max = 1;
        parts.config.queue_max = 0;
    })
    .await;
    assert_eq!(front.chat(&ask("known")).await.cache(), "miss");
    worker.reply(Reply::Hang);
    let _first = front.spawn_chat(&ask("1"));
    worker.asked(2).await;
    assert_eq!(front.chat(&ask("2")).await.status, 429);
    assert_eq!(front.chat(&ask("known")).await.cache(), "hit");
}

#[tokio::test]
async fn many_more_than_fit_are_all_served_in_the_end() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::with(&[&worker], |parts| parts.config.in_flight_max = 4).await;
    let asked: Vec<_> = (0..100).map(|number| front.spawn_chat(&with(ask("x"), "seed", number))).collect();
    for asked in asked {
        assert_eq!(asked.await.expect("answered").status, 200);
    }
    assert_eq!(worker.count(), 100);
    assert!(worker.connections() <= 8, "{} connections for 4 places", worker.connections());
}
