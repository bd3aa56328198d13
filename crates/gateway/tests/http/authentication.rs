//! Keys, tenants, and what sets them apart.

use gateway::{Gateway, GatewayError, GatewayParts, KeyConfig};
use sha2::{Digest, Sha256};

use crate::support::{Front, Reply, Worker, ask, with};

fn key(tenant: &str, key: &str) -> KeyConfig {
    KeyConfig { tenant: tenant.into(), sha256: hex::encode(Sha256::digest(key)), priority_min: 0 }
}

fn three_keys() -> Vec<KeyConfig> {
    vec![key("red", "key-1"), key("red", "key-2"), key("blue", "key-3")]
}

#[tokio::test]
async fn without_a_known_key_nothing_is_answered_but_health_and_metrics() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::with(&[&worker], |parts| parts.config.keys = three_keys()).await;
    for header in [
        None,
        Some("Bearer key-0"),
        Some("Bearer "),
        Some("key-1"),
        Some("Basic key-1"),
        Some("Bearer key-1x"),
    ] {
        let headers: Vec<_> = header.iter().map(|value| ("authorization", *value)).collect();
        let got = front.chat_with(&ask("x"), &headers).await;
        assert_eq!((got.status, got.error_type().as_str()), (401, "authentication_error"), "{header:?}");
        assert_eq!(got.header("www-authenticate"), Some("Bearer"));
        assert!(got.header("x-request-id").is_some());
    }
    for path in ["/v1/models", "/v1/models/m"] {
        assert_eq!(front.get(path).await.status, 401);
    }
    assert_eq!(worker.count(), 0);
    assert_eq!(front.metric(r#"tenk_gateway_rejected_total{reason="unauthenticated"}"#).await, 8.0);
    assert_eq!(front.get("/health/ready").await.status, 200);
    for token in ["Bearer key-1", "bearer key-2", "BEARER  key-3"] {
        assert_eq!(front.chat_with(&ask("x"), &[("authorization", token)]).await.status, 200);
    }
}

#[tokio::test]
async fn tenants_share_neither_answers_nor_prefixes_and_keys_of_one_tenant_share_both() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::with(&[&worker], |parts| parts.config.keys = three_keys()).await;
    // The client's own salt is not believed, whatever it says.
    let request = with(ask("x"), "cache_salt", "mine");
    let mut caches = Vec::new();
    for token in ["Bearer key-1", "Bearer key-3", "Bearer key-2", "Bearer key-3"] {
        caches.push(front.chat_with(&request, &[("authorization", token)]).await.cache().to_owned());
    }
    assert_eq!(caches, ["miss", "miss", "hit", "hit"]);
    let salts: Vec<_> = worker.seen().iter().map(|seen| seen.json()["cache_salt"].clone()).collect();
    assert_eq!(salts.len(), 2);
    assert!(
        salts[0] != salts[1] && salts.iter().all(|salt| salt.as_str().is_some_and(|salt| salt.len() == 32))
    );
}

#[tokio::test]
async fn gateways_with_one_secret_derive_the_same_salt() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    for _ in 0..2 {
        let front = Front::with(&[&worker], |parts| {
            parts.config.keys = three_keys();
            parts.config.salt_secret = Some("shared".into());
        })
        .await;
        front.chat_with(&ask("x"), &[("authorization", "Bearer key-1")]).await;
    }
    let seen = worker.seen();
    assert_eq!(seen[0].json()["cache_salt"], seen[1].json()["cache_salt"]);
}

#[tokio::test]
async fn others_can_reach_a_gateway_only_if_it_asks_for_keys() {
    let parts = |keys: Vec<KeyConfig>| {
        let mut parts = GatewayParts::default();
        parts.config.listen = "0.0.0.0:0".parse().expect("an address");
        parts.config.keys = keys;
        parts
    };
    let error = Gateway::bind(parts(Vec::new())).await.expect_err("anyone could ask");
    assert!(
        matches!(error, GatewayError::Config(_)) && error.to_string().contains("tenk key new"),
        "{error}"
    );
    Gateway::bind(parts(three_keys())).await.expect("keys are asked for");
}

#[tokio::test]
async fn settings_that_contradict_themselves_are_refused() {
    let refused = async |change: fn(&mut GatewayParts), word: &str| {
        let mut parts = GatewayParts::default();
        parts.config.listen.set_port(0);
        change(&mut parts);
        let error = Gateway::bind(parts).await.expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(|parts| parts.config.keys = vec![key("a", "k"), key("b", "k")], "same key").await;
    refused(
        |parts| {
            parts.config.keys = vec![KeyConfig { tenant: "a".into(), sha256: "k".into(), priority_min: 0 }]
        },
        "sha256",
    )
    .await;
    refused(|parts| parts.config.workers = vec!["http://h:1".into(), "http://h:1".into()], "twice").await;
    refused(|parts| parts.config.workers = vec!["https://h:1".into()], "http://127.0.0.1:8081").await;
    refused(|parts| parts.config.worker_api_key = Some("a b".into()), "worker_api_key").await;
    refused(|parts| parts.config.attempts_max = 0, "attempts_max").await;
    refused(|parts| parts.routing.load_weight = 0.0, "routing").await;
    refused(|parts| parts.response_cache.ttl_s = 0, "response_cache").await;
}

#[tokio::test]
async fn workers_are_given_the_gateways_key_and_never_the_clients() {
    let worker = Worker::ours(Reply::completion("Hi")).await;
    let front = Front::with(&[&worker], |parts| {
        parts.config.keys = three_keys();
        parts.config.worker_api_key = Some("ours".into());
    })
    .await;
    front.chat_with(&ask("x"), &[("authorization", "Bearer key-1")]).await;
    assert_eq!(worker.seen()[0].headers["authorization"], "Bearer ours");
    assert_eq!(worker.probe_headers()["authorization"], "Bearer ours");
}

#[tokio::test]
async fn a_worker_that_refuses_the_gateways_key_is_the_gateways_problem() {
    let worker = Worker::ours(Reply::json(401, r#"{"error":{"message":"bad key"}}"#)).await;
    let front = Front::of(&[&worker]).await;
    let got = front.chat(&ask("x")).await;
    assert_eq!((got.status, got.error_type().as_str()), (502, "server_error"));
    assert!(!got.text().contains("key"), "{got:?}");
}
