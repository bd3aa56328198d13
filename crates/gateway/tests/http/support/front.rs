//! A gateway that serves, and its client.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use gateway::{Gateway, GatewayError, GatewayParts};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::sse::EventReader;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Worker, eventually, within};

/// A gateway before some workers. It ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<Result<(), GatewayError>>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// `x-tenk-cache`
    pub(crate) fn cache(&self) -> &str {
        self.header("x-tenk-cache").expect("every answer says it")
    }

    /// Payloads of a stream, the end mark included.
    pub(crate) fn events(&self) -> Vec<String> {
        let events = EventReader::default().push(&self.body).expect("short");
        events.into_iter().map(|event| String::from_utf8(event).expect("UTF-8")).collect()
    }

    /// Checks that it is an error as OpenAI's clients expect it, and says its `type`.
    pub(crate) fn error_type(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error.get("param").is_some() && error.get("code").is_some(), "{self:?}");
        error["type"].as_str().expect("a type").to_owned()
    }
}

/// An answer that is being read event by event. Dropped, its client has left.
#[derive(Debug)]
pub(crate) struct EventStream {
    pub(crate) response: Response<Incoming>,
    reader: EventReader,
    ready: VecDeque<String>,
}

impl EventStream {
    /// The next payload; none at the end, be it proper or not.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let data = within("an event", self.response.body_mut().frame()).await?.ok()?.into_data().ok()?;
            let events = self.reader.push(&data).expect("short");
            self.ready.extend(events.into_iter().map(|event| String::from_utf8(event).expect("UTF-8")));
        }
    }

    /// All that is left.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    pub(crate) fn cache(&self) -> &str {
        self.response.headers()["x-tenk-cache"].to_str().expect("ASCII")
    }
}

impl Front {
    /// A gateway that has found all of the workers.
    pub(crate) async fn of(workers: &[&Worker]) -> Self {
        Self::with(workers, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(workers: &[&Worker], change: impl FnOnce(&mut GatewayParts)) -> Self {
        let front = Self::unready(workers.iter().map(|worker| worker.url()).collect(), change).await;
        for index in 0..workers.len() {
            front.healthy(index, true).await;
        }
        front
    }

    /// A gateway that may not have found its workers yet.
    pub(crate) async fn unready(workers: Vec<String>, change: impl FnOnce(&mut GatewayParts)) -> Self {
        let mut parts = GatewayParts::default();
        parts.config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        parts.config.workers = workers;
        parts.routing.probe_interval_ms = 20;
        parts.routing.probe_timeout_ms = 500;
        parts.routing.health.ejection_base_ms = 20;
        parts.routing.health.ejection_max_ms = 20;
        parts.config.drain_delay_ms = 0;
        change(&mut parts);
        let gateway = Gateway::bind(parts).await.expect("binds");
        let address = gateway.address();
        let (shutdown, told) = oneshot::channel();
        let served = tokio::spawn(gateway.serve(async {
            // Kept for as long as the test runs, unless it is used.
            if told.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        // A connection a request, so that a client that leaves takes its connection with it.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { address, client, shutdown: Some(shutdown), served: Some(served) }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        within("an answer", self.client.request(request)).await.expect("the gateway answers")
    }

    pub(crate) async fn fetch(&self, request: Request<Full<Bytes>>) -> Got {
        read(self.send(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.fetch(self.request("GET", path).body(Full::default()).expect("a request")).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Got {
        self.fetch(self.request("POST", path).body(Full::new(body.into())).expect("a request")).await
    }

    pub(crate) async fn chat(&self, request: &Value) -> Got {
        self.chat_with(request, &[]).await
    }

    pub(crate) async fn chat_with(&self, request: &Value, headers: &[(&str, &str)]) -> Got {
        self.fetch(self.chat_request(request, headers)).await
    }

    /// A chat whose answer is read as it comes.
    pub(crate) async fn stream(&self, request: &Value) -> EventStream {
        let response = self.send(self.chat_request(request, &[])).await;
        EventStream { response, reader: EventReader::default(), ready: VecDeque::new() }
    }

    /// A chat in a task of its own; to abort it is to leave.
    pub(crate) fn spawn_chat(&self, request: &Value) -> JoinHandle<Got> {
        let asked = self.client.request(self.chat_request(request, &[]));
        tokio::spawn(async { read(asked.await.expect("the gateway answers")).await })
    }

    fn chat_request(&self, request: &Value, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let start = self.request("POST", "/v1/chat/completions");
        let builder = headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Full::new(request.to_string().into())).expect("a request")
    }

    /// A sample of `/metrics`, by its name and labels; 0 where there is none.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let page = self.get("/metrics").await;
        let line = page.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Until a sample has this value.
    pub(crate) async fn metric_is(&self, sample: &str, value: f64) {
        eventually(&format!("{sample} to be {value}"), async || {
            (self.metric(sample).await - value).abs() < 1e-9
        })
        .await;
    }

    /// Until a worker's health is this.
    pub(crate) async fn healthy(&self, worker: usize, healthy: bool) {
        let sample = format!(r#"tenk_gateway_worker_healthy{{worker="worker-{worker}"}}"#);
        self.metric_is(&sample, f64::from(u8::from(healthy))).await;
    }

    /// Until this many requests are in the gateway and have come as far as they get.
    pub(crate) async fn in_flight(&self, count: usize) {
        self.metric_is("tenk_gateway_requests_in_flight", count as f64).await;
        // Counted at their arrival, they are with the worker or in line after a few polls more.
        for _ in 0..3 {
            self.get("/health/live").await;
        }
    }

    /// Asks it to end.
    pub(crate) fn shut_down(&mut self) {
        let told = self.shutdown.take().expect("asked once").send(());
        told.expect("it serves");
    }

    /// Until it has ended.
    pub(crate) async fn ended(&mut self) {
        let served = self.served.take().expect("waited for once");
        within("the gateway's end", served).await.expect("no panic").expect("a proper end");
    }
}

async fn read(response: Response<Incoming>) -> Got {
    let (parts, body) = response.into_parts();
    let body = within("a body", body.collect()).await.expect("a whole body").to_bytes();
    Got { status: parts.status.as_u16(), headers: parts.headers, body }
}
