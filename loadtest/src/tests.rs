//! Whole runs against a scripted server.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api_key::ApiKey;
use crate::asking::Asked;
use crate::client::{Client, Job};
use crate::clock::Clock;
use crate::commands::run::Verdict;
use crate::driver::LoadTest;
use crate::error::Error;
use crate::prompts::PromptBasis;
use crate::record::FailureKind;
use crate::report::Report;
use crate::scenario::{Answers, Arrivals, Client as ClientSettings, Length, Prompts, Scenario};
use crate::target::Target;
use crate::tokenizer::CountTokens;

mod load;
pub(crate) mod server;
mod stale;

use server::{Answer, End, Server, done, finish, role, text, usage, whole_stream};

fn scenario(server: &Server) -> Scenario {
    Scenario {
        target: server.address.clone(),
        arrivals: users(2),
        requests: Some(10),
        prompts: prompts(16),
        answers: Answers { max_tokens: Length::Fixed(5), ..Answers::default() },
        client: ClientSettings { request_timeout_s: 20.0, ..ClientSettings::default() },
        ..Scenario::default()
    }
}

fn users(users: u32) -> Arrivals {
    Arrivals::ClosedLoop { users, think_time_s: 0.0 }
}

fn prompts(tokens: u32) -> Prompts {
    let tokens = Length::Fixed(tokens);
    Prompts::Synthetic { tokens, shared_prefix_tokens: 0, shared_prefixes: 1, repeats: None }
}

fn load_test(scenario: Scenario) -> LoadTest {
    LoadTest::new(scenario)
}

async fn run(scenario: Scenario) -> Report {
    load_test(scenario).run(CancellationToken::new()).await.expect("a report")
}

/// The one kind of error of a run of ten requests that all fail alike, and its example.
async fn only_error(answer: Answer, change: impl FnOnce(&mut Scenario)) -> (String, String) {
    let server = Server::start(vec![answer]).await;
    let mut scenario = scenario(&server);
    change(&mut scenario);
    let requests = scenario.requests;
    let report = run(scenario).await;
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
    let error = &report.errors[0];
    assert_eq!((Some(error.count), report.requests.succeeded), (requests, 0));
    assert!(report.figure("e2e_p50_ms").is_none(), "failed requests have no latency");
    assert_eq!(Verdict::of(&report, false, None), Verdict::Failed);
    assert_eq!(Verdict::of(&report, true, None), Verdict::Passed);
    (error.kind.clone(), error.example.clone())
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("records.jsonl")).expect("records");
    text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

#[tokio::test]
async fn a_run_counts_tokens_by_usage_and_not_by_chunks() {
    let server = Server::start(vec![whole_stream()]).await;
    let report = run(scenario(&server)).await;
    assert_eq!((report.requests.succeeded, report.requests.failed), (10, 0), "{:?}", report.errors);
    assert_eq!((report.tokens.output, report.tokens.prompt), (50, 200));
    assert_eq!(report.finish_reasons["length"], 10);
    assert_eq!(report.model, "first");
    assert_eq!(report.figure("ttft_count"), Some(10.0));
    assert_eq!(report.figure("inter_token_count"), Some(40.0), "five tokens have four gaps");
    assert_eq!(
        report.figure("inter_chunk_count"),
        Some(20.0),
        "three chunks have two gaps; a role is no chunk"
    );
    assert_eq!(Verdict::of(&report, false, None), Verdict::Passed);
}

#[tokio::test]
async fn records_keep_the_order_of_a_requests_life() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(vec![whole_stream()]).await;
    let test = LoadTest { report_dir: Some(dir.path().join("new")), ..load_test(scenario(&server)) };
    test.run(CancellationToken::new()).await.expect("a report").save(&dir.path().join("new")).expect("saved");
    let records = lines(&dir.path().join("new"));
    assert_eq!(records.len(), 10);
    for record in &records {
        let times = ["scheduled_us", "sent_us", "first_token_us", "last_token_us", "done_us"];
        let times: Vec<u64> = times.iter().map(|name| record[name].as_u64().expect("a time")).collect();
        assert!(times.is_sorted(), "{record}");
        let tokens: Vec<u64> =
            (0..3).map(|at| record["chunks"][at]["tokens"].as_u64().expect("tokens")).collect();
        assert_eq!(tokens.iter().sum::<u64>(), 5);
        assert_eq!(record["token_basis"], "usage");
    }
    let indexes: HashSet<u64> = records.iter().filter_map(|record| record["index"].as_u64()).collect();
    assert_eq!(indexes, (0..10).collect());
    let report = std::fs::read(dir.path().join("new/report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("json");
    assert_eq!(report["schema"], crate::report::SCHEMA);
}

#[tokio::test]
async fn a_stream_cut_short_is_a_failure_whatever_its_status() {
    let without_done = Answer::Events(vec![role(), text("a"), finish(), usage(1)], End::Orderly);
    let (kind, example) = only_error(without_done, |_| {}).await;
    assert_eq!(kind, "truncated");
    assert!(example.ends_with("without [DONE]"), "{example}");

    let without_reason = Answer::Events(vec![role(), text("a"), usage(1), done()], End::Orderly);
    let (kind, example) = only_error(without_reason, |_| {}).await;
    assert_eq!(kind, "truncated");
    assert!(example.ends_with("without a finish_reason"), "{example}");

    let broken = Answer::Events(vec![role(), text("a")], End::Broken);
    assert_eq!(only_error(broken, |_| {}).await.0, "disconnected");
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_a_failure_where_one_was_asked_for() {
    let whole =
        Answer::Body(200, json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}));
    assert_eq!(only_error(whole, |_| {}).await.0, "truncated");
}

#[tokio::test]
async fn a_status_is_an_error_kind_with_the_servers_message() {
    let busy = Answer::Body(429, json!({"error": {"message": "come back", "type": "rate_limit_error"}}));
    assert_eq!(only_error(busy, |_| {}).await, ("http_429".to_owned(), "429: come back".to_owned()));
}

#[tokio::test]
async fn an_error_event_is_an_error_kind_with_the_servers_message() {
    let error = protocol::sse::event(&json!({"error": {"message": "worker lost"}}).to_string());
    let answer = Answer::Events(vec![role(), text("a"), error, done()], End::Orderly);
    assert_eq!(only_error(answer, |_| {}).await, ("stream_error".to_owned(), "worker lost".to_owned()));
}

#[tokio::test]
async fn a_server_that_stalls_runs_into_the_time_out() {
    let brief = |scenario: &mut Scenario| {
        scenario.client.request_timeout_s = 0.05;
        scenario.requests = Some(2);
    };
    assert_eq!(only_error(Answer::Silence, brief).await.0, "timeout");
    let stalled = Answer::Events(vec![role(), text("a")], End::Never);
    assert_eq!(only_error(stalled, brief).await.0, "timeout");
}

#[tokio::test]
async fn an_end_mark_ends_a_stream_whose_body_stays_open() {
    let open = Answer::Events(vec![role(), text("a"), finish(), usage(1), done()], End::Never);
    let server = Server::start(vec![open]).await;
    let report = run(Scenario { requests: Some(1), ..scenario(&server) }).await;
    assert_eq!((report.requests.succeeded, report.tokens.output), (1, 1));
}

#[tokio::test]
async fn kinds_of_outcome_are_counted_apart() {
    let busy = Answer::Body(503, json!({"detail": "x"}));
    let cut = Answer::Events(vec![text("a")], End::Orderly);
    let server = Server::start(vec![whole_stream(), busy, cut, whole_stream(), whole_stream()]).await;
    let report = run(scenario(&server)).await;
    assert_eq!((report.requests.succeeded, report.requests.failed), (6, 4));
    let mut errors: Vec<(&str, u64)> =
        report.errors.iter().map(|error| (error.kind.as_str(), error.count)).collect();
    errors.sort_unstable();
    assert_eq!(errors, [("http_503", 2), ("truncated", 2)]);
    assert_eq!(report.tokens.output, 30, "only of requests that succeeded");
}

#[tokio::test]
async fn whole_answers_have_an_end_but_no_first_token() {
    let whole = json!({"choices": [{"message": {"content": "hi there"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}});
    let server = Server::start(vec![Answer::Body(200, whole)]).await;
    let report =
        run(Scenario { answers: Answers { streamed: 0.0, ..Answers::default() }, ..scenario(&server) }).await;
    assert_eq!((report.requests.succeeded, report.tokens.output), (10, 20));
    assert!(report.figure("ttft_p50_ms").is_none() && report.figure("tpot_p50_ms").is_none());
    assert_eq!(report.figure("e2e_count"), Some(10.0));
    let body = &server.bodies()[0];
    assert_eq!((&body["stream"], body.get("stream_options")), (&json!(false), None));
}

#[tokio::test]
async fn a_request_carries_what_was_asked_for_and_no_extension_unasked() {
    let server = Server::start(vec![whole_stream()]).await;
    run(scenario(&server)).await;
    let body = &server.bodies()[0];
    let mut fields: Vec<&str> = body.as_object().expect("object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["max_tokens", "messages", "model", "stream", "stream_options"]);
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    assert_eq!(server.authorizations()[0], None);

    let server = Server::start(vec![whole_stream()]).await;
    let scenario = Scenario {
        answers: Answers {
            ignore_eos: true,
            temperature: Some(0.0),
            return_token_ids: true,
            ..Answers::default()
        },
        model: Some("second".into()),
        ..scenario(&server)
    };
    let test = LoadTest { api_key: Some(ApiKey::from("secret".to_owned())), ..load_test(scenario) };
    test.run(CancellationToken::new()).await.expect("a report");
    let body = &server.bodies()[0];
    assert_eq!(body["model"], "second");
    assert_eq!((&body["ignore_eos"], &body["return_token_ids"]), (&json!(true), &json!(true)));
    assert_eq!(body["temperature"], json!(0.0));
    assert_eq!(server.authorizations()[0].as_deref(), Some("Bearer secret"));
}

#[tokio::test]
async fn warm_up_is_in_no_figure_and_has_prompts_of_its_own() {
    let server = Server::start(vec![whole_stream()]).await;
    let report = run(Scenario { warmup: 4, ..scenario(&server) }).await;
    assert_eq!((report.requests.warmup, report.requests.succeeded, report.tokens.output), (4, 10, 50));
    let prompts: HashSet<String> = server.bodies().iter().map(|body| body["messages"].to_string()).collect();
    assert_eq!(prompts.len(), 14);
}

#[tokio::test]
async fn prompts_have_the_length_that_the_targets_tokenizer_counts() {
    let three_a_word = |text: &str| 3 * text.split(' ').count();
    let server = Server::with_tokenizer(vec![whole_stream()], Some(three_a_word)).await;
    let report = run(Scenario { prompts: prompts(300), ..scenario(&server) }).await;
    assert_eq!(report.prompt_basis, PromptBasis::Counted { sample_tokens: 300 });
    for body in server.bodies() {
        assert_eq!(three_a_word(body["messages"][0]["content"].as_str().expect("text")), 300);
    }
}

#[tokio::test]
async fn without_a_tokenizer_lengths_are_estimated_and_the_report_says_so() {
    let server = Server::start(vec![whole_stream()]).await;
    let report = run(scenario(&server)).await;
    assert_eq!(report.prompt_basis, PromptBasis::Estimated);
    assert!(report.notes.iter().any(|note| note.contains("estimate")), "{:?}", report.notes);
}

/// A tokenizer for any file: four tokens a word.
fn four_a_word(path: &Path) -> Result<CountTokens, String> {
    if !path.is_file() {
        return Err(format!("the tokenizer {} cannot be used", path.display()));
    }
    Ok(Box::new(|text| Ok(4 * text.split(' ').count() as u64)))
}

#[tokio::test]
async fn a_tokenizer_that_is_given_wins_over_the_targets_own() {
    let three_a_word = |text: &str| 3 * text.split(' ').count();
    let server = Server::with_tokenizer(vec![whole_stream()], Some(three_a_word)).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let tokenizer = Some(file.path().to_owned());
    let scenario = Scenario { prompts: prompts(300), tokenizer, ..scenario(&server) };
    let given = LoadTest { open_tokenizer: Some(four_a_word), ..load_test(scenario) };
    let report = given.run(CancellationToken::new()).await.expect("a report");
    assert_eq!(report.prompt_basis, PromptBasis::Tokenizer { sample_tokens: 300 });
    for body in server.bodies() {
        assert_eq!(body["messages"][0]["content"].as_str().expect("text").split(' ').count(), 75);
    }
    let mut table = Vec::new();
    report.write_table(&mut table).expect("written");
    let known = format!("as the tokenizer {} counts", file.path().display());
    assert!(String::from_utf8_lossy(&table).contains(&known), "{}", String::from_utf8_lossy(&table));
}

#[tokio::test]
async fn a_tokenizer_that_cannot_be_opened_is_told_before_anything_is_sent() {
    // Nobody is asked, so nobody needs to be there.
    let tokenizer = Some("not/there".into());
    let scenario =
        Scenario { target: "http://127.0.0.1:1".into(), requests: Some(1), tokenizer, ..Scenario::default() };
    for (open_tokenizer, reason) in [(Some(four_a_word as _), "cannot be used"), (None, "links none")] {
        let given = LoadTest { open_tokenizer, ..load_test(scenario.clone()) };
        let refused = given.run(CancellationToken::new()).await.expect_err("no tokenizer").to_string();
        assert!(refused.starts_with("the tokenizer not/there ") && refused.contains(reason), "{refused}");
    }
}

#[tokio::test]
async fn a_file_of_prompts_is_sent_as_it_stands() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("prompts.jsonl");
    std::fs::write(&path, "{\"prompt\": \"hello\", \"max_tokens\": 2}\n").expect("written");
    let server = Server::start(vec![whole_stream()]).await;
    let report = run(Scenario { prompts: Prompts::File { path }, ..scenario(&server) }).await;
    assert_eq!(report.prompt_basis, PromptBasis::File { prompts: 1 });
    assert!(report.notes.iter().any(|note| note.contains("repeated")), "{:?}", report.notes);
    let body = &server.bodies()[0];
    assert_eq!(body["messages"], json!([{"role": "user", "content": "hello"}]));
    assert_eq!(body["max_tokens"], 2);
}

#[tokio::test]
async fn an_interrupted_run_still_reports() {
    let server = Server::start(vec![whole_stream(), whole_stream(), whole_stream(), Answer::Silence]).await;
    let stop = CancellationToken::new();
    let scenario = Scenario { arrivals: users(1), ..scenario(&server) };
    let running = tokio::spawn(load_test(scenario).run(stop.clone()));
    server.has_been_asked(4).await;
    stop.cancel();
    let report = running.await.expect("no panic").expect("a report");
    assert!(report.interrupted);
    assert_eq!((report.requests.succeeded, report.requests.failed, report.requests.abandoned), (3, 0, 1));
    assert_eq!(Verdict::of(&report, false, None), Verdict::Interrupted);
}

#[tokio::test]
async fn a_run_by_duration_ends_with_what_is_in_flight() {
    let server = Server::start(vec![whole_stream()]).await;
    let report = run(Scenario { requests: None, duration_s: Some(0.1), ..scenario(&server) }).await;
    assert!(report.requests.succeeded > 0);
    assert_eq!((report.requests.failed, report.requests.abandoned), (0, 0));
    assert_eq!(
        server.bodies().len() as u64,
        report.requests.succeeded,
        "every request sent was seen to its end"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_before_the_run() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = load_test(Scenario { target, requests: Some(1), ..Scenario::default() })
        .run(CancellationToken::new())
        .await;
    let error = error.expect_err("no server");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("is the server up"), "{error}");
}

#[tokio::test]
async fn a_run_can_be_interrupted_while_a_silent_server_is_asked_for_its_model() {
    // The system takes connections for it, and nobody reads them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let target = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let running = load_test(Scenario { target, requests: Some(1), ..Scenario::default() }).run(stop.clone());
    let running = tokio::spawn(running);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!running.is_finished());
    stop.cancel();
    let error = running.await.expect("no panic").expect_err("nothing was measured");
    assert!(matches!(error, Error::Interrupted), "{error}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_counted_as_no_connection() {
    let server = Server::start(vec![whole_stream()]).await;
    let scenario = Scenario {
        target: server.address.clone(),
        requests: Some(2),
        arrivals: users(2),
        ..Scenario::default()
    };
    let target = Target::parse(&scenario.target).expect("an address");
    let client = Client::new(&scenario, target, None).expect("a client");
    server.stop().await;
    let asked = Asked {
        messages_json: bytes::Bytes::from_static(b"[]"),
        max_tokens: 1,
        stream: true,
        prompt_tokens: 0,
        more_turns: false,
    };
    let job = Job { index: 0, turn: 0, warmup: false, scheduled_us: 0, asked: &asked };
    let failure = client.send(job, Clock::start()).await.record.failure.expect("no server");
    assert_eq!(failure.kind, FailureKind::Connect, "{}", failure.example);
}

#[tokio::test]
async fn times_are_those_of_text_and_not_of_roles_or_end_marks() {
    let events = [(0, role()), (60, text("a")), (40, text("b")), (50, finish()), (0, usage(2)), (0, done())];
    let server = Server::start(vec![Answer::Slow(events.to_vec())]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let scenario = Scenario { requests: Some(2), ..scenario(&server) };
    let test = LoadTest { report_dir: Some(dir.path().to_owned()), ..load_test(scenario) };
    test.run(CancellationToken::new()).await.expect("a report");
    for record in lines(dir.path()) {
        let since_sent =
            |name: &str| record[name].as_u64().expect("a time") - record["sent_us"].as_u64().expect("a time");
        assert!(since_sent("first_token_us") >= 60_000, "{record}");
        assert!(since_sent("last_token_us") >= 100_000, "{record}");
        assert!(since_sent("done_us") >= 150_000, "{record}");
        assert!(record["last_token_us"].as_u64() < record["done_us"].as_u64(), "{record}");
    }
}
