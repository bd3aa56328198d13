//! Rollouts with real processes: simulated GPU workers of two versions, a gateway, a controller, and load.

#![expect(clippy::expect_used, clippy::panic, reason = "all of it is test")]

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Launch, Mlflow, Redis, Tenk, eventually, run_to_end};
use tokio::task::JoinHandle;

const CHAT: &str = "/v1/chat/completions";

/// Two workers of version 1 and two of version 2 behind a gateway that has a controller.
struct Fleet {
    folder: TempDir,
    /// Two of version 1, then two of version 2.
    workers: Vec<Tenk>,
    gateway: Tenk,
    controller: Tenk,
    address: SocketAddr,
    /// Where versions are registered.
    registry: String,
    redis: Option<Redis>,
}

impl Fleet {
    async fn start(redis: Option<Redis>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = format!("path = {:?}", folder.path().join("registry.json"));
        Self::with(folder, registry, redis).await
    }

    async fn with(folder: TempDir, registry: String, redis: Option<Redis>) -> Self {
        let toml = format!("[registry]\n{registry}\n");
        let config = folder.path().join("tenk.toml");
        std::fs::write(&config, &toml).expect("written");
        for alias in ["stable", "canary"] {
            let args =
                ["model", "register", "chat", "simulated:", "--alias", alias, "--config"].map(OsStr::new);
            let ended = run_to_end(args.into_iter().chain([config.as_os_str()])).await.expect("ends");
            assert!(ended.status.success(), "{ended:?}");
        }
        let mut workers = Vec::new();
        for version in [1, 1, 2, 2] {
            let worker = Launch::simulated_worker(&format!("registry:chat@{version}")).config(&toml);
            workers.push(worker.start().await.expect("starts"));
        }
        // Gateway and controller each know the other's address.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let gateway = Launch::gateway(&workers).arg("--controller").arg(format!("http://{address}"));
        let gateway = gateway.start().await.expect("starts");
        gateway.ready().await.expect("ready");
        let controller = controller(&folder, &registry, &gateway, address, redis.as_ref()).await;
        let fleet = Self { folder, workers, gateway, controller, address, registry, redis };
        eventually("the stable version is known", || async {
            let status = fleet.status().await?;
            anyhow::ensure!(status["stable"] == "1", "{status}");
            Ok::<_, anyhow::Error>(())
        })
        .await
        .expect("pinned");
        fleet
    }

    async fn restart_controller(&mut self) {
        self.controller.kill9().await.expect("killed");
        self.controller =
            controller(&self.folder, &self.registry, &self.gateway, self.address, self.redis.as_ref()).await;
    }

    async fn status(&self) -> anyhow::Result<Value> {
        Ok(self.controller.api().get("/v1/rollouts/chat").await?.json())
    }

    /// Begins to move users to version 2 in steps that take seconds.
    async fn roll_out(&self, judge: Value) {
        let step = |percent| json!({"percent": percent, "users_min": 20, "time_min_s": 2, "time_max_s": 90});
        let spec = json!({
            "model": "chat", "to": "2", "judge": judge,
            "strategy": {"kind": "canary", "steps": [step(50), step(100)]},
        });
        let started = self.controller.api().post("/v1/rollouts", &spec).await.expect("an answer");
        assert_eq!(started.status, 201, "{}", started.text());
    }

    /// Waits until the rollout is over, doing something at each new phase, and returns every decision.
    async fn over(&mut self, kill_at_each_phase: bool) -> Vec<Value> {
        let mut seen = Value::Null;
        for _ in 0..1_200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let Ok(status) = self.status().await else { continue };
            let phase = &status["rollout"]["phase"];
            if phase["kind"] == "done" {
                let history =
                    self.controller.api().get("/v1/rollouts/chat/history").await.expect("an answer");
                return history.json().as_array().expect("a list").clone();
            }
            if kill_at_each_phase && phase.is_object() && *phase != seen {
                seen = phase.clone();
                self.restart_controller().await;
            }
        }
        panic!("it is not over: {:?}\n{}", self.status().await, self.controller.log());
    }
}

async fn controller(
    folder: &TempDir,
    registry: &str,
    gateway: &Tenk,
    address: SocketAddr,
    redis: Option<&Redis>,
) -> Tenk {
    let toml = format!("[registry]\n{registry}\n");
    let launch = Launch::controller(&gateway.url()).config(&toml).listen(address);
    let launch = match redis {
        Some(redis) => launch.arg("--redis").arg(redis.url()),
        None => launch.arg("--state-dir").arg(folder.path().join("controller")),
    };
    launch.start().await.expect("starts")
}

/// Load that asks each question once, for as long as it is wanted.
struct Load {
    wanted: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Load {
    fn start(gateway: &Tenk, per_s: u32) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let (target, going_on) = (gateway.url(), Arc::clone(&wanted));
        let running = tokio::spawn(async move {
            for seed in 0.. {
                let args = format!(
                    "loadtest run --target {target} --rate {per_s} --duration-s 8 --prompt-tokens 64 --max-tokens 8 \
                     --streamed 0.5 --seed {seed}"
                );
                let ended = run_to_end(args.split(' ')).await.expect("ends");
                assert!(ended.status.success() && ended.stdout.contains(" 0 failed"), "{ended:?}");
                if !going_on.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        Self { wanted, running }
    }

    /// Ends it, and fails if any request did.
    async fn end(self) {
        self.wanted.store(false, Ordering::Relaxed);
        self.running.await.expect("no request failed");
    }
}

/// So quick that a step takes seconds; what is proven is who moves, and not how surely.
fn lenient() -> Value {
    json!({"margin": 1.0, "error_margin": 0.08, "answer_margin": 0.5, "tolerance": 0.5})
}

fn actions(history: &[Value]) -> Vec<&str> {
    history.iter().filter_map(|record| record["action"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_version_is_promoted_while_its_controller_is_killed_at_each_phase_and_no_request_fails() {
    let mut fleet = Fleet::start(None).await;
    let load = Load::start(&fleet.gateway, 200);
    fleet.roll_out(lenient()).await;
    let history = fleet.over(true).await;
    let of_rollout: Vec<&str> = actions(&history).into_iter().filter(|action| *action != "pinned").collect();
    assert_eq!(of_rollout, ["started", "stepped", "stepped", "promoting", "promoted"], "{history:#?}");
    let epochs: Vec<u64> = history.iter().filter_map(|record| record["epoch"].as_u64()).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] <= pair[1]) && epochs.last() > Some(&3), "{epochs:?}");
    load.end().await;
    let asked = json!({"model": "chat", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    let answer = fleet.gateway.api().post(CHAT, &asked).await.expect("an answer");
    assert_eq!((answer.status, answer.header("x-tenk-model-version")), (200, "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_workers_fail_is_reverted_with_its_evidence_though_no_client_sees_an_error() {
    let mut fleet = Fleet::start(None).await;
    for worker in &fleet.workers[2..] {
        let fault = json!({"kind": "error_rate", "share": 0.1});
        assert!(worker.api().post("/admin/faults", &fault).await.expect("an answer").status < 300);
    }
    let load = Load::start(&fleet.gateway, 50);
    // The judge is to find it, and not the absolute guard.
    fleet.roll_out(json!({"error_guard": 0.9})).await;
    let history = fleet.over(false).await;
    let reverted = history.iter().find(|record| record["action"] == "reverting").expect("reverted");
    assert!(reverted["reason"].as_str().is_some_and(|reason| reason.contains("error rate")), "{reverted:#}");
    assert!(reverted["assessment"]["metrics"].as_array().is_some_and(|metrics| !metrics.is_empty()));
    assert_eq!(fleet.status().await.expect("a status")["stable"], "1");
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_users_switch_and_switch_back_without_a_failed_request_though_the_controller_is_killed() {
    let mut fleet = Fleet::start(None).await;
    let asked = |user: usize| {
        json!({"model": "chat", "max_tokens": 1, "user": user.to_string(),
               "messages": [{"role": "user", "content": "hello"}]})
    };
    let version_of = async |fleet: &Fleet, user| {
        let answer = fleet.gateway.api().post(CHAT, &asked(user)).await.expect("an answer");
        answer.header("x-tenk-model-version").to_owned()
    };
    eventually("version 2 has no users", || async {
        for user in 0..30 {
            anyhow::ensure!(version_of(&fleet, user).await == "1");
        }
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("pinned");
    let load = Load::start(&fleet.gateway, 200);
    let wanting = |version| fleet.gateway.api().with_header("x-tenk-version", version).expect("a header");
    let blue_green = json!({"model": "chat", "to": "2", "strategy": {"kind": "blue_green", "keep_s": 600}});
    let started = fleet.controller.api().post("/v1/rollouts", &blue_green).await.expect("an answer");
    assert_eq!(started.status, 201, "{}", started.text());
    eventually("all users switch", || async {
        anyhow::ensure!(version_of(&fleet, 1).await == "2");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("switched");
    let by_name = wanting("1").post(CHAT, &asked(1)).await.expect("an answer");
    assert_eq!((by_name.status, by_name.header("x-tenk-model-version")), (200, "1"));
    assert_eq!(wanting("7").post(CHAT, &asked(1)).await.expect("an answer").status, 404);
    fleet.controller.kill9().await.expect("killed");
    for user in 0..20 {
        assert_eq!(version_of(&fleet, user).await, "2");
    }
    fleet.controller = controller(&fleet.folder, &fleet.registry, &fleet.gateway, fleet.address, None).await;
    eventually("an abort is heard", || async {
        let aborted = fleet.controller.api().post("/v1/rollouts/chat/abort", &Value::Null).await?;
        anyhow::ensure!(aborted.status == 200, "{}", aborted.text());
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("aborted");
    eventually("all users are back", || async {
        for user in 0..20 {
            anyhow::ensure!(version_of(&fleet, user).await == "1");
        }
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("back");
    load.end().await;
}

async fn readiness(controller: &Tenk) -> anyhow::Result<u16> {
    Ok(controller.api().get("/health/ready").await?.status)
}

/// One controller decides and the other does not, for longer than a lease lasts: before its first look at the store
/// every controller says that it does not.
async fn one_decides_and_the_other_waits(deciding: &Tenk, waiting: &Tenk) {
    for _ in 0..60 {
        let both =
            (readiness(deciding).await.expect("an answer"), readiness(waiting).await.expect("an answer"));
        assert_eq!(both, (200, 503), "{}", waiting.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = waiting.api().post("/v1/rollouts", &json!({"model": "chat", "to": "2"})).await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("another controller decides"), "{}", refused.text());
    assert!(waiting.log().contains("another controller holds the lease in Redis"), "{}", waiting.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_a_second_controller_takes_over_and_the_first_can_decide_no_more() {
    let redis = Redis::start().await.expect("starts");
    let url = redis.url();
    let mut fleet = Fleet::start(Some(redis)).await;
    let second =
        Launch::controller(&fleet.gateway.url()).arg("--redis").arg(&url).start().await.expect("starts");
    one_decides_and_the_other_waits(&fleet.controller, &second).await;
    // It stands still, as in a long pause of its machine, and goes on without having noticed.
    fleet.controller.pause().await.expect("paused");
    eventually("the second decides", || async {
        anyhow::ensure!(readiness(&second).await? == 200);
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("took over");
    fleet.controller.resume().expect("resumed");
    eventually("the first has noticed", || async {
        anyhow::ensure!(readiness(&fleet.controller).await? == 503);
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("fenced");
    one_decides_and_the_other_waits(&second, &fleet.controller).await;
    fleet.restart_controller().await;
    one_decides_and_the_other_waits(&second, &fleet.controller).await;
    let history = second.api().get("/v1/rollouts/chat/history").await.expect("an answer").json();
    assert_eq!(actions(history.as_array().expect("a list")), ["pinned"], "{history:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mlflow_a_promotion_moves_the_aliases() {
    let Some(mlflow) = Mlflow::start().await.expect("starts") else {
        eprintln!("passed over: there is no MLflow; `cargo xtask test --mlflow` brings it");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::with(folder, format!("url = {:?}", mlflow.url()), None).await;
    let config = fleet.folder.path().join("tenk.toml");
    let versions = async || {
        let args = ["model", "versions", "chat", "--json", "--config"].map(OsStr::new);
        let ended = run_to_end(args.into_iter().chain([config.as_os_str()])).await.expect("ends");
        assert!(ended.status.success(), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    // Of version 1, then of version 2.
    let aliases = async |expected: Value| {
        eventually("the aliases follow", || async {
            let mut found = versions().await;
            let versions = found.as_array_mut().expect("a list");
            versions.sort_by_key(|version| version["version"].as_u64());
            let found: Vec<&Value> = versions.iter().map(|version| &version["aliases"]).collect();
            anyhow::ensure!(json!(found) == expected, "{found:?}");
            Ok::<_, anyhow::Error>(())
        })
        .await
        .expect("moved");
    };
    aliases(json!([["stable"], ["canary"]])).await;
    let load = Load::start(&fleet.gateway, 50);
    fleet.roll_out(lenient()).await;
    let history = fleet.over(false).await;
    assert!(actions(&history).contains(&"promoted"), "{history:#?}");
    load.end().await;
    aliases(json!([[], ["stable"]])).await;
}
