//! A version from the registry to a worker, with real processes.

#![expect(clippy::expect_used, reason = "all of it is test")]

use std::ffi::OsStr;
use std::path::Path;

use serde_json::json;
use tests::{Launch, TinyModel, run_to_end};

const CHAT: &str = "/v1/chat/completions";

/// A configuration whose registry is a file of the test's own, beside the model.
fn configuration(model: &TinyModel) -> (tempfile::TempDir, std::path::PathBuf, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let toml = format!("[registry]\npath = {:?}\n", folder.path().join("registry.json"));
    let path = folder.path().join("tenk.toml");
    std::fs::write(&path, &toml).expect("written");
    assert!(model.path().is_file());
    (folder, path, toml)
}

async fn register(model: &Path, config: &Path) -> String {
    let args = ["model", "register", "tiny", "--alias", "stable"].map(OsStr::new);
    let ended =
        run_to_end(args.into_iter().chain([model.as_os_str(), OsStr::new("--config"), config.as_os_str()]));
    let ended = ended.await.expect("ends");
    assert!(ended.status.success(), "{ended:?}");
    ended.stdout.trim().to_owned()
}

#[tokio::test]
async fn a_worker_serves_the_version_that_the_alias_names_and_reports_its_number() {
    let models = [TinyModel::new().expect("a model"), TinyModel::other(2).expect("a model")];
    let (_folder, config, toml) = configuration(&models[0]);
    for (model, version) in models.iter().zip(["1", "2"]) {
        assert_eq!(register(&model.path(), &config).await, version);
        let worker = Launch::worker(Path::new("registry:tiny")).config(&toml).start().await.expect("starts");
        let report = worker.api().get("/internal/load").await.expect("a report").json();
        assert_eq!((&report["model"], &report["version"]), (&json!("tiny"), &json!(version)), "{report}");
    }
    // Both behind one gateway, whose answers say which one gave them.
    let workers = [
        Launch::worker(Path::new("registry:tiny@1")).config(&toml).start().await.expect("starts"),
        Launch::worker(Path::new("registry:tiny@2")).config(&toml).start().await.expect("starts"),
    ];
    let gateway = Launch::gateway(&workers).start().await.expect("starts");
    gateway.ready().await.expect("ready");
    let asked = json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.api().post(CHAT, &asked).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(["1", "2"].contains(&answer.header("x-tenk-model-version")), "{answer:?}");
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_registered_is_not_served() {
    let model = TinyModel::new().expect("a model");
    let (_folder, config, _) = configuration(&model);
    register(&model.path(), &config).await;
    let before = std::fs::read(model.path()).expect("readable");
    let mut changed = before.clone();
    // One bit of the last weight: as large as before, and a model as before.
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(model.path(), &changed).expect("written");
    let args =
        ["worker", "--listen", "127.0.0.1:0", "--model", "registry:tiny@stable", "--config"].map(OsStr::new);
    let worker = run_to_end(args.into_iter().chain([config.as_os_str()])).await.expect("ends");
    assert_eq!(worker.status.code(), Some(1), "{worker:?}");
    let refused = worker.stderr.lines().last().unwrap_or_default();
    assert!(refused.contains("version 1 of `tiny` is not what was registered"), "{refused}");
    let sums = refused.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    assert_eq!(sums.count(), 2, "both sums: {refused}");
    // Brought back, it is served again.
    std::fs::write(model.path(), &before).expect("written");
    let toml = std::fs::read_to_string(&config).expect("readable");
    Launch::worker(Path::new("registry:tiny")).config(&toml).start().await.expect("starts");
}
