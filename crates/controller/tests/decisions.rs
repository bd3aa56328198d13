//! What a controller refuses to decide; and `stable` and `canary`, which follow what it does, whatever the place that
//! keeps them is like.

#![expect(clippy::expect_used, reason = "all of it is test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use controller::{Aliases, Config, Controller, ControllerError, ControllerParts};
use evidence::{ModelReport, Report, VersionLoad};
use routing::RouteTable;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use ureq::Agent;

/// A registry in memory that can be away, or slow.
#[derive(Debug, Default)]
struct Kept {
    /// By model and alias, as in `chat@stable`.
    versions: Mutex<BTreeMap<String, String>>,
    gets_to_fail: AtomicUsize,
    sets_to_fail: AtomicUsize,
    /// Whoever holds it keeps answers about the model `slow` waiting.
    slow: tokio::sync::Mutex<()>,
}

impl Kept {
    fn with(aliases: &[(&str, &str)]) -> Arc<Self> {
        let kept = Self::default();
        aliases.iter().for_each(|(alias, version)| kept.put(alias, Some(version)));
        Arc::new(kept)
    }

    fn put(&self, alias: &str, version: Option<&str>) {
        let mut versions = self.versions.lock().expect("no panic");
        match version {
            Some(version) => versions.insert(alias.to_owned(), version.to_owned()),
            None => versions.remove(alias),
        };
    }

    fn version(&self, alias: &str) -> Option<String> {
        self.versions.lock().expect("no panic").get(alias).cloned()
    }

    async fn becomes(&self, alias: &str, version: Option<&str>) {
        eventually(alias, async || self.version(alias).as_deref() == version).await;
    }
}

fn fail(left: &AtomicUsize) -> Result<(), String> {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    taken.map_or(Ok(()), |_| Err("it is away".into()))
}

impl Aliases for Kept {
    fn get(&self, model: &str, alias: &str) -> Result<Option<String>, String> {
        if model == "slow" {
            drop(self.slow.blocking_lock());
        }
        fail(&self.gets_to_fail)?;
        Ok(self.version(&format!("{model}@{alias}")))
    }

    fn set(&self, model: &str, alias: &str, version: Option<&str>) -> Result<(), String> {
        fail(&self.sets_to_fail)?;
        self.put(&format!("{model}@{alias}"), version);
        Ok(())
    }
}

/// A controller, and a gateway that has a worker of version 1 and one of version 2 of each model.
struct Running {
    base: String,
    end: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ControllerError>>,
    gateway: JoinHandle<()>,
}

impl Running {
    async fn start(folder: &Path, kept: &Arc<Kept>, models: &[&str]) -> Self {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let config = Config { listen, interval_ms: 50, ..Config::default() };
        let aliases: Arc<dyn Aliases> = Arc::<Kept>::clone(kept);
        let parts = ControllerParts { config, default_dir: folder.to_owned(), aliases: Some(aliases) };
        let controller = Controller::bind(parts).await.expect("listens");
        let base = format!("http://{}", controller.address());
        let (end, ended) = oneshot::channel();
        let served = tokio::spawn(controller.serve(async {
            let _ = ended.await;
        }));
        let gateway = tokio::spawn(report(base.clone(), models.iter().map(|&model| model.into()).collect()));
        Self { base, end, served, gateway }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, text) = ask(format!("{}{path}", self.base), Some(body)).await;
        assert!(status < 300, "{path}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Waits until something is so in the status of a model.
    async fn shows(&self, model: &str, pointer: &str, value: &str) {
        let url = format!("{}/v1/rollouts/{model}", self.base);
        eventually(pointer, async || {
            let (_, text) = ask(url.clone(), None).await;
            let status: Value = serde_json::from_str(&text).unwrap_or_default();
            status.pointer(pointer).is_some_and(|found| found == value)
        })
        .await;
    }

    async fn end(self) {
        self.gateway.abort();
        self.end.send(()).expect("serves still");
        self.served.await.expect("no panic").expect("no error");
    }
}

async fn report(base: String, models: Vec<String>) {
    let load = VersionLoad { workers: 1, workers_up: 1, places: 8, in_flight: 0 };
    let versions = BTreeMap::from(["1", "2"].map(|version| (version.to_owned(), load)));
    let of_model = ModelReport { versions, ..ModelReport::default() };
    let models = models.into_iter().map(|model| (model, of_model.clone())).collect();
    let mut report = Report { gateway: "a".into(), complete: true, models, ..Report::default() };
    loop {
        let body = serde_json::to_value(&report).expect("JSON");
        let (_, text) = ask(format!("{base}/internal/watch"), Some(body)).await;
        if let Ok(table) = serde_json::from_str::<RouteTable>(&text) {
            report.routes_by = (table.epoch, table.generation);
        }
    }
}

/// GET, or POST where there is a body.
async fn ask(url: String, body: Option<Value>) -> (u16, String) {
    let asked = tokio::task::spawn_blocking(move || {
        let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
        let answer = match body {
            Some(body) => agent.post(url).send(body.to_string().as_bytes()),
            None => agent.get(url).call(),
        };
        let mut answer = answer.ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    });
    asked.await.expect("no panic").unwrap_or_default()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn to(version: &str) -> Value {
    json!({"model": "chat", "to": version})
}

/// Longer than a wrong decision or write would take.
async fn some_ticks() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_found_version_becomes_stable_and_leaves_canary_alone_and_a_promotion_moves_both() {
    let (folder, kept) = (folder(), Kept::with(&[("chat@canary", "7")]));
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    kept.becomes("chat@stable", Some("1")).await;
    some_ticks().await;
    assert_eq!(kept.version("chat@canary").as_deref(), Some("7"));
    running.post("/v1/rollouts", to("2")).await;
    kept.becomes("chat@canary", Some("2")).await;
    assert_eq!(kept.version("chat@stable").as_deref(), Some("1"));
    running.post("/v1/rollouts/chat/promote-fully", Value::Null).await;
    kept.becomes("chat@stable", Some("2")).await;
    kept.becomes("chat@canary", None).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_stays_after_a_rollout_where_its_owner_named_another_version_meanwhile() {
    let (folder, kept) = (folder(), Kept::with(&[]));
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    kept.becomes("chat@stable", Some("1")).await;
    running.post("/v1/rollouts", to("2")).await;
    kept.becomes("chat@canary", Some("2")).await;
    // While it is paused, no decision is near that could move the alias again.
    running.post("/v1/rollouts/chat/pause", Value::Null).await;
    some_ticks().await;
    kept.put("chat@canary", Some("7"));
    running.post("/v1/rollouts/chat/abort", Value::Null).await;
    running.shows("chat", "/rollout/phase/kind", "done").await;
    some_ticks().await;
    // Reverting still belongs to the rollout, but says nothing new.
    assert_eq!(kept.version("chat@canary").as_deref(), Some("7"));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_asked_again_and_a_failed_write_is_tried_again() {
    let (folder, kept) = (folder(), Kept::with(&[("chat@stable", "2")]));
    // Without its word version 1 would be taken, as the first one by name.
    kept.gets_to_fail.store(3, Ordering::SeqCst);
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    running.shows("chat", "/stable", "2").await;
    assert_eq!(kept.gets_to_fail.load(Ordering::SeqCst), 0);
    kept.put("chat@stable", None);
    kept.sets_to_fail.store(2, Ordering::SeqCst);
    running.post("/v1/rollouts", to("1")).await;
    kept.becomes("chat@canary", Some("1")).await;
    running.post("/v1/rollouts/chat/promote-fully", Value::Null).await;
    kept.becomes("chat@stable", Some("1")).await;
    kept.becomes("chat@canary", None).await;
    assert_eq!(kept.sets_to_fail.load(Ordering::SeqCst), 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_says_again_what_was_not_heard() {
    let (folder, away) = (folder(), Kept::with(&[]));
    away.sets_to_fail.store(usize::MAX, Ordering::SeqCst);
    let running = Running::start(folder.path(), &away, &["chat"]).await;
    running.shows("chat", "/stable", "1").await;
    running.post("/v1/rollouts", to("2")).await;
    running.end().await;
    assert_eq!(away.version("chat@stable"), None);
    let kept = Kept::with(&[]);
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    kept.becomes("chat@stable", Some("1")).await;
    kept.becomes("chat@canary", Some("2")).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_holds_up_nothing_but_what_waits_for_its_word() {
    let (folder, kept) = (folder(), Kept::with(&[("slow@stable", "2")]));
    let held = kept.slow.lock().await;
    let running = Running::start(folder.path(), &kept, &["slow", "chat"]).await;
    running.shows("chat", "/stable", "1").await;
    running.post("/v1/rollouts", to("2")).await;
    running.post("/v1/rollouts/chat/abort", Value::Null).await;
    running.shows("chat", "/rollout/phase/kind", "done").await;
    for (path, expected) in [("slow", 404), ("slow/history", 404), ("chat/history", 200)] {
        let (status, text) = ask(format!("{}/v1/rollouts/{path}", running.base), None).await;
        assert_eq!(status, expected, "{path}: {text}");
    }
    drop(held);
    running.shows("slow", "/stable", "2").await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_owner_sends_users_where_no_worker_is() {
    let (folder, kept) = (folder(), Kept::with(&[]));
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    running.shows("chat", "/stable", "1").await;
    running.post("/v1/rollouts", to("9")).await;
    for command in ["promote", "promote-fully"] {
        let url = format!("{}/v1/rollouts/chat/{command}", running.base);
        let (status, text) = ask(url, Some(Value::Null)).await;
        assert!(status == 400 && text.contains("no worker of 9 takes requests"), "{status} {text}");
    }
    running.shows("chat", "/rollout/phase/kind", "warming").await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_no_controller_reaches_is_refused() {
    let (folder, kept) = (folder(), Kept::with(&[]));
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    running.shows("chat", "/stable", "1").await;
    let told = Report { gateway: "b".into(), routes_by: (u64::MAX - 1, 1), ..Report::default() };
    let body = serde_json::to_value(&told).expect("JSON");
    let (status, text) = ask(format!("{}/internal/watch", running.base), Some(body)).await;
    assert!(status == 400 && text.contains("routes_by"), "{status} {text}");
    running.end().await;
    let running = Running::start(folder.path(), &kept, &["chat"]).await;
    running.shows("chat", "/stable", "1").await;
    running.post("/v1/rollouts", to("2")).await;
    running.end().await;
}
