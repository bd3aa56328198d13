//! A gateway in this process, before a worker that says what it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use gateway::{Gateway, GatewayParts};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::{ModelCard, ModelList};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Far above what an answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
const KEY: &str = "key";
const KEY_SHA256: &str = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

/// A gateway with one worker, which serves the model `tiny`, and one tenant.
pub struct Front {
    runtime: Runtime,
    gateway: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    script: Arc<Mutex<Script>>,
}

/// What the worker answers, and what it was asked last.
#[derive(Default)]
struct Script {
    json: Bytes,
    events: Bytes,
    asked: Option<Bytes>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
    /// The body that the worker got, if it was asked.
    pub asked: Option<Bytes>,
}

impl Front {
    /// The one gateway of this process. All of it runs on the thread that asks.
    pub fn get() -> &'static Self {
        static FRONT: LazyLock<Front> = LazyLock::new(Front::start);
        &FRONT
    }

    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let script = Arc::default();
        let gateway = runtime.block_on(async {
            let gateway = Gateway::bind(parts(worker(&script).await)).await.expect("binds");
            assert!(gateway.wait_ready(PATIENCE).await, "the worker is found");
            let address = gateway.address();
            tokio::spawn(gateway.serve(std::future::pending()));
            address
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { runtime, gateway, client: Client::builder(TokioExecutor::new()).build(connector), script }
    }

    /// What the worker answers from now on: `events` to who asks for a stream, `json` to others.
    pub fn worker_says(&self, json: impl Into<Bytes>, events: impl Into<Bytes>) {
        let mut script = lock(&self.script);
        (script.json, script.events) = (json.into(), events.into());
    }

    /// Asks the gateway. `cache_control` is `no-store` to have the worker asked in any case.
    pub fn post(&self, path: &str, cache_control: &str, body: &[u8]) -> Got {
        let request = Request::post(format!("http://{}{path}", self.gateway))
            .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
            .header(header::CACHE_CONTROL, cache_control)
            .body(Full::new(Bytes::copy_from_slice(body)))
            .expect("a request");
        let answered = async {
            let (head, body) = self.client.request(request).await.expect("an answer").into_parts();
            (head, body.collect().await.expect("an answer to its end").to_bytes())
        };
        let answered = async { tokio::time::timeout(PATIENCE, answered).await };
        let (head, body) = self.runtime.block_on(answered).expect("an answer in time");
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        Got {
            status: head.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body,
            asked: lock(&self.script).asked.take(),
        }
    }
}

/// A gateway that never gives its worker up and never asks it twice.
fn parts(worker: SocketAddr) -> GatewayParts {
    let mut parts = GatewayParts::default();
    parts.config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    parts.config.workers = vec![format!("http://{worker}")];
    let key = json!({ "tenant": "tenant", "sha256": KEY_SHA256 });
    parts.config.keys = vec![serde_json::from_value(key).expect("all that a key must say")];
    parts.config.attempts_max = 1;
    parts.routing.probe_interval_ms = 1_000_000;
    parts.routing.health.request_failures_max = 100_000;
    parts
}

async fn worker(script: &Arc<Mutex<Script>>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let models = || async {
        let list = ModelList::new(vec![ModelCard::new("tiny", 0, None)]);
        serde_json::to_string(&list).expect("serializes")
    };
    let app = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(answer))
        .route("/v1/completions", post(answer))
        .with_state(Arc::clone(script));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, body: Bytes) -> Response {
    let streams = serde_json::from_slice(&body).is_ok_and(|request: Value| request["stream"] == true);
    let mut script = lock(&script);
    script.asked = Some(body);
    let (kind, said) =
        if streams { ("text/event-stream", &script.events) } else { ("application/json", &script.json) };
    ([(header::CONTENT_TYPE, kind)], said.clone()).into_response()
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}
