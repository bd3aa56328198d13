//! OpenAI's own Python client against the gateway.

#![expect(clippy::expect_used, reason = "all of it is test")]

use std::process::Stdio;

use serde_json::Value;
use tests::{Launch, RealModel, Tenk, repository, run_to_end};

#[tokio::test]
async fn the_official_client_works_with_keys_streams_logprobs_and_errors() {
    let made = run_to_end(["key", "new", "--tenant", "readers"]).await.expect("tenk key new");
    assert!(made.status.success(), "{made:?}");
    let key = made.stdout.trim();
    // The key goes to where it can be piped, what the gateway needs to where people read.
    let config =
        made.stderr.find("[[gateway.keys]]").map(|at| &made.stderr[at..]).expect("what to configure");
    assert!(!key.is_empty() && !config.contains(key), "{made:?}");

    let model = RealModel::path().expect("the model");
    let worker = Launch::worker(&model).arg("--served-model-name").arg(RealModel::NAME);
    let worker = worker.start().await.expect("a worker");
    let gateway = Launch::gateway([&worker]).config(config).start().await.expect("a gateway");
    gateway.ready().await.expect("ready");

    run_script(&gateway, key).await;
    let tenants = gateway.metric("tenk_gateway_rejected_total", "unauthenticated").await.expect("metrics");
    assert!(tenants >= 1.0, "the wrong key was counted");
}

async fn run_script(gateway: &Tenk, key: &str) {
    let mut command = tokio::process::Command::new(tests::python().expect("python"));
    command
        .arg(repository().join("tests/python/openai_client.py"))
        .env("TEST_BASE_URL", format!("{}/v1", gateway.url()))
        .env("TEST_API_KEY", key)
        .env("TEST_MODEL", RealModel::NAME)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(2 * tests::PATIENCE, command.output());
    let output = output.await.expect("the script ends").expect("the script starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    // A script that checks nothing would pass too.
    let told: Value = serde_json::from_slice(&output.stdout).expect("the script tells what it checked");
    assert_eq!(told["checks"], 14, "{told}");
}
