//! A small HTTP client. Every wait of it is bounded.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::sse::{self, EventReader};
use serde_json::Value;

use crate::wait::PATIENCE;

/// One server's API.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    headers: HeaderMap,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP's.
    pub status: u16,
    /// HTTP's.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    /// HTTP's.
    pub status: u16,
    /// HTTP's.
    pub headers: HeaderMap,
    /// Pieces of the body as the network brought them, with the time of each.
    pub arrivals: Vec<Instant>,
    body: Incoming,
    reader: EventReader,
    ready: std::collections::VecDeque<String>,
}

impl Api {
    /// A client with connections of its own.
    pub fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        Self { base: format!("http://{address}"), headers: HeaderMap::new(), client }
    }

    /// The same with a header on every request.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.insert(name, value.parse()?);
        Ok(self)
    }

    /// GET
    pub async fn get(&self, path: &str) -> Result<Reply> {
        whole(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// POST, whole.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.post_bytes(path, body.to_string()).await
    }

    /// POST of whatever bytes.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Result<Reply> {
        whole(self.send(Method::POST, path, body.into()).await?).await
    }

    /// POST; returns when the head of the answer is there.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Stream> {
        let (head, body) = self.send(Method::POST, path, body.to_string().into()).await?.into_parts();
        Ok(Stream {
            status: head.status.as_u16(),
            headers: head.headers,
            arrivals: Vec::new(),
            body,
            reader: EventReader::default(),
            ready: std::collections::VecDeque::new(),
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let uri = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&uri).body(Full::new(body))?;
        *request.headers_mut() = self.headers.clone();
        request
            .headers_mut()
            .entry("content-type")
            .or_insert(http::HeaderValue::from_static("application/json"));
        match tokio::time::timeout(PATIENCE, self.client.request(request)).await {
            Ok(response) => response.with_context(|| format!("no answer from {uri}")),
            Err(_) => bail!("no answer from {uri} within {} s", PATIENCE.as_secs()),
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Reply> {
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect())
        .await
        .map_err(|_| anyhow!("the answer did not end within {} s", PATIENCE.as_secs()))?
        .context("the answer broke off")?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's value; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }

    /// The text of the first choice of a chat.
    pub fn content(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

impl Stream {
    /// A header's value; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        header(&self.headers, name)
    }

    /// The next event's data; `None` at the end of the connection.
    pub async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .map_err(|_| anyhow!("a stream was silent for {} s", PATIENCE.as_secs()))?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.context("a stream broke off")?.into_data() else { continue };
            self.arrivals.push(Instant::now());
            for event in self.reader.push(&data)? {
                self.ready.push_back(String::from_utf8(event)?);
            }
        }
    }

    /// All events to the end of the connection.
    pub async fn rest(&mut self) -> Result<Vec<String>> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// Whether these are the events of a stream that came to its proper end.
    pub fn is_complete(events: &[String]) -> bool {
        events.last().is_some_and(|last| last == sse::DONE)
    }

    /// The text that the events of a chat bring.
    pub fn content(events: &[String]) -> String {
        let texts = events.iter().filter_map(|event| {
            let chunk: Value = serde_json::from_str(event).ok()?;
            Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
        });
        texts.collect()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
