//! `--engine simulated` and `tenk profile`

use std::io::Write;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Process, chat, eventually, get, post, run, tenk, text, tiny_model};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn profiles_are_listed_with_what_they_run_and_shown_as_toml() {
    let list = run(&mut tenk(["profile", "list"])).succeeded();
    for name in ["h100-llama-8b", "a100-llama-8b", "l40s-llama-8b", "h100x2-llama-70b", "cpu-smollm2-135m"] {
        assert!(list.contains(name), "{list}");
    }
    let shown = run(&mut tenk(["profile", "show", "l40s-llama-8b"])).succeeded();
    assert!(shown.starts_with("name = \"l40s-llama-8b\"\n") && shown.contains("residual = "), "{shown}");
    let ended = run(&mut tenk(["profile", "show", "h200"]));
    assert!(ended.refused().contains("there is no profile `h200`; known are h100-llama-8b"), "{ended:?}");
}

#[test]
fn flags_that_do_not_go_together_are_refused_in_a_sentence() {
    for (args, message) in [
        (&["worker", "--profile", "l40s-llama-8b"][..], "add --engine simulated"),
        (&["up", "--engine", "simulated", "--model", "x"], "leave --model out"),
        (&["worker", "--engine", "simulated", "--profile", "none.toml"], "cannot read none.toml"),
        (
            &["up", "--engine", "simulated", "--profile", "l40s-llama-8b", "--profile", "l40s-llama-8b"],
            "two profiles are called `l40s-llama-8b`",
        ),
    ] {
        let ended = run(&mut tenk(args));
        assert!(ended.refused().contains(message), "{ended:?}");
    }
}

#[test]
fn a_simulated_worker_has_its_profiles_name_and_limits_and_ends_with_a_failure_when_it_crashes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mine.toml");
    let shown = run(&mut tenk(["profile", "show", "h100-llama-8b"])).succeeded();
    let mine =
        shown.replacen("h100-llama-8b", "mine", 1).replacen("max_num_seqs = 2048", "max_num_seqs = 77", 1);
    std::fs::write(&path, mine).expect("written");
    let worker = ["worker", "--engine", "simulated", "--profile", text(&path), "--listen", "127.0.0.1:0"];
    let worker = Process::start(tenk(worker).env("TENK_ENGINE__KV_CACHE_TOKENS", "4096"));
    let address = worker.address();
    let load = get(address, "/internal/load").json();
    assert_eq!((&load["model"], &load["max_num_seqs"]), (&json!("mine"), &json!(77)));
    assert_eq!(load["max_model_len"], 4096, "what is set wins over the profile");
    assert_eq!(load["version"].as_str().map(str::len), Some(12));
    assert_eq!(post(address, CHAT, &chat("mine")).json()["usage"]["completion_tokens"], 4);
    let crash = json!({"kind": "crash"}).to_string();
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let head = format!("POST /admin/faults HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", crash.len());
    stream.write_all((head + &crash).as_bytes()).expect("sent");
    let ended = worker.wait();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("tenk: the worker crashed, as a fault asked it to"), "{ended:?}");
}

#[test]
fn a_real_workers_step_log_becomes_a_profile_that_can_be_simulated() {
    let (folder, model) = tiny_model();
    let log = folder.path().join("steps.jsonl");
    let worker = ["worker", "--model", text(&model), "--step-log", text(&log), "--listen", "127.0.0.1:0"];
    let worker = Process::start(&mut tenk(worker));
    let address = worker.address();
    for _ in 0..8 {
        assert_eq!(post(address, CHAT, &chat("tiny")).status, 200);
    }
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait().code, Some(0));
    let fitted = run(&mut tenk(["profile", "fit", "--step-log", text(&log), "--name", "tiny-cpu"]));
    assert!(fitted.stderr.contains("steps: their sum"), "{fitted:?}");
    let path = folder.path().join("tiny-cpu.toml");
    std::fs::write(&path, fitted.succeeded()).expect("written");
    let up = ["up", "--engine", "simulated", "--workers", "1", "--profile", text(&path)];
    let up = Process::start(tenk(up).args(["--listen", "127.0.0.1:0"]));
    let address = up.address();
    eventually("an answer", || (post(address, CHAT, &chat("tiny-cpu")).status == 200).then_some(()));
}
