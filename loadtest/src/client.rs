//! Sends requests and takes the times of their answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::answer::{Wanted, error_message};
use crate::api_key::ApiKey;
use crate::asking::Asked;
use crate::clock::Clock;
use crate::error::Error;
use crate::record::{Failure, FailureKind, RequestRecord};
use crate::scenario::Scenario;
use crate::target::Target;

mod body;
mod exchange;
mod link;
mod pool;
mod wire;

use body::BodyTemplate;
use exchange::Exchange;
use link::{Broken, Link};
use pool::Pool;

/// The most that is read of an answer that was not streamed.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest wait for what is asked before a run.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// What to send, and where it stands in the run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) index: u64,
    pub(crate) turn: u32,
    pub(crate) warmup: bool,
    pub(crate) scheduled_us: u64,
    pub(crate) asked: &'a Asked,
}

/// One request seen to its end.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) record: RequestRecord,
    /// The answer's text if the conversation goes on.
    pub(crate) text: Option<String>,
}

/// One pool of connections to the target, and what all requests have in common. It belongs to one runtime.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    pool: Pool,
    model: String,
    body: BodyTemplate,
    /// For whole answers and for streamed ones.
    headers: [HeaderMap; 2],
    request_timeout: Duration,
    /// Whether answers are hashed.
    hash: bool,
}

impl Client {
    /// A client for `scenario`, which was validated. The model's name is set later, by [`Self::set_model`].
    pub(crate) fn new(scenario: &Scenario, target: Target, api_key: Option<&ApiKey>) -> Result<Self, Error> {
        let connect_timeout = Duration::from_secs_f64(scenario.client.connect_timeout_s);
        let mut common = HeaderMap::new();
        common.insert(HOST, target.host.clone());
        common.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        common.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tenk-loadtest/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(key) = api_key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| Error::Config("the API key has characters that a header cannot carry".into()))?;
            bearer.set_sensitive(true);
            common.insert(AUTHORIZATION, bearer);
        }
        let headers = ["application/json", "text/event-stream"].map(|accept| {
            let mut headers = common.clone();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            headers
        });
        Ok(Self {
            pool: Pool::new(target.socket(), connect_timeout, scenario.client.keep_alive),
            target,
            model: String::new(),
            body: BodyTemplate::new("", &scenario.answers),
            headers,
            request_timeout: Duration::from_secs_f64(scenario.client.request_timeout_s),
            hash: scenario.answers.hash || scenario.answers.reference.is_some(),
        })
    }

    pub(crate) fn set_model(&mut self, model: &str, scenario: &Scenario) {
        model.clone_into(&mut self.model);
        self.body = BodyTemplate::new(model, &scenario.answers);
    }

    /// The first of `/v1/models`.
    pub(crate) async fn first_model(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Models {
            data: Vec<Card>,
        }
        #[derive(Deserialize)]
        struct Card {
            id: String,
        }
        let unusable = |reason: String| self.unreachable(&self.target.models, reason);
        let (status, body) = self.probe(Method::GET, &self.target.models, Bytes::new()).await?;
        if !(200..300).contains(&status) {
            return Err(unusable(http_failure(status, &body).example));
        }
        let models: Models = serde_json::from_slice(&body).map_err(|error| unusable(error.to_string()))?;
        let first = models.data.into_iter().next();
        first.map(|card| card.id).ok_or_else(|| unusable("it serves no model".into()))
    }

    /// How many tokens `text` has, where the target offers `/tokenize`. vLLM and tenk read `prompt`, llama.cpp reads
    /// `content`; each ignores the other's field.
    pub(crate) async fn count_tokens(&self, text: &str) -> Result<Option<u64>, Error> {
        #[derive(Deserialize)]
        struct Tokens {
            count: Option<u64>,
            #[serde(default)]
            tokens: Vec<IgnoredAny>,
        }
        let body = serde_json::json!({
            "model": self.model, "prompt": text, "content": text, "add_special_tokens": false,
        });
        let (status, body) = self.probe(Method::POST, &self.target.tokenize, body.to_string().into()).await?;
        if !(200..300).contains(&status) {
            return Ok(None);
        }
        let tokens: Option<Tokens> = serde_json::from_slice(&body).ok();
        Ok(tokens.map(|tokens| tokens.count.unwrap_or(tokens.tokens.len() as u64)).filter(|count| *count > 0))
    }

    /// Sends one request and sees it to its end, good or bad.
    pub(crate) async fn send(&self, job: Job<'_>, clock: Clock) -> Sent {
        let asked = job.asked;
        let mut exchange = Exchange::new(Wanted { hash: self.hash, text: asked.more_turns });
        let body = self.body.render(asked);
        let sent_us = clock.now_us();
        let conversed = self.converse(body, asked.stream, clock, &mut exchange);
        let outcome = match tokio::time::timeout(self.request_timeout, conversed).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let seconds = self.request_timeout.as_secs_f64();
                Err(Failure::new(FailureKind::Timeout, format!("not at its end after {seconds} s")))
            }
        };
        let done_us = exchange.done_us.unwrap_or_else(|| clock.now_us());
        let answer = exchange.answer.settle();
        let whole_us = (!asked.stream && outcome.is_ok()).then_some(done_us);
        let record = RequestRecord {
            index: job.index,
            turn: job.turn,
            warmup: job.warmup,
            scheduled_us: job.scheduled_us,
            sent_us,
            first_token_us: answer.chunks.first().map(|chunk| chunk.at_us),
            last_token_us: answer.chunks.last().map(|chunk| chunk.at_us).or(whole_us),
            done_us,
            chunks: answer.chunks,
            token_basis: answer.token_basis,
            status: exchange.status,
            finish_reason: answer.finish_reason,
            usage: answer.usage,
            max_tokens: asked.max_tokens,
            resent: exchange.resent,
            answer_hash: answer.hash.filter(|_| outcome.is_ok()),
            prompt_hash: None,
            cache: exchange.cache,
            worker: exchange.worker,
            failure: outcome.err(),
        };
        Sent { record, text: answer.text }
    }

    async fn converse(
        &self,
        body: Bytes,
        stream: bool,
        clock: Clock,
        exchange: &mut Exchange,
    ) -> Result<(), Failure> {
        let request = || self.request(Method::POST, &self.target.chat, stream, body.clone());
        let (mut link, response) = self.ask(request, &mut exchange.resent).await?;
        let outcome = exchange.read(&mut link, response, stream, clock).await;
        if exchange.is_over {
            self.pool.put(link);
        }
        outcome
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// A server may close an idle connection at the very moment when a request is on its way. Such a request is sent
    /// once more, on a new connection, and `resent` says so; it is no failure of the server's. That holds only for
    /// connections used before, and only as long as no byte of an answer has come.
    async fn ask(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
        resent: &mut bool,
    ) -> Result<(Link, Response<Incoming>), Failure> {
        let disconnected = |broken: Broken| Failure::new(FailureKind::Disconnected, broken.to_string());
        if let Some(mut link) = self.pool.take().await {
            match link.send(request()).await {
                Ok(response) => return Ok((link, response)),
                Err(broken) if link.has_heard() => return Err(disconnected(broken)),
                Err(_) => *resent = true,
            }
        }
        let mut link = self.pool.connect().await?;
        let response = link.send(request()).await.map_err(disconnected)?;
        Ok((link, response))
    }

    async fn probe(&self, method: Method, uri: &Uri, body: Bytes) -> Result<(u16, Bytes), Error> {
        let exchange = async {
            let request = || self.request(method.clone(), uri, false, body.clone());
            let (mut link, response) = self.ask(request, &mut false).await?;
            let (head, mut body) = response.into_parts();
            let body = exchange::read_whole(&mut link, &mut body, BODY_BYTES_MAX).await?;
            self.pool.put(link);
            Ok::<_, Failure>((head.status.as_u16(), body))
        };
        match tokio::time::timeout(PROBE_TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|failure| self.unreachable(uri, failure.example)),
            Err(_) => Err(self.unreachable(uri, format!("no answer within {} s", PROBE_TIMEOUT.as_secs()))),
        }
    }

    fn unreachable(&self, uri: &Uri, reason: String) -> Error {
        Error::Unreachable { address: self.target.address(uri), reason }
    }

    fn request(&self, method: Method, uri: &Uri, stream: bool, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers[usize::from(stream)].clone();
        request
    }
}

fn http_failure(status: u16, body: &[u8]) -> Failure {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = match json.as_ref().and_then(|json| json.get("error")) {
        Some(error) => error_message(error),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    Failure::new(FailureKind::Http(status), format!("{status}: {message}"))
}

/// An error with its causes: hyper's own message says little.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
