//! What is wrong at the start is said in one sentence that says what to do.

#![expect(clippy::panic, reason = "all of it is test")]

use std::net::TcpListener;

use serde_json::json;
use tests::{Ended, Launch, Tenk, TinyModel, run_to_end};

/// The one sentence of a process that could not start.
fn refusal(ended: &Ended) -> &str {
    assert!(!ended.status.success(), "{ended:?}");
    assert!(ended.status.code().is_some(), "it did not end by itself: {ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    let sentences: Vec<&str> = ended.stderr.lines().filter_map(|line| line.strip_prefix("tenk: ")).collect();
    let [sentence] = sentences[..] else { panic!("not one sentence: {ended:?}") };
    assert!(ended.stderr.trim_end().ends_with(sentence), "it is not the last word: {ended:?}");
    assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("backtrace"), "{ended:?}");
    sentence
}

fn holds(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is missing: {sentence}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_port_and_the_flag_that_changes_it() {
    let model = TinyModel::new().expect("a model");
    let model = model.path();
    let model = model.to_str().expect("a plain path");
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address").to_string();
    for args in [
        ["gateway", "--worker", "http://127.0.0.1:9"],
        ["worker", "--model", model],
        ["up", "--model", model],
    ] {
        let ended = run_to_end(args.iter().chain(&["--listen", &address])).await.expect("it ends");
        holds(refusal(&ended), &[&address, "--listen"]);
    }
}

#[tokio::test]
async fn a_model_file_that_is_no_model_is_named_and_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = TinyModel::new().expect("a model");
    let bytes = std::fs::read(whole.path()).expect("readable");
    let mut vast = bytes.clone();
    // The count of tensors in GGUF's head.
    vast[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    for (name, bytes) in [
        ("noise.gguf", vec![7; 4096]),
        ("empty.gguf", Vec::new()),
        ("cut.gguf", bytes[..bytes.len() / 2].to_vec()),
        ("head-only.gguf", bytes[..100].to_vec()),
        ("vast.gguf", vast),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let path = path.to_str().expect("a plain path");
        for role in ["worker", "up"] {
            let ended =
                run_to_end([role, "--listen", "127.0.0.1:0", "--model", path]).await.expect("it ends");
            holds(refusal(&ended), &[name]);
        }
    }
    let absent = folder.path().join("absent.gguf");
    let absent = absent.to_str().expect("a plain path");
    let ended = run_to_end(["worker", "--listen", "127.0.0.1:0", "--model", absent]).await.expect("it ends");
    holds(refusal(&ended), &["absent.gguf"]);
    let ended =
        run_to_end(["worker", "--listen", "127.0.0.1:0", "--model", "smollm2-135m"]).await.expect("it ends");
    holds(refusal(&ended), &["smollm2-135m-instruct"]);
}

#[tokio::test]
async fn a_wrong_key_is_told_with_file_line_and_the_nearest_right_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tenk.toml");
    for (toml, parts) in [
        (
            "[scheduler]\n\nmax_num_seq = 4\n",
            &["tenk.toml:3", "`max_num_seq`", "did you mean", "`max_num_seqs`"],
        ),
        ("[schedular]\nmax_num_seqs = 4\n", &["tenk.toml:1", "schedular", "did you mean", "scheduler"]),
        ("[gateway]\nin_flight_max = \"many\"\n", &["tenk.toml:2", "many", "", ""]),
        ("[gateway]\nin_flight_max = 0\n", &["gateway.in_flight_max", "is 0", "between 1 and", ""]),
        ("[gateway\n", &["tenk.toml:1", "", "", ""]),
    ] {
        std::fs::write(&path, toml).expect("written");
        let path = path.to_str().expect("a plain path");
        let role = ["up", "--listen", "127.0.0.1:0", "--config", path];
        for args in [&role[..], &["config", "check", "--config", path]] {
            let ended = run_to_end(args).await.expect("it ends");
            holds(refusal(&ended), parts);
        }
    }
    let absent = folder.path().join("absent.toml");
    let ended =
        run_to_end(["up", "--config", absent.to_str().expect("a plain path")]).await.expect("it ends");
    holds(refusal(&ended), &["absent.toml", "cannot be read"]);
}

#[tokio::test]
async fn without_the_redis_that_was_asked_for_it_warns_and_answers() {
    let model = TinyModel::new().expect("a model");
    let worker = Tenk::worker(&model.path()).await.expect("a worker");
    // A port that nobody listens on while this holds it.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://127.0.0.1:{}", held.local_addr().expect("an address").port());
    let gateway = Launch::gateway([&worker]).arg("--redis").arg(&url);
    let up = Launch::up(&model.path()).arg("--workers").arg("1").arg("--redis").arg(&url);
    for launch in [gateway, up] {
        let mut tenk = launch.start().await.expect("it starts");
        tenk.ready().await.expect("ready");
        let warning = tenk.wait_for("it warned", |log| {
            log.lines().find(|line| line.to_lowercase().starts_with("warning")).map(str::to_owned)
        });
        let warning = warning.await.expect("a warning");
        holds(&warning, &["Redis", "--redis"]);
        let asked = json!({
            "model": TinyModel::NAME, "max_tokens": 2, "temperature": 0,
            "messages": [{"role": "user", "content": "hello"}],
        });
        for _ in 0..2 {
            let reply = tenk.api().post("/v1/chat/completions", &asked).await.expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn off_loopback_without_keys_nothing_listens() {
    let model = TinyModel::new().expect("a model");
    let model = model.path();
    let model = model.to_str().expect("a plain path");
    for (args, parts) in [
        (["gateway", "--worker", "http://127.0.0.1:9"], ["gateway.listen", "tenk key new"]),
        (["up", "--model", model], ["gateway.listen", "tenk key new"]),
        (["worker", "--model", model], ["worker.listen", "worker.api_key"]),
    ] {
        let ended = run_to_end(args.iter().chain(&["--listen", "0.0.0.0:0"])).await.expect("it ends");
        holds(refusal(&ended), &parts);
        assert!(!ended.stderr.contains("listening"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_gateway_without_workers_says_how_to_give_it_some() {
    let ended = run_to_end(["gateway", "--listen", "127.0.0.1:0"]).await.expect("it ends");
    holds(refusal(&ended), &["--worker"]);
}
