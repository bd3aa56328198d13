//! What is tried again, what is not, and what bounds it.

use ::routing::Policy;
use gateway::GatewayParts;

use crate::support::{End, Front, Reply, Worker, ask, completion, error_json, streamed, with};

/// Each worker in turn, and none is taken out for its faults.
fn in_turn(parts: &mut GatewayParts) {
    parts.routing.policy = Policy::RoundRobin;
    parts.routing.health.request_failures_max = 100_000;
}

#[tokio::test]
async fn a_fault_before_the_first_byte_is_made_good_by_another_worker() {
    let bad = Worker::ours(Reply::Hang).await;
    let good = Worker::ours(Reply::Hang).await;
    let front = Front::with(&[&bad, &good], in_turn).await;
    let zipped = Reply::Body { status: 200, headers: vec![("content-encoding", "gzip")], body: "{}".into() };
    let faults = [
        ("broken_off", Reply::hang_up(), false),
        ("broken_off", Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".into()), false),
        ("broken_off", Reply::Raw("I am no web server\r\n\r\n".into()), false),
        ("broken_off", Reply::cut_stream(&["a"], 0, End::BreakOff), true),
        ("server_error", Reply::cut_stream(&["a"], 0, End::Done), true),
        ("server_error", Reply::json(500, error_json("oh")), false),
        ("server_error", Reply::json(502, "<html>"), true),
        ("server_error", Reply::json(200, "<html>"), false),
        ("server_error", Reply::json(401, "{}"), false),
        ("server_error", zipped, false),
        ("overloaded", Reply::json(429, error_json("full")), false),
        ("overloaded", Reply::json(429, error_json("full")), true),
        ("draining", Reply::json(503, error_json("bye")), false),
    ];
    for (number, (reason, fault, stream)) in faults.into_iter().enumerate() {
        let retried = format!(r#"tenk_gateway_retries_total{{reason="{reason}"}}"#);
        // A worker that hangs up on a kept connection is asked once more before another is.
        let again = async || front.metric(&retried).await + front.metric("tenk_gateway_resends_total").await;
        let (before, asked) = (again().await, bad.count());
        bad.reply(fault.clone());
        good.reply(if stream { Reply::stream(&["a"]) } else { Reply::completion("a") });
        // Two requests: by turns at least one of them meets the fault first.
        for half in 0..2 {
            let request = with(ask("x"), "seed", 2 * number + half);
            let got = front.chat(&if stream { streamed(request) } else { request }).await;
            assert_eq!(
                (got.status, got.header("x-tenk-worker")),
                (200, Some("worker-1")),
                "{fault:?}: {got:?}"
            );
            assert!(!stream || got.events().last().is_some_and(|event| event == "[DONE]"), "{got:?}");
        }
        let met = bad.count() - asked;
        assert!(met > 0, "{fault:?}");
        assert_eq!(again().await, before + met as f64, "{fault:?}");
        front.healthy(0, true).await;
    }
}

#[tokio::test]
async fn a_worker_that_cannot_be_reached_is_passed_over() {
    let (mut dead, good) = (Worker::ours(Reply::Hang).await, Worker::ours(Reply::completion("a")).await);
    let front = Front::with(&[&dead, &good], |parts| {
        in_turn(parts);
        // Only a request can find out.
        parts.routing.probe_interval_ms = 60_000;
    })
    .await;
    dead.kill().await;
    for number in 0..10 {
        assert_eq!(front.chat(&with(ask("x"), "seed", number)).await.status, 200);
    }
    assert_eq!(good.count(), 10);
    let refused =
        front.metric(r#"tenk_gateway_worker_requests_total{outcome="connect",worker="worker-0"}"#).await;
    assert_eq!(refused, 1.0, "after the first refusal it is out");
}

#[tokio::test]
async fn a_worker_killed_with_requests_in_it_fails_none_that_had_no_byte_yet() {
    let (mut dying, good) = (Worker::ours(Reply::Hang).await, Worker::ours(Reply::completion("a")).await);
    let front = Front::with(&[&dying, &good], in_turn).await;
    let asked: Vec<_> = (0..20).map(|number| front.spawn_chat(&with(ask("x"), "seed", number))).collect();
    dying.asked(10).await;
    dying.kill().await;
    for asked in asked {
        assert_eq!(asked.await.expect("answered").status, 200);
    }
    assert_eq!(good.count(), 20);
}

#[tokio::test]
async fn what_the_client_did_wrong_is_relayed_as_it_is_and_not_retried() {
    let refusing = [Worker::ours(Reply::Hang).await, Worker::ours(Reply::Hang).await];
    let front = Front::of(&[&refusing[0], &refusing[1]]).await;
    // vLLM's `code` is a number.
    let vllm = r#"{"error":{"message":"too long", "type":"BadRequestError","param":null,"code":400}}"#;
    for (status, body) in
        [(400, error_json("n is wrong")), (400, vllm.into()), (404, error_json("no")), (422, vllm.into())]
    {
        for stream in [false, true] {
            for worker in &refusing {
                worker.reply(Reply::json(status, body.clone()));
            }
            let before = refusing[0].count() + refusing[1].count();
            let got = front.chat(&if stream { streamed(ask("x")) } else { ask("x") }).await;
            assert_eq!((got.status, got.text()), (status, body.as_str()));
            assert_eq!(got.header("content-type"), Some("application/json"));
            assert_eq!(refusing[0].count() + refusing[1].count(), before + 1);
        }
    }
    for worker in &refusing {
        worker.reply(Reply::json(400, "<html>10.0.0.7 says no</html>"));
    }
    let got = front.chat(&ask("x")).await;
    assert_eq!((got.status, got.error_type().as_str()), (400, "invalid_request_error"));
    assert!(!got.text().contains("10.0.0.7"));
}

#[tokio::test]
async fn workers_that_always_fail_see_no_more_retries_than_the_budget_allows() {
    let failing = [Worker::ours(Reply::json(500, "{}")).await, Worker::ours(Reply::json(500, "{}")).await];
    let front = Front::with(&[&failing[0], &failing[1]], |parts| {
        in_turn(parts);
        parts.routing.retry_budget.retry_percent = 10;
        parts.routing.retry_budget.min_retries_per_s = 0;
        parts.routing.retry_budget.burst_retries = 3;
    })
    .await;
    for number in 0..40 {
        assert_eq!(front.chat(&with(ask("x"), "seed", number)).await.status, 502);
    }
    assert_eq!(failing[0].count() + failing[1].count(), 40 + 3 + 4);
}

#[tokio::test]
async fn no_request_has_more_attempts_than_the_bound() {
    let mut failing = Vec::new();
    for _ in 0..5 {
        failing.push(Worker::ours(Reply::json(500, "{}")).await);
    }
    let all: Vec<&Worker> = failing.iter().collect();
    let front = Front::with(&all, |parts| {
        in_turn(parts);
        parts.config.attempts_max = 3;
    })
    .await;
    assert_eq!(front.chat(&ask("x")).await.status, 502);
    assert_eq!(failing.iter().map(Worker::count).collect::<Vec<_>>().iter().sum::<usize>(), 3);
    assert!(failing.iter().all(|worker| worker.count() <= 1), "the same worker was asked twice");
}

#[tokio::test]
async fn when_every_worker_is_busy_the_client_is_told_when_to_come_again() {
    let busy = [Worker::ours(Reply::json(429, "{}")).await, Worker::ours(Reply::json(429, "{}")).await];
    let front = Front::of(&[&busy[0], &busy[1]]).await;
    let got = front.chat(&streamed(ask("x"))).await;
    assert_eq!((got.status, got.error_type().as_str()), (429, "rate_limit_error"));
    assert_eq!(got.header("retry-after"), Some("1"));
    assert_eq!((busy[0].count(), busy[1].count()), (1, 1));
    front.healthy(0, true).await;
}

#[tokio::test]
async fn a_worker_that_says_it_drains_gets_nothing_more_until_a_probe_finds_it_ready() {
    let (leaving, staying) = (Worker::ours(Reply::Hang).await, Worker::ours(Reply::completion("a")).await);
    let front = Front::with(&[&leaving, &staying], |parts| {
        in_turn(parts);
        parts.routing.probe_interval_ms = 60_000;
    })
    .await;
    leaving.reply(Reply::json(503, error_json("bye")));
    for number in 0..10 {
        assert_eq!(front.chat(&with(ask("x"), "seed", number)).await.status, 200);
    }
    assert_eq!((leaving.count(), staying.count()), (1, 10));
}

/// No probe after the first comes between requests.
fn probed_once(parts: &mut GatewayParts) {
    parts.routing.probe_interval_ms = 60_000;
    parts.routing.health.request_failures_max = 1;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_unannounced_is_no_fault_of_the_only_worker() {
    let worker = Worker::foreign(Reply::completion("a")).await;
    let front = Front::with(&[&worker], probed_once).await;
    assert_eq!(front.chat(&ask("first")).await.status, 200);
    worker.reply_once(Reply::hang_up());
    let got = front.chat(&ask("second")).await;
    assert_eq!((got.status, worker.count()), (200, 3), "sent again: {got:?}");
    assert_eq!(front.metric("tenk_gateway_resends_total").await, 1.0);
    front.healthy(0, true).await;
}

#[tokio::test]
async fn a_request_is_sent_again_at_most_once_for_a_closed_connection() {
    let worker = Worker::foreign(Reply::hang_up()).await;
    let front = Front::with(&[&worker], probed_once).await;
    // The probe's connection was a kept one; the one that came after it was new.
    let got = front.chat(&ask("first")).await;
    assert_eq!((got.status, worker.count()), (502, 2), "{got:?}");
}

#[tokio::test]
async fn errors_never_shut_the_only_worker_out_while_it_answers_probes() {
    let worker = Worker::ours(Reply::json(500, error_json("oh"))).await;
    let front = Front::with(&[&worker], |parts| {
        parts.routing.health.ejection_base_ms = 60_000;
        parts.routing.health.ejection_max_ms = 60_000;
    })
    .await;
    for number in 0..10 {
        assert_eq!(front.chat(&ask(&format!("bad {number}"))).await.status, 502);
    }
    worker.reply(Reply::completion("a"));
    assert_eq!(front.chat(&ask("good")).await.status, 200);
    assert_eq!(front.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_request_at_a_worker_that_fell_silent_moves_to_another() {
    let workers = [Worker::ours(Reply::Hang).await, Worker::ours(Reply::Hang).await];
    let front = Front::with(&[&workers[0], &workers[1]], |parts| parts.routing.probe_timeout_ms = 100).await;
    let asked = front.spawn_chat(&ask("x"));
    let at = loop {
        match workers.iter().position(|worker| worker.count() > 0) {
            Some(at) => break at,
            None => tokio::task::yield_now().await,
        }
    };
    workers[1 - at].reply(Reply::completion("a"));
    workers[at].fall_silent();
    let got = asked.await.expect("answered");
    assert_eq!((got.status, got.text()), (200, completion("a").as_str()), "{got:?}");
}

#[tokio::test]
async fn a_version_whose_only_worker_has_just_died_is_answered_by_another_before_any_probe() {
    let mut gone = Worker::of_version("v1", Reply::completion("one")).await;
    let there = Worker::of_version("v2", Reply::completion("two")).await;
    let front = Front::with(&[&gone, &there], probed_once).await;
    gone.kill().await;
    for session in 0..16 {
        let got = front.chat_with(&ask("x"), &[("x-tenk-session", &session.to_string())]).await;
        assert_eq!((got.status, got.header("x-tenk-model-version")), (200, Some("v2")), "{got:?}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_counted_as_the_error_that_it_is() {
    let worker = Worker::ours(Reply::cut_stream(&["a", "b"], 1, End::BreakOff)).await;
    let front = Front::of(&[&worker]).await;
    let got = front.chat(&streamed(ask("x"))).await;
    assert_eq!(got.status, 200, "the first byte had gone out");
    let labels = r#"{code="502",endpoint="chat_completions",model="m",version="v1"}"#;
    front.metric_is(&format!("tenk_gateway_requests_total{labels}"), 1.0).await;
}

#[tokio::test]
async fn a_request_that_ends_engines_meets_two_of_them_at_most() {
    let died = r#"{"error":{"message":"m","type":"server_error","param":null,"code":"engine_failed"}}"#;
    let workers = [
        Worker::ours(Reply::json(500, died)).await,
        Worker::ours(Reply::json(500, died)).await,
        Worker::ours(Reply::json(500, died)).await,
    ];
    let front = Front::with(&[&workers[0], &workers[1], &workers[2]], in_turn).await;
    assert_eq!(front.chat(&ask("x")).await.status, 502);
    assert_eq!(workers.iter().map(Worker::count).sum::<usize>(), 2);
}
