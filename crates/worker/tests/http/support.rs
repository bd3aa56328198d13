//! A worker of one's own for each test, and a client that trusts nothing.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use candle_core::DType;
use engine::ops::KvDtype;
use engine::{Config as EngineConfig, DeviceKind, LoadOptions, LoadedModel, SchedulerConfig};
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::LoadReport;
use serde_json::{Value, json};
use tiny_model::{Checkpoint, Family};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use worker::{Config, Worker, WorkerError, WorkerModel};

/// Nothing in these tests takes nearly as long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tokens of the small model's context.
pub(crate) const CONTEXT: usize = 256;
/// Tokens of the long model's context: generating them all takes far longer than any test.
pub(crate) const LONG_CONTEXT: usize = 65_536;
/// The tiny tokenizer's end of a turn.
pub(crate) const END_OF_TURN: u32 = 258;

/// A model of one's own.
pub(crate) fn load(context_len: usize) -> LoadedModel {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, &tiny_model::Shape { context_len, ..Default::default() }).expect("writes");
    let config = EngineConfig {
        device: DeviceKind::Cpu,
        kv_cache_tokens: context_len.max(16_384),
        kv_dtype: KvDtype::F32,
        ..EngineConfig::default()
    };
    let options = LoadOptions { name: "tiny".into(), version: "v1".into(), config };
    LoadedModel::load(&path, options).expect("loads")
}

/// A small model with this chat template, which always takes it to be 15 January 2027.
pub(crate) fn load_with_template(source: &str) -> Arc<LoadedModel> {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = Checkpoint::random(&Family::default()).expect("a checkpoint");
    checkpoint.write_folder(folder.path(), DType::F32, 1).expect("writes");
    std::fs::write(folder.path().join("chat_template.jinja"), source).expect("written");
    let config = EngineConfig { device: DeviceKind::Cpu, ..EngineConfig::default() };
    let options = LoadOptions { name: "tiny".into(), version: "v1".into(), config };
    Arc::new(LoadedModel::load(folder.path(), options).expect("loads").with_clock(|| 1_800_000_000))
}

pub(crate) fn small_model() -> Arc<LoadedModel> {
    static MODEL: OnceLock<Arc<LoadedModel>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(load(CONTEXT))))
}

pub(crate) fn long_model() -> Arc<LoadedModel> {
    static MODEL: OnceLock<Arc<LoadedModel>> = OnceLock::new();
    Arc::clone(MODEL.get_or_init(|| Arc::new(load(LONG_CONTEXT))))
}

/// What a test's worker is made of.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) scheduler: SchedulerConfig,
    pub(crate) model: Arc<LoadedModel>,
}

impl Default for Setup {
    fn default() -> Self {
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
        Self { config, scheduler: SchedulerConfig::default(), model: small_model() }
    }
}

/// A worker that serves until it is dropped or told to stop.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let Setup { config, scheduler, model } = setup;
        let worker = Worker::bind(config, WorkerModel { model, scheduler }).await.expect("binds");
        let address = worker.address();
        let (shutdown, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.serve(async move {
            let _ = stopped.await;
        }));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, shutdown: Some(shutdown), task }
    }

    /// A client of a worker that somebody else runs.
    pub(crate) fn client_of(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, shutdown: None, task: tokio::spawn(std::future::ready(Ok(()))) }
    }

    /// Sends a body to a server that may not live to answer.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) {
        let _ = patiently(self.client.request(self.build(Method::POST, path, body.to_string()))).await;
    }

    /// Tells it to drain.
    pub(crate) fn stop(&mut self) {
        let _ = self.shutdown.take().expect("stopped once").send(());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) {
        patiently(&mut self.task).await.expect("no panic").expect("an orderly end");
    }

    pub(crate) async fn request(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        patiently(self.client.request(request)).await.expect("an answer")
    }

    pub(crate) fn build(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let uri = format!("http://{}{path}", self.address);
        let request =
            Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json");
        request.body(Full::new(body.into())).expect("a request")
    }

    /// Sends a body and gives the response as soon as it begins.
    pub(crate) async fn open(&self, path: &str, body: &Value) -> Response<Incoming> {
        self.request(self.build(Method::POST, path, body.to_string())).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        Reply::read(self.request(self.build(method, path, body)).await).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "").await
    }

    /// A chat's whole answer; `fields` over the defaults of [`chat`].
    pub(crate) async fn chat(&self, fields: Value) -> Value {
        self.post(CHAT, &chat(fields)).await.ok()
    }

    /// A completion's whole answer; `fields` over the defaults of [`completion`].
    pub(crate) async fn complete(&self, fields: Value) -> Value {
        self.post(COMPLETIONS, &completion(fields)).await.ok()
    }

    /// A chat's events, without the end mark.
    pub(crate) async fn chat_events(&self, fields: Value) -> Vec<Value> {
        self.post(CHAT, &streamed(chat(fields))).await.events()
    }

    /// A completion's events, without the end mark.
    pub(crate) async fn completion_events(&self, fields: Value) -> Vec<Value> {
        self.post(COMPLETIONS, &streamed(completion(fields))).await.events()
    }

    pub(crate) async fn load(&self) -> LoadReport {
        serde_json::from_value(self.get("/internal/load").await.ok()).expect("a load report")
    }

    /// Polls the load report until it shows what is waited for.
    pub(crate) async fn until(&self, what: impl Fn(&LoadReport) -> bool) -> LoadReport {
        patiently(async {
            loop {
                let report = self.load().await;
                if what(&report) {
                    return report;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
        .await
    }

    /// A connection that takes in little before somebody reads from it.
    pub(crate) async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        patiently(socket.connect(self.address)).await.expect("connects")
    }

    /// Writes bytes as they are, ends the connection's sending half, and returns what comes back.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut reply = Vec::new();
        let _ = patiently(stream.read_to_end(&mut reply)).await;
        String::from_utf8_lossy(&reply).into_owned()
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = patiently(body.collect()).await.expect("a whole body").to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("visible"))
    }

    pub(crate) fn json(&self) -> Value {
        assert!(self.header(header::CONTENT_TYPE).starts_with("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body of a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The error object of a failure: all of OpenAI's members are there, also those that are null.
    pub(crate) fn error(&self) -> Value {
        assert!(self.status >= 400, "{self:?}");
        let error = self.json()["error"].clone();
        let members: Vec<&str> = error.as_object().expect("an error").keys().map(String::as_str).collect();
        assert_eq!(members, ["code", "message", "param", "type"], "{self:?}");
        error
    }

    /// The events of a stream that ended as it should.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header(header::CONTENT_TYPE), "text/event-stream; charset=utf-8");
        let (events, ended) = events(self.text());
        assert!(ended, "the stream ends with its mark: {}", self.text());
        events
    }
}

/// The events of a stream to the letter, and whether its last is the end mark.
pub(crate) fn events(text: &str) -> (Vec<Value>, bool) {
    assert!(text.ends_with("\n\n"), "the last event is complete: {text:?}");
    let mut frames: Vec<&str> = text.split_terminator("\n\n").collect();
    let ended = frames.last() == Some(&"data: [DONE]");
    if ended {
        frames.pop();
    }
    let json = |frame: &&str| {
        let data = frame.strip_prefix("data: ").expect("`data: ` and nothing else");
        assert!(!data.contains('\n'), "one line: {frame:?}");
        serde_json::from_str(data).expect("JSON")
    };
    (frames.iter().map(json).collect(), ended)
}

/// Waits until no engine computes with a model any more.
pub(crate) async fn let_go(model: &Arc<LoadedModel>) {
    patiently(async {
        while Arc::strong_count(model) + model.transformer().map_or(1, Arc::strong_count) > 2 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    })
    .await;
}

/// Waits, but not forever.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing hangs")
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const COMPLETIONS: &str = "/v1/completions";

/// A chat request of eight tokens, with `fields` over it.
pub(crate) fn chat(fields: Value) -> Value {
    let messages = json!([{"role": "user", "content": "hello there"}]);
    merged(json!({"model": "tiny", "messages": messages, "max_tokens": 8, "ignore_eos": true}), fields)
}

/// A completion request of eight tokens, with `fields` over it.
pub(crate) fn completion(fields: Value) -> Value {
    merged(json!({"model": "tiny", "prompt": "once upon", "max_tokens": 8, "ignore_eos": true}), fields)
}

pub(crate) fn streamed(body: Value) -> Value {
    merged(body, json!({"stream": true}))
}

/// Fields of the second over those of the first.
pub(crate) fn merged(mut base: Value, over: Value) -> Value {
    let Value::Object(over) = over else { panic!("fields") };
    base.as_object_mut().expect("an object").extend(over);
    base
}

/// Biases that leave only small letters to choose from.
pub(crate) fn letters() -> Value {
    (u32::from(b'a')..=u32::from(b'z')).map(|token| (token.to_string(), json!(100))).collect()
}

/// All text of one answer's events, chat's or completions'.
pub(crate) fn text_of(events: &[Value], index: u64) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().expect("choices"));
    let own = choices.filter(|choice| choice["index"] == index);
    own.map(|choice| choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or("")).collect()
}

/// Reads a stream's next piece.
pub(crate) async fn next_piece(response: &mut Response<Incoming>) -> Option<Bytes> {
    let frame = patiently(response.body_mut().frame()).await?;
    Some(frame.expect("no break").into_data().expect("data"))
}

/// A POST as bytes, for those who write to sockets themselves.
pub(crate) fn post_bytes(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// A stream of some 8 MiB: far more than sockets hold while nobody reads.
pub(crate) fn large_stream() -> Value {
    streamed(chat(json!({"n": 8, "max_tokens": 600, "logprobs": true, "top_logprobs": 20})))
}
