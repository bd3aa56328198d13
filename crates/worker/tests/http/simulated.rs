//! A simulated worker: the same API, a device's time, and faults on request.

use std::sync::Arc;
use std::time::Duration;

use engine::profile::{DEFAULT_NAME, Profile, shipped};
use engine::{Config as EngineConfig, LoadOptions, LoadedModel, SchedulerConfig};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use worker::{Worker, WorkerError, WorkerModel};

use crate::support::{CHAT, Server, Setup, chat, events, merged, patiently, streamed, text_of};

const FAULTS: &str = "/admin/faults";

/// Steps take this long, whatever is in them.
fn profile(step_us: f64) -> Profile {
    let mut profile = shipped(DEFAULT_NAME).expect("shipped");
    profile.device.peak_gb_s = 1e9;
    profile.device.peak_tflops = 1e9;
    profile.fitted.overhead_us = step_us;
    profile
}

fn setup_with(step_us: f64, kv_cache_tokens: usize, scheduler: SchedulerConfig) -> Setup {
    let config = EngineConfig { kv_cache_tokens, ..EngineConfig::default() };
    let options = LoadOptions { name: "tiny".into(), version: "v1".into(), config };
    let model = Arc::new(LoadedModel::simulated(profile(step_us), options).expect("loads"));
    Setup { model, scheduler, ..Setup::default() }
}

async fn simulated() -> Server {
    Server::with(setup_with(100.0, 16_384, SchedulerConfig::default())).await
}

async fn fault(server: &Server, fault: Value) {
    server.post(FAULTS, &fault).await.ok();
}

async fn metric(server: &Server, name: &str) -> f64 {
    let metrics = server.get("/metrics").await;
    let line = metrics.text().lines().find(|line| line.starts_with(name)).expect("exported").to_owned();
    line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
}

#[tokio::test]
async fn answers_have_the_asked_length_whole_and_streamed_and_are_the_same_at_any_temperature() {
    let server = simulated().await;
    let whole = server.chat(json!({"max_tokens": 40, "ignore_eos": false, "temperature": 1.5})).await;
    assert_eq!(whole["usage"]["completion_tokens"], 40);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let text = whole["choices"][0]["message"]["content"].as_str().expect("text");
    assert_eq!(text.split_whitespace().count(), 40, "{text}");
    for fields in
        [json!({"temperature": 0}), json!({"top_p": 0.5, "seed": 7}), json!({"frequency_penalty": 2})]
    {
        let fields = merged(fields, json!({"max_tokens": 40}));
        assert_eq!(text_of(&server.chat_events(fields).await, 0), text);
    }
    let scored = server.chat(json!({"logprobs": true, "top_logprobs": 3})).await;
    assert_eq!(scored["choices"][0]["logprobs"]["content"][0]["logprob"], 0.0);
    assert!(scored["choices"][0]["logprobs"]["content"][0]["top_logprobs"][2]["logprob"].is_number());
    let completed = server.complete(json!({"prompt": "the same words", "prompt_logprobs": 1})).await;
    assert_eq!(completed["usage"]["completion_tokens"], 8);
}

#[tokio::test]
async fn many_at_once_with_prefix_hits_and_preemptions_get_what_each_gets_alone() {
    let prompt = |user: usize| format!(" the people who{} could number {user}", " have".repeat(60));
    let asked = |user: usize| json!({"prompt": prompt(user), "max_tokens": 100});
    let scheduler = SchedulerConfig { max_num_seqs: 16, ..SchedulerConfig::default() };
    let roomy = Server::with(setup_with(100.0, 16_384, scheduler.clone())).await;
    // Slow enough that all are there before the first is done, and with room for three of twelve.
    let tight = Server::with(setup_with(1000.0, 640, scheduler)).await;
    let mut alone = Vec::new();
    for user in 0..12 {
        alone.push(roomy.complete(asked(user)).await["choices"].clone());
    }
    let crowd = futures::future::join_all((0..12).map(|user| tight.complete(asked(user)))).await;
    let crowd: Vec<_> = crowd.iter().map(|answer| answer["choices"].clone()).collect();
    assert_eq!(crowd, alone);
    assert!(metric(&tight, "vllm:num_preemptions_total").await > 0.0);
    assert!(metric(&tight, "vllm:prefix_cache_hits_total").await > 0.0);
    assert!(metric(&tight, "tenk_simulated_step_seconds_count").await >= 100.0);
    assert!(metric(&tight, "tenk_simulated_step_lateness_seconds_count").await >= 100.0);
}

#[tokio::test]
async fn text_becomes_tokens_and_comes_back() {
    let server = simulated().await;
    for text in [" the people of the world", "häßlich 🦀 漢字"] {
        let tokens = server.post("/tokenize", &json!({"prompt": text})).await.ok();
        let back = server.post("/detokenize", &json!({"tokens": tokens["tokens"]})).await.ok();
        assert_eq!(back["prompt"], text);
    }
    let tokens = server.post("/tokenize", &json!({"prompt": " the people of the world"})).await.ok();
    assert_eq!(tokens["count"], 5);
}

#[tokio::test]
async fn only_a_simulated_worker_has_faults() {
    let real = Server::start().await;
    assert_eq!(real.get(FAULTS).await.status, 404);
    let server = simulated().await;
    assert_eq!(server.get(FAULTS).await.ok(), json!({"faults": []}));
    fault(&server, json!({"kind": "slow", "factor": 2})).await;
    fault(&server, json!({"kind": "slow", "factor": 3})).await;
    fault(&server, json!({"kind": "garbage"})).await;
    let both = json!({"faults": [{"kind": "slow", "factor": 3.0}, {"kind": "garbage"}]});
    assert_eq!(server.get(FAULTS).await.ok(), both);
    assert_eq!(server.send(Method::DELETE, FAULTS, "").await.status, 204);
    assert_eq!(server.get(FAULTS).await.ok(), json!({"faults": []}));
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_a_400_that_says_so() {
    let server = simulated().await;
    for (body, word) in [
        (json!({}), "kind"),
        (json!(["crash"]), "JSON object"),
        (json!({"kind": "meteor"}), "meteor"),
        (json!({"kind": "hang"}), "for_s"),
        (json!({"kind": "hang", "for_s": -1}), "for_s"),
        (json!({"kind": "slow", "factor": 0}), "factor"),
        (json!({"kind": "drop", "share": 2}), "share"),
        (json!({"kind": "error_rate", "share": 0.5, "for_s": 3}), "for_s"),
    ] {
        let reply = server.post(FAULTS, &body).await;
        assert_eq!(reply.status, 400, "{body}");
        let error = reply.error();
        assert!(error["message"].as_str().expect("text").contains(word), "{body}: {error}");
    }
    assert_eq!(server.get(FAULTS).await.ok(), json!({"faults": []}));
}

#[tokio::test]
async fn garbage_is_other_text_until_it_is_over() {
    let server = simulated().await;
    let sound = server.chat(json!({})).await["choices"].clone();
    fault(&server, json!({"kind": "garbage"})).await;
    assert_ne!(server.chat(json!({})).await["choices"], sound);
    server.send(Method::DELETE, FAULTS, "").await;
    assert_eq!(server.chat(json!({})).await["choices"], sound);
}

#[tokio::test]
async fn a_share_of_requests_fails_and_nothing_else_does() {
    let server = simulated().await;
    fault(&server, json!({"kind": "error_rate", "share": 0.5})).await;
    let mut failed = 0;
    for _ in 0..40 {
        let reply = server.post(CHAT, &chat(json!({"max_tokens": 1}))).await;
        failed += usize::from(reply.status == 500);
        assert!([200, 500].contains(&reply.status));
    }
    assert!((10..=30).contains(&failed), "{failed} of 40");
    assert_eq!(server.get("/health/ready").await.status, 200);
    assert_eq!(server.get("/internal/load").await.status, 200);
}

#[tokio::test]
async fn a_dropped_stream_breaks_off_without_its_end_and_whole_answers_do_not() {
    let server = simulated().await;
    fault(&server, json!({"kind": "drop", "share": 1})).await;
    for len in [1, 30] {
        let response = server.open(CHAT, &streamed(chat(json!({"max_tokens": len})))).await;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut text = String::new();
        let broken = loop {
            match patiently(body.frame()).await {
                Some(Ok(frame)) => {
                    text += std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8")
                }
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert!(broken, "the connection breaks: {text}");
        let (seen, ended) = events(&text);
        assert!(!seen.is_empty() && !ended, "{text}");
    }
    server.chat(json!({})).await;
    server.send(Method::DELETE, FAULTS, "").await;
    server.chat_events(json!({})).await;
}

#[tokio::test]
async fn a_hanging_engine_takes_requests_and_answers_when_it_is_over() {
    let server = simulated().await;
    fault(&server, json!({"kind": "hang", "for_s": 3000})).await;
    let answer = server.chat(json!({}));
    let healed = async {
        server.until(|load| load.num_requests_running + load.num_requests_waiting > 0 || load.ready).await;
        assert_eq!(server.get(FAULTS).await.ok()["faults"][0]["kind"], "hang");
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.send(Method::DELETE, FAULTS, "").await;
    };
    let (answer, ()) = futures::future::join(answer, healed).await;
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    fault(&server, json!({"kind": "hang", "for_s": 0.02})).await;
    server.chat(json!({})).await;
    assert_eq!(server.get(FAULTS).await.ok(), json!({"faults": []}), "it is over by itself");
}

#[tokio::test]
async fn slow_steps_are_planned_slower() {
    let server = simulated().await;
    fault(&server, json!({"kind": "slow", "factor": 20})).await;
    server.chat(json!({"max_tokens": 5})).await;
    // The last step may be counted after its answer is there.
    let planned_s = metric(&server, "tenk_simulated_step_planned_seconds_sum").await;
    let steps = metric(&server, "tenk_simulated_step_planned_seconds_count").await;
    assert!(steps >= 4.0 && (planned_s / steps - 20.0 * 100e-6).abs() < 1e-5, "{planned_s} in {steps} steps");
}

#[tokio::test]
async fn a_crash_cuts_connections_closes_the_listener_and_is_an_error() {
    let Setup { config, scheduler, model } = setup_with(1000.0, 16_384, SchedulerConfig::default());
    let worker = Worker::bind(config, WorkerModel { model, scheduler }).await.expect("binds");
    let address = worker.address();
    let serving = tokio::spawn(worker.serve(std::future::pending()));
    let client = Server::client_of(address);
    let mut stream = client.open(CHAT, &streamed(chat(json!({"max_tokens": 10_000})))).await;
    patiently(stream.body_mut().frame()).await.expect("it runs").expect("no break");
    client.try_post(FAULTS, &json!({"kind": "crash"})).await;
    let ended = patiently(serving).await.expect("no panic");
    assert!(matches!(ended, Err(WorkerError::Crashed)), "{ended:?}");
    let broken = async {
        loop {
            match stream.body_mut().frame().await {
                Some(Ok(_)) => {}
                end => return end.is_some(),
            }
        }
    };
    assert!(patiently(broken).await, "the stream breaks");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn each_step_is_a_line_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("steps.jsonl");
    let mut setup = setup_with(100.0, 16_384, SchedulerConfig::default());
    setup.config.step_log = Some(path.clone());
    let mut server = Server::with(setup).await;
    let usage = server.chat(json!({"max_tokens": 30})).await["usage"].clone();
    server.stop();
    server.ended().await;
    let log = std::fs::read_to_string(&path).expect("a log");
    let log = engine::profile::StepLog::parse(&log).expect("reads");
    assert_eq!(log.header.model, profile(100.0).model);
    let prompt = usage["prompt_tokens"].as_u64().expect("a count") as usize;
    let runs: Vec<_> = log.samples.iter().map(|sample| sample.runs.clone()).collect();
    let expected = (0..30).map(|at| vec![if at == 0 { (prompt, 0) } else { (1, prompt + at - 1) }]);
    // The last step's line may still be on its way when its answer is there.
    assert!(runs.len() >= 29, "{runs:?}");
    assert!(expected.take(runs.len()).eq(runs));
    let total_s: f64 = log.samples.iter().map(|sample| sample.seconds).sum();
    assert!(total_s >= 25.0 * 100e-6, "{total_s}");
}
