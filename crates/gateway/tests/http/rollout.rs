//! A controller's route table, what is told it in return, and copies for a version without users.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use evidence::{Count, Latency, Rate, Report, VersionEvidence};
use routing::{ModelRoutes, Observe, RouteTable, VersionRoute, VersionState};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Front, Gate, Reply, Worker, ask, eventually, streamed, with};

/// A controller with one table, which remembers the last report.
#[derive(Clone)]
struct Controller {
    table: Arc<Mutex<RouteTable>>,
    heard: Arc<Mutex<Report>>,
    url: String,
}

impl Controller {
    async fn start(routes: ModelRoutes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let models = [("m".to_owned(), routes)].into();
        let table = Arc::new(Mutex::new(RouteTable { epoch: 1, generation: 1, models }));
        let controller = Self { table, heard: Arc::default(), url };
        let router = Router::new().route("/internal/watch", post(watch)).with_state(controller.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        controller
    }

    fn heard(&self) -> Report {
        self.heard.lock().expect("sound").clone()
    }

    /// What was told of a version.
    fn seen(&self, version: &str) -> Option<VersionEvidence> {
        let model = self.heard().models.remove("m")?;
        model.evidence?.versions.remove(version)
    }

    /// Goes on with another step.
    fn step(&self, step: &str) {
        let mut table = self.table.lock().expect("sound");
        table.generation += 1;
        let observe = table.models.get_mut("m").and_then(|routes| routes.observe.as_mut());
        observe.expect("a rollout is on").step = step.into();
    }
}

async fn watch(State(controller): State<Controller>, Json(report): Json<Report>) -> Response {
    let has = report.routes_by;
    *controller.heard.lock().expect("sound") = report;
    let table = controller.table.lock().expect("sound").clone();
    if (table.epoch, table.generation) > has {
        Json(table).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    }
}

async fn front(workers: &[&Worker], controller: &Controller) -> Front {
    let url = controller.url.clone();
    let front = Front::with(workers, move |parts| {
        parts.config.controller = Some(url);
        parts.response_cache.enabled = false;
    })
    .await;
    eventually("the table is taken", async || controller.heard().routes_by == (1, 1)).await;
    front
}

fn observed(versions: Vec<VersionRoute>, mirror: u32) -> ModelRoutes {
    let observe = Observe {
        step: "r/1".into(),
        prompts_per_min: 60_000,
        mirror_to: (mirror > 0).then(|| "2".into()),
        mirror,
    };
    ModelRoutes { versions, observe: Some(observe), ..ModelRoutes::default() }
}

fn preview(version: &str) -> VersionRoute {
    VersionRoute { state: VersionState::Preview, ..VersionRoute::active(version, 0, "default") }
}

#[tokio::test]
async fn a_failed_attempt_is_told_of_its_version_though_another_worker_answers() {
    let good = Worker::of_version("1", Reply::completion("a")).await;
    let bad = Worker::of_version("2", Reply::json(500, "{}")).await;
    let controller =
        Controller::start(observed(vec![VersionRoute::active("2", 10_000, "default"), preview("1")], 0))
            .await;
    let front = front(&[&good, &bad], &controller).await;
    let got = front.chat(&ask("hello")).await;
    assert_eq!((got.status, got.header("x-tenk-model-version")), (200, Some("1")));
    eventually("the failure is told", async || {
        let errors = controller.seen("2").map(|seen| (seen.requests, seen.failed, seen.rate(Rate::Error)));
        // The answer came from a version that was not asked for, and tells nothing.
        errors == Some((1, 1, Count { trials: 1, events: 1 })) && controller.seen("1").is_none()
    })
    .await;
}

#[tokio::test]
async fn a_gateway_is_ready_when_its_controller_has_spoken_or_was_waited_for_long_enough() {
    let worker = Worker::of_version("1", Reply::completion("a")).await;
    let is_ready = async |front: &Front| front.get("/health/ready").await.status == 200;
    let routes = observed(vec![VersionRoute::active("1", 10_000, "default")], 0);
    let heard = front(&[&worker], &Controller::start(routes).await).await;
    eventually("it is ready", async || is_ready(&heard).await).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let since = Instant::now();
    let alone = Front::unready(vec![worker.url()], move |parts| parts.config.controller = Some(url)).await;
    eventually("the worker is found", async || alone.chat(&ask("hello")).await.status == 200).await;
    assert!(!is_ready(&alone).await || since.elapsed() >= Duration::from_secs(5));
    eventually("it is ready all the same", async || is_ready(&alone).await).await;
}

#[tokio::test]
async fn a_refusal_is_told_of_its_version_too_and_is_no_error() {
    let good = Worker::of_version("1", Reply::completion("a")).await;
    let full = Worker::of_version("2", Reply::json(429, "{}")).await;
    let controller =
        Controller::start(observed(vec![VersionRoute::active("2", 10_000, "default"), preview("1")], 0))
            .await;
    let front = front(&[&good, &full], &controller).await;
    assert_eq!(front.chat(&ask("hello")).await.status, 200);
    eventually("the refusal is told", async || {
        let rates = controller.seen("2").map(|seen| (seen.rate(Rate::Refused), seen.rate(Rate::Error)));
        rates == Some((Count { trials: 1, events: 1 }, Count::default()))
    })
    .await;
}

#[tokio::test]
async fn who_leaves_before_an_answer_has_waited_that_long() {
    let silent = Worker::of_version("1", Reply::Hang).await;
    let routes = observed(vec![VersionRoute::active("1", 10_000, "default")], 0);
    let controller = Controller::start(routes).await;
    let front = front(&[&silent], &controller).await;
    for (request, times) in [(ask("whole"), [0, 1]), (streamed(ask("stream")), [1, 2])] {
        let asked = front.spawn_chat(&with(request, "user", times[0].to_string()));
        silent.asked(times[1] as usize).await;
        asked.abort();
        eventually("the wait is told", async || {
            let Some(seen) = controller.seen("1") else { return false };
            let counts =
                [Latency::TimeToFirstToken, Latency::EndToEnd].map(|kind| seen.latency(kind).count());
            counts == times && seen.rate(Rate::Truncated) == Count::default()
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_to_a_request_of_an_earlier_step_is_no_evidence() {
    let gate = Gate::closed();
    let worker = Worker::of_version("1", Reply::completion("late").after(&gate)).await;
    let routes = observed(vec![VersionRoute::active("1", 10_000, "default")], 0);
    let controller = Controller::start(routes).await;
    let front = front(&[&worker], &controller).await;
    let late = front.spawn_chat(&with(ask("hello"), "user", "a"));
    worker.asked(1).await;
    controller.step("r/2");
    eventually("the step is taken", async || controller.heard().routes_by == (1, 2)).await;
    gate.open_for_all();
    late.await.expect("ends");
    front.chat(&with(ask("hello"), "user", "b")).await;
    eventually("the answer of this step is told", async || controller.seen("1").is_some()).await;
    let seen = controller.seen("1").expect("told");
    assert_eq!((seen.requests, seen.users, seen.latency(Latency::EndToEnd).count()), (1, 1, 1));
}

#[tokio::test]
async fn copies_reach_the_version_without_users_and_only_what_was_seen_of_them_is_kept() {
    let stable = Worker::of_version("1", Reply::completion("a")).await;
    let shadow = Worker::of_version("2", Reply::completion("b")).await;
    let routes = observed(vec![preview("2"), VersionRoute::active("1", 10_000, "default")], 5_000);
    let controller = Controller::start(routes).await;
    let front = front(&[&stable, &shadow], &controller).await;
    for user in 0..20 {
        let got = front.chat(&json!({"model": "m", "user": user.to_string(), "messages": []})).await;
        assert_eq!(got.header("x-tenk-model-version"), Some("1"));
    }
    shadow.asked(10).await;
    assert_eq!(stable.count(), 20);
    eventually("both are told", async || {
        let report = controller.heard();
        let model = report.models.get("m").cloned().unwrap_or_default();
        let times = |version: &str| {
            let seen = model.evidence.as_ref().and_then(|evidence| evidence.versions.get(version));
            seen.map_or(0, |seen| seen.latency(Latency::EndToEnd).count())
        };
        (times("1"), times("2")) == (20, 10) && model.versions["2"].workers_up == 1
    })
    .await;
}

#[tokio::test]
async fn a_version_can_be_asked_for_by_name_and_counts_for_nothing_then() {
    let stable = Worker::of_version("1", Reply::completion("a")).await;
    let other = Worker::of_version("2", Reply::json(500, "{}")).await;
    let routes = observed(vec![preview("2"), VersionRoute::active("1", 10_000, "default")], 0);
    let controller = Controller::start(routes).await;
    let front = front(&[&stable, &other], &controller).await;
    // Nobody else answers for it.
    assert_eq!(front.chat_with(&ask("hello"), &[("x-tenk-version", "2")]).await.status, 502);
    assert_eq!((stable.count(), other.count()), (0, 1));
    let unknown = front.chat_with(&ask("hello"), &[("x-tenk-version", "3")]).await;
    assert_eq!((unknown.status, unknown.text().contains("no version `3`")), (404, true));
    front.chat(&ask("hello")).await;
    eventually("only the user's own request is told", async || {
        controller.seen("1").is_some_and(|seen| seen.users == 1) && controller.seen("2").is_none()
    })
    .await;
}
