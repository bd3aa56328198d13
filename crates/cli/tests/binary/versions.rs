//! `tenk model register|versions|alias|diff`, and versions that are served

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Ended, Process, chat, get, post, run, tenk, text, tiny_model};

const CHAT: &str = "/v1/chat/completions";

/// The binary with a cache, and so a registry, of its own.
fn command<'a>(cache: &Path, args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = tenk(args);
    command.env("TENK_CACHE_DIR", cache);
    command
}

fn model(cache: &Path, args: &[&str]) -> Ended {
    run(&mut command(cache, ["model"].into_iter().chain(args.iter().copied())))
}

#[test]
fn a_file_becomes_a_version_and_the_same_file_is_not_a_new_one() {
    let (folder, path) = tiny_model();
    let cache = folder.path();
    let first =
        ["register", "mine", text(&path), "--metric", "perplexity=8", "--tag", "team=a", "--alias", "stable"];
    let ended = model(cache, &first);
    assert!(ended.stderr.contains("registered version 1 of mine (f32,"), "{ended:?}");
    assert_eq!(ended.succeeded(), "1\n", "for scripts");
    let ended = model(cache, &["register", "mine", text(&path), "--metric", "loss=2"]);
    assert!(ended.stderr.contains("this very file as version 1 already"), "{ended:?}");
    assert_eq!(ended.succeeded(), "1\n");

    let q8 = folder.path().join("tiny.q8_0.gguf");
    model(cache, &["quantize", text(&path), text(&q8), "--to", "q8_0"]).succeeded();
    assert_eq!(
        model(cache, &["register", "mine", text(&q8), "--metric", "perplexity=10"]).succeeded(),
        "2\n"
    );
    assert_eq!(model(cache, &["register", "mine", "simulated:", "--alias", "canary"]).succeeded(), "3\n");

    let table = model(cache, &["versions", "mine"]).succeeded();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("version  aliases  quantization  size"), "{table}");
    assert!(rows[1].starts_with("1        stable   f32 ") && rows[1].ends_with(text(&path)), "{table}");
    assert!(rows[2].contains(" q8_0 ") && rows[3].starts_with("3        canary   -"), "{table}");
    assert!(table.contains(text(&cache.join("registry.json"))), "{table}");
    let json: Value =
        serde_json::from_str(&model(cache, &["versions", "mine", "--json"]).succeeded()).expect("JSON");
    assert_eq!((&json[0]["aliases"], &json[0]["tags"]), (&json!(["stable"]), &json!({"team": "a"})));
    assert_eq!(json[0]["metrics"], json!({"loss": 2.0, "perplexity": 8.0}));

    let diff = model(cache, &["diff", "mine", "stable", "2"]).succeeded();
    for line in [
        "from version 1 of mine to version 2",
        "quantization             f32 → q8_0",
        "metric perplexity        8 → 10 (+25.0%)",
        "metric loss              2 → none",
        "tag team                 a → none",
        "tensor blk.0.attn_q.weight f32 [64, 64] → q8_0 [64, 64]",
    ] {
        assert!(diff.lines().any(|found| found == line), "{line} in:\n{diff}");
    }
    assert_eq!(
        model(cache, &["diff", "mine", "1", "1"]).succeeded(),
        "versions 1 and 1 of mine do not differ\n"
    );
}

#[test]
fn what_cannot_be_done_is_refused_with_what_can() {
    let (folder, path) = tiny_model();
    let cache = folder.path();
    for (args, words) in [
        (&["versions", "mine"][..], "no model `mine` is registered; `tenk model register mine SOURCE`"),
        (&["register", "a/b", text(&path)], "`a/b` is no valid model name"),
        (&["register", "mine", text(&path), "--alias", "v1"], "`v1` is no valid alias"),
        (&["register", "mine", "./absent.gguf"], "absent.gguf"),
        (&["pull", "registry:mine@latest"], "registry:NAME@NUMBER"),
    ] {
        let ended = model(cache, args);
        assert!(ended.refused().contains(words), "{ended:?}");
    }
    assert!(!cache.join("registry.json").exists(), "nothing was registered");
    model(cache, &["register", "mine", text(&path)]).succeeded();
    for (args, words) in [
        (&["alias", "mine", "stable", "2"][..], "`mine` has no version 2; it has version 1 and no aliases"),
        (&["alias", "mine", "stable", "--remove"], "`tenk model alias mine stable VERSION` sets it"),
        (&["pull", "registry:mine"], "`mine` has no alias `stable`"),
        (&["versions", "other"], "known are mine"),
    ] {
        let ended = model(cache, args);
        assert!(ended.refused().contains(words), "{ended:?}");
    }
    assert_eq!(model(cache, &["alias", "mine", "stable"]).code, Some(2), "a version is missing");
    model(cache, &["alias", "mine", "stable", "1"]).succeeded();
    assert_eq!(model(cache, &["pull", "registry:mine"]).succeeded().trim(), text(&path));
    model(cache, &["alias", "mine", "stable", "--remove"]).succeeded();
    std::fs::write(cache.join("registry.json"), "{\"my\": \"notes\"}").expect("written");
    assert!(model(cache, &["versions", "mine"]).refused().contains("left as it is"));
    let elsewhere =
        run(command(cache, ["model", "versions", "m"]).env("TENK_REGISTRY__URL", "localhost:5000"));
    assert!(elsewhere.refused().contains("`registry.url` must begin with http://"), "{elsewhere:?}");
}

#[test]
fn a_worker_holds_two_versions_each_at_an_address_of_its_own() {
    let (folder, path) = tiny_model();
    let cache = folder.path();
    let q8 = folder.path().join("q8.gguf");
    model(cache, &["quantize", text(&path), text(&q8), "--to", "q8_0"]).succeeded();
    for path in [&path, &q8] {
        model(cache, &["register", "mine", text(path)]).succeeded();
    }
    let args =
        ["worker", "--listen", "127.0.0.1:0", "--threads", "1", "--model", "registry:mine@1", "--also"];
    let worker = Process::start(command(cache, args).arg("registry:mine@2"));
    let second = worker.stderr.wait_for("a second address", |text| {
        let (_, rest) = text.split_once("version 2 of mine listening on http://")?;
        rest.split_once('\n')?.0.parse().ok()
    });
    for (address, version) in [(worker.address(), "1"), (second, "2")] {
        let report = get(address, "/internal/load").json();
        assert_eq!((&report["model"], &report["version"]), (&"mine".into(), &version.into()), "{report}");
        assert_eq!(post(address, CHAT, &chat("mine")).status, 200);
    }
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.wait().code, Some(0));
    let twice = run(command(cache, args).arg("registry:mine@1"));
    assert!(twice.refused().contains("version 1 of `mine` is served already"), "{twice:?}");
}

#[test]
fn a_rollout_is_rehearsed_on_simulated_versions_behind_one_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path();
    for alias in ["stable", "canary"] {
        model(cache, &["register", "mine", "simulated:", "--alias", alias]).succeeded();
    }
    let args = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--engine",
        "simulated",
        "--workers",
        "1",
        "--model",
        "registry:mine",
    ];
    let up =
        Process::start(command(cache, args).args(["--also", "registry:mine@canary", "--also-workers", "2"]));
    let address = up.address();
    let welcome = up.stdout.wait_for("a welcome", |text| text.contains("Ctrl-C").then(|| text.to_owned()));
    assert!(welcome.contains("3 workers, serving mine\n"), "{welcome}");
    let workers =
        welcome.lines().filter_map(|line| line.trim().strip_prefix("http://")?.strip_suffix("/metrics"));
    let mut versions: Vec<String> = workers
        .filter_map(|address| address.parse().ok().filter(|worker| *worker != up.address()))
        .map(|worker| get(worker, "/internal/load").json()["version"].as_str().unwrap_or_default().to_owned())
        .collect();
    versions.sort();
    assert_eq!(versions, ["1", "2", "2"]);
    assert_eq!(post(address, CHAT, &chat("mine")).status, 200);
    let served = run(command(cache, ["worker", "--listen", "127.0.0.1:0", "--model"]).arg("registry:mine"));
    assert!(served.refused().contains("serve it with --engine simulated"), "{served:?}");
}
