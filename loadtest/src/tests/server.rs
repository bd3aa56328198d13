//! A scripted server: it says what it is told to, and keeps what it was asked.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the server says to a chat request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Events, each in a write of its own.
    Events(Vec<String>, End),
    /// Events, each so many milliseconds after the one before.
    Slow(Vec<(u64, String)>),
    /// A body with a status.
    Body(u16, Value),
    /// Nothing, ever.
    Silence,
    /// Another one, with a header.
    Headed(&'static str, &'static str, Box<Answer>),
}

/// How a stream ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    /// In good order.
    Orderly,
    /// The connection breaks.
    Broken,
    /// Never.
    Never,
}

pub(crate) fn text(content: &str) -> String {
    protocol::sse::event(
        &json!({"choices": [{"delta": {"content": content}, "finish_reason": null}]}).to_string(),
    )
}

pub(crate) fn role() -> String {
    let choice = json!({"delta": {"role": "assistant", "content": ""}, "finish_reason": null});
    protocol::sse::event(&json!({ "choices": [choice] }).to_string())
}

pub(crate) fn finish() -> String {
    protocol::sse::event(&json!({"choices": [{"delta": {}, "finish_reason": "length"}]}).to_string())
}

pub(crate) fn usage(completion_tokens: u32) -> String {
    let usage = json!({"prompt_tokens": 20, "completion_tokens": completion_tokens, "total_tokens": 0});
    protocol::sse::event(&json!({"choices": [], "usage": usage}).to_string())
}

pub(crate) fn done() -> String {
    protocol::sse::event(protocol::sse::DONE)
}

/// A role, three texts of five tokens, a reason, usage and the end mark.
pub(crate) fn whole_stream() -> Answer {
    let events = [role(), text("one"), text(" two three four"), text(" five"), finish(), usage(5), done()];
    Answer::Events(events.to_vec(), End::Orderly)
}

type Tokenizer = fn(&str) -> usize;

struct Script {
    answers: Vec<Answer>,
    tokenizer: Option<Tokenizer>,
    asked: AtomicUsize,
    bodies: Mutex<Vec<Value>>,
    authorizations: Mutex<Vec<Option<String>>>,
    in_flight: watch::Sender<usize>,
}

/// A server on a free loopback port; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Ends the server and waits until its port is closed.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Gives `answers` in turn, from the first again after the last.
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        Self::with_tokenizer(answers, None).await
    }

    pub(crate) async fn with_tokenizer(answers: Vec<Answer>, tokenizer: Option<Tokenizer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let script = Arc::new(Script {
            answers,
            tokenizer,
            asked: AtomicUsize::new(0),
            bodies: Mutex::default(),
            authorizations: Mutex::default(),
            in_flight: watch::Sender::new(0),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&script)));
        Self { address, script, task }
    }

    /// The chat requests that came, parsed.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.script.bodies.lock().expect("no panic").clone()
    }

    /// The `Authorization` of each chat request.
    pub(crate) fn authorizations(&self) -> Vec<Option<String>> {
        self.script.authorizations.lock().expect("no panic").clone()
    }

    /// Waits until so many chat requests have come.
    pub(crate) async fn has_been_asked(&self, requests: usize) {
        let mut seen = self.script.in_flight.subscribe();
        seen.wait_for(|asked| *asked >= requests).await.expect("the server lives");
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let script = Arc::clone(&script);
        connections.spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&script)));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

fn json_body(status: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

async fn respond(request: Request<Incoming>, script: Arc<Script>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let authorization = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .map(|value| value.to_str().expect("text").to_owned());
    let method = request.method().clone();
    let bytes = request.into_body().collect().await.expect("a whole request").to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match (method, path.as_str(), script.tokenizer) {
        (Method::GET, "/v1/models", _) => {
            Ok(json_body(200, &json!({"object": "list", "data": [{"id": "first"}, {"id": "second"}]})))
        }
        (Method::POST, "/tokenize", Some(tokenizer)) => Ok(json_body(
            200,
            &json!({"count": tokenizer(body["prompt"].as_str().expect("a prompt")), "tokens": []}),
        )),
        (Method::POST, "/v1/chat/completions", _) => {
            script.bodies.lock().expect("no panic").push(body);
            script.authorizations.lock().expect("no panic").push(authorization);
            let turn = script.asked.fetch_add(1, Ordering::SeqCst);
            script.in_flight.send_modify(|asked| *asked += 1);
            Ok(answer(script.answers[turn % script.answers.len()].clone()).await)
        }
        _ => Ok(json_body(404, &json!({"error": {"message": "no such path"}}))),
    }
}

async fn answer(what: Answer) -> Response<Body> {
    match what {
        Answer::Body(status, body) => json_body(status, &body),
        Answer::Silence => std::future::pending().await,
        Answer::Headed(name, value, other) => {
            let mut response = Box::pin(answer(*other)).await;
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
            response
        }
        Answer::Slow(events) => stream(futures::stream::iter(events).then(|(delay_ms, event)| async move {
            tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
            Ok(Frame::data(Bytes::from(event)))
        })),
        Answer::Events(events, end) => {
            let end_is_disorderly = end != End::Orderly;
            let frames = futures::stream::iter(events).map(|event| Ok(Frame::data(Bytes::from(event))));
            let end = futures::stream::once(async move {
                if end == End::Never {
                    std::future::pending::<()>().await;
                }
                Err(std::io::Error::other("broken on purpose"))
            });
            stream(frames.chain(end.take(usize::from(end_is_disorderly))))
        }
    }
}

fn stream(
    frames: impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    response
}
