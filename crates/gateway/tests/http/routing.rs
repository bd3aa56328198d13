//! Which worker, and what becomes of one that goes away and comes back.

use std::collections::BTreeMap;

use ::routing::Policy;
use serde_json::{Value, json};

use crate::support::{Front, Gate, Reply, Worker, ask, completion, eventually, with};

/// A conversation of several prefix blocks that none of the others shares.
fn conversation(number: usize, turns: usize) -> Value {
    let messages: Vec<Value> = (0..turns)
        .map(|turn| json!({ "role": "user", "content": format!("{number} {turn} ").repeat(100) }))
        .collect();
    json!({ "model": "m", "messages": messages })
}

#[tokio::test]
async fn a_conversation_stays_with_the_worker_that_has_its_start() {
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Worker::ours(Reply::completion("a")).await);
    }
    let front = Front::of(&workers.iter().collect::<Vec<_>>()).await;
    let mut homes = BTreeMap::new();
    for turns in 1..=4 {
        for number in 0..6 {
            let got = front.chat(&conversation(number, turns)).await;
            let worker = got.header("x-tenk-worker").expect("answered by one").to_owned();
            let home = homes.entry(number).or_insert_with(|| worker.clone());
            assert_eq!(*home, worker, "conversation {number} moved at turn {turns}");
        }
    }
    assert!(workers.iter().all(|worker| worker.count() > 0), "all conversations are with one worker");
    let [blocks, matched] = ["tenk_gateway_prefix_blocks_total", "tenk_gateway_prefix_matched_blocks_total"];
    assert!(front.metric(matched).await > 0.4 * front.metric(blocks).await);
}

#[tokio::test]
async fn affinity_yields_when_that_worker_has_too_much_to_do() {
    let gate = Gate::closed();
    let workers = [Worker::ours(Reply::completion("a")).await, Worker::ours(Reply::completion("a")).await];
    let front = Front::of(&[&workers[0], &workers[1]]).await;
    front.chat(&conversation(0, 2)).await;
    let home = usize::from(workers[1].count() == 1);
    for worker in &workers {
        worker.reply(Reply::completion("a").after(&gate));
    }
    let asked: Vec<_> = (0..40).map(|_| front.spawn_chat(&conversation(0, 2))).collect();
    front.in_flight(40).await;
    let (at_home, away) = (workers[home].count() - 1, workers[1 - home].count());
    gate.open_for_all();
    for asked in asked {
        assert_eq!(asked.await.expect("answered").status, 200);
    }
    assert_eq!(at_home + away, 40);
    assert!(at_home >= away && away > 5, "{at_home} at home, {away} away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_together_see_each_other() {
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(Worker::ours(Reply::Hang).await);
    }
    let all: Vec<&Worker> = workers.iter().collect();
    let front = Front::with(&all, |parts| parts.routing.policy = Policy::LeastLoad).await;
    let asked: Vec<_> = (0..40).map(|number| front.spawn_chat(&with(ask("x"), "seed", number))).collect();
    for worker in &workers {
        worker.asked(10).await;
    }
    assert_eq!(workers.iter().map(Worker::count).collect::<Vec<_>>(), [10; 4]);
    asked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn load_that_others_put_on_a_worker_is_seen_in_its_report() {
    let workers = [Worker::ours(Reply::completion("a")).await, Worker::ours(Reply::completion("a")).await];
    let front =
        Front::with(&[&workers[0], &workers[1]], |parts| parts.routing.policy = Policy::LeastLoad).await;
    workers[0].report(|report| report.num_requests_waiting = 50);
    eventually("the load to be seen", async || {
        let before = workers[0].count();
        for number in 0..4 {
            front.chat(&with(with(ask("x"), "temperature", 1), "seed", number)).await;
        }
        workers[0].count() == before
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_goes_down_is_taken_out_and_used_again_when_it_is_back() {
    let (mut mortal, other) =
        (Worker::ours(Reply::completion("a")).await, Worker::ours(Reply::completion("a")).await);
    let front = Front::with(&[&mortal, &other], |parts| parts.routing.policy = Policy::RoundRobin).await;
    mortal.kill().await;
    front.healthy(0, false).await;
    let before = other.count();
    for number in 0..4 {
        assert_eq!(
            front.chat(&with(ask("x"), "seed", number)).await.header("x-tenk-worker"),
            Some("worker-1")
        );
    }
    assert_eq!(other.count(), before + 4);
    mortal.revive().await;
    front.healthy(0, true).await;
    for number in 4..8 {
        assert_eq!(front.chat(&with(ask("x"), "seed", number)).await.status, 200);
    }
    assert_eq!(mortal.count(), 2);
}

#[tokio::test]
async fn without_a_worker_the_answer_is_503_at_once() {
    let mut worker = Worker::ours(Reply::Hang).await;
    let nowhere = worker.url();
    worker.kill().await;
    let front = Front::unready(vec![nowhere], |_| {}).await;
    let unavailable = async |what: &str| {
        let since = std::time::Instant::now();
        let got = front.chat(&ask("x")).await;
        assert_eq!((got.status, got.error_type().as_str()), (503, "service_unavailable_error"), "{what}");
        assert_eq!(got.header("retry-after"), Some("1"));
        assert!(since.elapsed().as_secs() < 5, "{what} took {:?}", since.elapsed());
        assert_eq!(front.get("/health/ready").await.status, 503);
        assert_eq!(front.get("/health/live").await.status, 200);
    };
    unavailable("before the first one was seen").await;
    worker.revive().await;
    front.healthy(0, true).await;
    assert_eq!(front.get("/health/ready").await.status, 200);
    worker.kill().await;
    front.healthy(0, false).await;
    unavailable("after the last one died").await;
    assert_eq!(front.get("/v1/models").await.json()["data"][0]["id"], "m", "its model is not forgotten");
    assert_eq!(front.chat(&with(ask("x"), "model", "other")).await.status, 404);
    assert!(front.metric(r#"tenk_gateway_rejected_total{reason="no_worker"}"#).await >= 2.0);
}

#[tokio::test]
async fn a_worker_that_reports_it_is_not_ready_gets_nothing_and_keeps_what_it_has() {
    let gate = Gate::closed();
    let (leaving, staying) =
        (Worker::ours(Reply::completion("a").after(&gate)).await, Worker::ours(Reply::completion("a")).await);
    let front = Front::with(&[&leaving, &staying], |parts| parts.routing.policy = Policy::RoundRobin).await;
    let asked: Vec<_> = (0..2).map(|number| front.spawn_chat(&with(ask("x"), "seed", number))).collect();
    leaving.asked(1).await;
    leaving.report(|report| report.ready = false);
    front.healthy(0, false).await;
    for number in 2..6 {
        assert_eq!(
            front.chat(&with(ask("x"), "seed", number)).await.header("x-tenk-worker"),
            Some("worker-1")
        );
    }
    gate.open_for_all();
    for asked in asked {
        assert_eq!(asked.await.expect("answered").status, 200);
    }
    leaving.report(|report| report.ready = true);
    front.healthy(0, true).await;
}

#[tokio::test]
async fn a_session_stays_on_its_version_and_both_versions_are_used() {
    let workers = [
        Worker::of_version("v1", Reply::completion("one")).await,
        Worker::of_version("v2", Reply::completion("two")).await,
    ];
    let front = Front::of(&[&workers[0], &workers[1]]).await;
    let mut versions = BTreeMap::new();
    for round in 0..2 {
        for session in 0..16 {
            let request = with(ask(&format!("{round} {session}")), "temperature", 1);
            let got = front.chat_with(&request, &[("x-tenk-session", &session.to_string())]).await;
            let version = got.header("x-tenk-model-version").expect("known").to_owned();
            assert_eq!(got.text(), completion(if version == "v1" { "one" } else { "two" }));
            assert_eq!(
                *versions.entry(session).or_insert_with(|| version.clone()),
                version,
                "session {session}"
            );
        }
    }
    assert!(workers[0].count() > 0 && workers[1].count() > 0);
}

#[tokio::test]
async fn a_version_whose_workers_are_down_leaves_its_users_to_the_others() {
    let mut gone = Worker::of_version("v1", Reply::completion("one")).await;
    let there = Worker::of_version("v2", Reply::completion("two")).await;
    let front = Front::of(&[&gone, &there]).await;
    gone.kill().await;
    front.healthy(0, false).await;
    for session in 0..16 {
        let got = front.chat_with(&ask("x"), &[("x-tenk-session", &session.to_string())]).await;
        assert_eq!((got.status, got.header("x-tenk-model-version")), (200, Some("v2")));
    }
}

#[tokio::test]
async fn a_request_in_line_whose_version_went_away_is_answered_by_another_and_says_so() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::completion("a").after(&gate)).await;
    let front = Front::with(&[&worker], |parts| {
        parts.config.in_flight_max = 1;
        parts.config.queue_max = 1;
    })
    .await;
    let first = front.spawn_chat(&ask("1"));
    worker.asked(1).await;
    let waiting = front.spawn_chat(&ask("2"));
    front.metric_is("tenk_gateway_queue_depth", 1.0).await;
    worker.report(|report| report.version = "v2".into());
    // What comes now is of the new version, and as many times as the line is full it is told so.
    eventually("the new version", async || {
        front.chat(&ask("3")).await.header("x-tenk-model-version") == Some("v2")
    })
    .await;
    gate.open_for_all();
    assert_eq!(first.await.expect("answered").header("x-tenk-model-version"), Some("v1"));
    let waited = waiting.await.expect("answered");
    assert_eq!((waited.status, waited.header("x-tenk-model-version")), (200, Some("v2")));
}

#[tokio::test]
async fn a_model_is_not_denied_before_all_workers_were_heard() {
    let (worker, silent) = (Worker::ours(Reply::completion("a")).await, Worker::ours(Reply::Hang).await);
    silent.fall_silent();
    let front = Front::unready(vec![worker.url(), silent.url()], |parts| {
        parts.routing.probe_timeout_ms = 60_000;
    })
    .await;
    front.healthy(0, true).await;
    let got = front.chat(&with(ask("x"), "model", "other")).await;
    assert_eq!(got.status, 503, "{got:?}");
}
