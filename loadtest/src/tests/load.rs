//! Open loops, shards and starts, as whole runs.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::arrivals::Shard;

fn constant(server: &Server, rate: f64, requests: u64) -> Scenario {
    Scenario { arrivals: Arrivals::Constant { rate }, requests: Some(requests), ..scenario(server) }
}

/// The records of a run, in order of their indexes.
async fn records(test: LoadTest) -> (Report, Vec<Value>) {
    let dir = tempfile::tempdir().expect("a folder");
    let test = LoadTest { report_dir: Some(dir.path().to_owned()), ..test };
    let report = test.run(CancellationToken::new()).await.expect("a report");
    let mut records = lines(dir.path());
    records.sort_by_key(|record| (record["warmup"].as_bool(), record["index"].as_u64()));
    (report, records)
}

fn numbers(records: &[Value], name: &str) -> Vec<u64> {
    records.iter().map(|record| record[name].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn an_open_loop_keeps_its_schedule_though_the_server_is_slow() {
    let slow = Answer::Slow(vec![(40, text("a")), (0, finish()), (0, usage(1)), (0, done())]);
    let server = Server::start(vec![slow]).await;
    let (report, records) = records(load_test(constant(&server, 500.0, 12))).await;
    assert_eq!((report.requests.succeeded, report.requests.failed), (12, 0), "{:?}", report.errors);
    assert_eq!(numbers(&records, "scheduled_us"), (0..12).map(|nth| nth * 2_000).collect::<Vec<u64>>());
    for record in &records {
        assert!(record["sent_us"].as_u64() >= record["scheduled_us"].as_u64(), "never early: {record}");
    }
}

#[tokio::test]
async fn what_is_due_beyond_the_most_connections_is_never_sent_and_fails() {
    let server = Server::start(vec![Answer::Silence]).await;
    let client = ClientSettings { connections_max: 2, request_timeout_s: 0.5, ..ClientSettings::default() };
    let (report, records) = records(load_test(Scenario { client, ..constant(&server, 1_000.0, 6) })).await;
    let requests = &report.requests;
    assert_eq!((requests.offered, requests.failed, requests.unsent), (6, 2, 4), "what is unsent was offered");
    let kinds: Vec<&str> =
        records.iter().map(|record| record["failure"]["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["timeout", "timeout", "unsent", "unsent", "unsent", "unsent"]);
    assert_eq!(numbers(&records, "scheduled_us")[5], 5_000);
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test]
async fn an_open_loops_warm_up_is_sent_before_it() {
    let server = Server::start(vec![whole_stream()]).await;
    let (report, records) = records(load_test(Scenario { warmup: 3, ..constant(&server, 1_000.0, 4) })).await;
    assert_eq!((report.requests.warmup, report.requests.succeeded), (3, 4));
    assert_eq!(numbers(&records, "index"), [0, 1, 2, 3, 0, 1, 2]);
}

#[tokio::test]
async fn shards_together_send_what_one_process_would() {
    let sorted_bodies = |server: &Server| {
        let mut bodies: Vec<String> =
            server.bodies().iter().map(|body| body["messages"].to_string()).collect();
        bodies.sort_unstable();
        bodies
    };
    for arrivals in [Arrivals::Poisson { rate: 2_000.0 }, users(5)] {
        let whole = Server::start(vec![whole_stream()]).await;
        run(Scenario { arrivals: arrivals.clone(), ..scenario(&whole) }).await;
        let shared = Server::start(vec![whole_stream()]).await;
        let mut indexes = Vec::new();
        for index in 0..3 {
            let scenario = Scenario { arrivals: arrivals.clone(), ..scenario(&shared) };
            let test = LoadTest { shard: Shard { index, count: 3 }, ..load_test(scenario) };
            indexes.extend(numbers(&records(test).await.1, "index"));
        }
        indexes.sort_unstable();
        assert_eq!(indexes, (0..10).collect::<Vec<u64>>());
        assert_eq!(sorted_bodies(&shared), sorted_bodies(&whole));
    }
}

#[tokio::test]
async fn a_shard_that_does_not_exist_is_refused() {
    let server = Server::start(vec![whole_stream()]).await;
    let test = LoadTest { shard: Shard { index: 3, count: 3 }, ..load_test(scenario(&server)) };
    let error = test.run(CancellationToken::new()).await.expect_err("refused").to_string();
    assert!(error.contains("shard 3 of 3 does not exist"), "{error}");
}

#[tokio::test]
async fn a_run_starts_when_it_was_told_to_and_not_in_the_past() {
    let server = Server::start(vec![whole_stream()]).await;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let at = |start_at| LoadTest { start_at: Some(start_at), ..load_test(constant(&server, 1_000.0, 3)) };
    let report = at(now_s + 0.2).run(CancellationToken::new()).await.expect("a report");
    assert_eq!((report.requests.succeeded, report.started_unix_s), (3, (now_s + 0.2) as u64));
    let late = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    assert!(late >= now_s + 0.2, "nothing was sent before");
    for wrong in [now_s - 1.0, f64::NAN, -1.0] {
        let error = at(wrong).run(CancellationToken::new()).await.expect_err("refused").to_string();
        assert!(error.contains("seconds since 1970"), "{error}");
    }
}

#[tokio::test]
async fn the_share_of_answers_that_is_asked_for_is_streamed() {
    let server = Server::start(vec![whole_stream()]).await;
    let answers = Answers { streamed: 0.3, ..Answers::default() };
    run(Scenario { answers, requests: Some(200), ..scenario(&server) }).await;
    let streamed = server.bodies().iter().filter(|body| body["stream"] == true).count();
    assert!((40..80).contains(&streamed), "{streamed} of 200");
}

#[tokio::test]
async fn a_run_stopped_in_its_warm_up_abandons_nothing_and_sends_no_more() {
    let server = Server::start(vec![whole_stream(), Answer::Silence]).await;
    let stop = CancellationToken::new();
    let scenario = Scenario { warmup: 5, arrivals: users(1), ..scenario(&server) };
    let running = tokio::spawn(load_test(scenario).run(stop.clone()));
    server.has_been_asked(2).await;
    stop.cancel();
    let report = running.await.expect("no panic").expect("a report");
    assert!(report.interrupted);
    assert_eq!((report.requests.warmup, report.requests.succeeded, report.requests.abandoned), (1, 0, 0));
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test]
async fn a_record_says_which_worker_answered_and_what_the_cache_did() {
    let headed = |name, value, answer| Answer::Headed(name, value, Box::new(answer));
    let known = headed("x-tenk-worker", "worker-1", headed("x-tenk-cache", "coalesced", whole_stream()));
    let long = "a-name-that-is-longer-than-a-server-under-test-has-any-good-reason-to-give";
    let unknown = headed("x-tenk-worker", long, headed("x-tenk-cache", "perhaps", whole_stream()));
    let server = Server::start(vec![known, unknown]).await;
    let scenario = Scenario { arrivals: users(1), requests: Some(2), ..scenario(&server) };
    let (_, records) = records(load_test(scenario)).await;
    assert_eq!((&records[0]["worker"], &records[0]["cache"]), (&json!("worker-1"), &json!("coalesced")));
    assert_eq!((&records[1]["worker"], &records[1]["cache"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn answers_are_hashed_alike_whether_streamed_or_not() {
    let whole =
        json!({"choices": [{"message": {"content": "one two three four five"}, "finish_reason": "stop"}]});
    let cut = Answer::Events(vec![text("one")], End::Orderly);
    let server = Server::start(vec![whole_stream(), Answer::Body(200, whole), cut]).await;
    let hashed = |streamed| {
        let answers = Answers { hash: true, streamed, ..Answers::default() };
        Scenario { answers, arrivals: users(1), requests: Some(1), ..scenario(&server) }
    };
    let mut hashes = Vec::new();
    for streamed in [1.0, 0.0, 1.0] {
        hashes.push(records(load_test(hashed(streamed))).await.1[0]["answer_hash"].clone());
    }
    assert!(hashes[0].is_u64());
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[2], Value::Null, "half an answer has no hash");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_ends_the_run_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink("/dev/full", dir.path().join("records.jsonl")).expect("a link");
    let server = Server::start(vec![whole_stream()]).await;
    let scenario = Scenario { requests: Some(1_000_000), ..scenario(&server) };
    let test = LoadTest { report_dir: Some(dir.path().to_owned()), ..load_test(scenario) };
    let error = test.run(CancellationToken::new()).await.expect_err("no room").to_string();
    assert!(error.contains("records.jsonl: No space left"), "{error}");
}
