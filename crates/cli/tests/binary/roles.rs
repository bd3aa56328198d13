//! `tenk worker` and `tenk gateway`

use std::io::{Read, Write};
use std::net::TcpListener;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{HalfSent, Process, chat, eventually, get, post, run, tenk, text, tiny_model};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_port_in_use_is_told_at_once_before_a_model_is_loaded() {
    let (_folder, path) = tiny_model();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address").to_string();
    let worker = ["worker", "--model", text(&path)];
    for args in [&["gateway", "--worker", "http://127.0.0.1:9"], &worker, &["up", "--model", text(&path)]] {
        let ended = run(tenk(args).args(["--listen", &address]));
        let refused = ended.refused();
        assert!(refused.contains(&format!("cannot listen on {address}")), "{refused}");
        assert!(refused.contains("--listen"), "{refused}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn off_loopback_a_role_wants_keys() {
    let (_folder, path) = tiny_model();
    let worker = ["worker", "--model", text(&path)];
    for (args, word) in [
        (&["gateway", "--worker", "http://127.0.0.1:9"], "tenk key new"),
        (&["up", "--model", text(&path)], "tenk key new"),
        (&worker, "`worker.api_key`"),
    ] {
        let ended = run(tenk(args).args(["--listen", "0.0.0.0:0"]));
        assert!(ended.refused().contains(word), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_gpu_that_is_asked_for_but_cannot_be_used_is_told_in_one_sentence() {
    let (_folder, path) = tiny_model();
    let ended =
        run(&mut tenk(["worker", "--device", "cuda", "--listen", "127.0.0.1:0", "--model", text(&path)]));
    for part in ["`engine.device` is \"cuda\"", "--features cuda", "\"auto\""] {
        assert!(ended.refused().contains(part), "{ended:?}");
    }
    assert!(!ended.stderr.contains("--model"), "another model would not help: {ended:?}");
}

#[test]
fn a_gateway_without_workers_or_with_a_wrong_one_says_what_to_give() {
    let ended = run(&mut tenk(["gateway", "--listen", "127.0.0.1:0"]));
    assert!(ended.refused().contains("--worker http://127.0.0.1:8081"), "{ended:?}");
    let ended = run(&mut tenk(["gateway", "--listen", "127.0.0.1:0", "--worker", "here"]));
    assert!(ended.refused().contains("`here` must be like http://127.0.0.1:8081"), "{ended:?}");
}

#[test]
fn a_worker_answers_under_the_name_of_its_file_and_lets_a_request_finish_when_it_is_to_end() {
    let (_folder, path) = tiny_model();
    let worker = ["worker", "--listen", "127.0.0.1:0", "--threads", "1", "--model", text(&path)];
    let worker = Process::start(&mut tenk(worker));
    let address = worker.address();
    assert_eq!(get(address, "/v1/models").json()["data"][0]["id"], "tiny");
    let answer = post(address, CHAT, &chat("tiny"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["usage"]["completion_tokens"], 4, "{answer:?}");

    let mut long = chat("tiny");
    long["max_tokens"] = 900.into();
    long["ignore_eos"] = true.into();
    long["stream"] = true.into();
    let mut stream = HalfSent::begin(address, CHAT, &long).stream();
    let mut first = [0; 16];
    stream.read_exact(&mut first).expect("it begins");
    worker.signal(Signal::SIGTERM);
    worker.stderr.wait_for("word that it ends", |text| text.contains("ending").then_some(()));
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("it goes on");
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(worker.wait().code, Some(0));
}

#[test]
fn a_worker_serves_under_the_name_that_it_is_given() {
    let (_folder, path) = tiny_model();
    let worker = ["worker", "--listen", "127.0.0.1:0", "--model", text(&path), "--served-model-name", "Mine"];
    let worker = Process::start(&mut tenk(worker));
    assert_eq!(get(worker.address(), "/v1/models").json()["data"][0]["id"], "Mine");
}

/// One whose worker is not there.
fn lonely_gateway() -> std::process::Command {
    let mut gateway = tenk(["gateway", "--worker", "http://127.0.0.1:9"]);
    gateway.env("TENK_GATEWAY__LISTEN", "127.0.0.1:0");
    gateway
}

#[test]
fn settings_reach_a_gateway_from_variables_and_flags_win_over_them() {
    let gateway = Process::start(lonely_gateway().env("TENK_GATEWAY__BODY_BYTES_MAX", "1024"));
    let mut large = chat("tiny");
    large["messages"][0]["content"] = "x".repeat(2000).into();
    assert_eq!(post(gateway.address(), CHAT, &large).status, 413);

    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = held.local_addr().expect("an address").to_string();
    let mut command = lonely_gateway();
    let command = command.env("TENK_GATEWAY__LISTEN", &taken).args(["--listen", "127.0.0.1:0"]);
    assert_ne!(Process::start(command).address().to_string(), taken);
}

#[test]
fn a_gateway_that_is_asked_twice_to_end_ends_at_once() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut gateway = Process::start(&mut lonely_gateway());
        let _request = HalfSent::begin(gateway.address(), CHAT, &chat("tiny"));
        gateway.signal(Signal::SIGINT);
        gateway
            .stderr
            .wait_for("word that it ends", |text| text.contains("again to end at once").then_some(()));
        assert!(gateway.is_running(), "it waits for the request");
        gateway.signal(signal);
        assert_eq!(gateway.wait().code, Some(code));
    }
}

#[test]
fn an_idle_gateway_ends_well_at_the_first_signal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let gateway = Process::start(&mut lonely_gateway());
        gateway.address();
        gateway.signal(signal);
        assert_eq!(gateway.wait().code, Some(0));
    }
}

#[test]
fn the_log_says_more_or_nothing_as_it_is_told() {
    let log = |filter: &str| {
        let gateway = Process::start(lonely_gateway().env("TENK_LOG", filter));
        let address = gateway.address();
        // Its worker has been looked for, and something has been asked.
        eventually("a refusal", || (post(address, CHAT, &chat("tiny")).status != 200).then_some(()));
        gateway.signal(Signal::SIGTERM);
        gateway.wait().stderr
    };
    let events = |text: &str| text.lines().filter(|line| line.contains(" gateway::")).count();
    assert_eq!(events(&log("off")), 0);
    assert!(events(&log("debug")) > 0);
}

#[test]
fn with_a_log_for_machines_every_line_is_json() {
    let (_folder, path) = tiny_model();
    let worker = ["worker", "--listen", "127.0.0.1:0", "--log-format", "json", "--model", text(&path)];
    let worker = Process::start(&mut tenk(worker));
    worker.stderr.wait_for("an address", |text| text.contains("worker listening on http://").then_some(()));
    worker.signal(Signal::SIGTERM);
    let ended = worker.wait();
    assert_eq!(ended.code, Some(0));
    let messages: Vec<String> = ended
        .stderr
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            line["message"].as_str().expect("a message").to_owned()
        })
        .collect();
    for word in ["loading tiny", "loaded tiny", "listening on", "ending"] {
        assert!(messages.iter().any(|message| message.contains(word)), "{word}: {messages:?}");
    }
    assert_eq!(run(&mut tenk(["worker", "--log-format", "xml"])).code, Some(2));
}

#[test]
fn a_gateway_says_why_a_worker_is_not_well() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let [silence, elsewhere] = [&silent, &other].map(|listener| listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let mut stream = stream.expect("connected");
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let [silence, elsewhere] = [silence, elsewhere].map(|address| format!("http://{address}"));
    let mut gateway =
        tenk(["gateway", "--listen", "127.0.0.1:0", "--worker", &silence, "--worker", &elsewhere]);
    // A reserved port, where nobody listens.
    gateway.args(["--worker", "http://127.0.0.1:1"]);
    gateway.env("TENK_ROUTING__PROBE_INTERVAL_MS", "100").env("TENK_ROUTING__PROBE_TIMEOUT_MS", "100");
    let gateway = Process::start(&mut gateway);
    for (worker, why) in [
        (silence.as_str(), "no answer within 100ms"),
        (&elsewhere, "status 404 from /v1/models"),
        ("http://127.0.0.1:1", "Connection refused"),
    ] {
        gateway.stderr.wait_for(why, |text| {
            text.lines().find(|line| line.contains(worker) && line.contains(why)).map(drop)
        });
    }
}
