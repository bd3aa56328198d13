//! Sends requests and takes the times of their answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, error_message};
use crate::config::{ApiKey, RunConfig};
use crate::error::Error;
use crate::prompts::{Messages, PromptRequest};
use crate::record::{Failure, FailureKind, RequestRecord};
use crate::target::Target;

/// The most that is read of an answer that was not streamed.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The most that is read of an error's body.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// The longest wait for what is asked before a run.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection whose stream has said `[DONE]` may take to end its body, so that it can be used again.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Microseconds since the start of a phase.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What to send, and where it stands in the run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) index: u64,
    pub(crate) warmup: bool,
    pub(crate) scheduled_us: u64,
    pub(crate) prompt: PromptRequest<'a>,
}

/// One pool of connections to the target.
#[derive(Debug)]
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    target: Target,
    headers: HeaderMap,
    request_timeout: Duration,
    body: BodyTemplate,
}

/// The part of a request's body that all requests share.
#[derive(Debug)]
struct BodyTemplate {
    model: String,
    max_tokens: u32,
    stream: bool,
    temperature: Option<f32>,
    ignore_eos: bool,
    return_token_ids: bool,
}

#[derive(Serialize)]
struct ChatBody<'a> {
    model: &'a str,
    messages: &'a Messages<'a>,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<protocol::StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    // Extensions are sent only when wanted: a strict server refuses fields that it does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    return_token_ids: bool,
}

/// What is known of an exchange at any moment, so that one that is cut short leaves what it had.
#[derive(Default)]
struct Exchange {
    answer: Answer,
    status: Option<u16>,
    done_us: Option<u64>,
}

impl Client {
    /// A client for `config`, which was validated. The model's name is set later, by [`Self::set_model`].
    pub(crate) fn new(config: &RunConfig, target: Target, api_key: Option<&ApiKey>) -> Result<Self, Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs_f64(config.connect_timeout_s)));
        // A request that an idle connection closed on before taking it is sent once more on a new one, as HTTP allows:
        // that is the client's default, and no failure of the server's.
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(if config.keep_alive { config.users as usize } else { 0 })
            .build(connector);

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tenk-loadtest/", env!("CARGO_PKG_VERSION"))),
        );
        let accept = if config.stream { "text/event-stream" } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(key) = api_key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                .map_err(|_| Error::Config("the API key has characters that a header cannot carry".into()))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let body = BodyTemplate {
            model: String::new(),
            max_tokens: config.max_tokens,
            stream: config.stream,
            temperature: config.temperature,
            ignore_eos: config.ignore_eos,
            return_token_ids: config.return_token_ids,
        };
        Ok(Self {
            http,
            target,
            headers,
            request_timeout: Duration::from_secs_f64(config.request_timeout_s),
            body,
        })
    }

    pub(crate) fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.body.model);
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
        let unusable =
            |reason: String| Error::Unreachable { address: self.target.models.to_string(), reason };
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
            "model": self.body.model, "prompt": text, "content": text, "add_special_tokens": false,
        });
        let (status, body) = self.probe(Method::POST, &self.target.tokenize, body.to_string().into()).await?;
        if !(200..300).contains(&status) {
            return Ok(None);
        }
        let tokens: Option<Tokens> = serde_json::from_slice(&body).ok();
        Ok(tokens.map(|tokens| tokens.count.unwrap_or(tokens.tokens.len() as u64)).filter(|count| *count > 0))
    }

    /// Sends one request and sees it to its end, good or bad.
    pub(crate) async fn send(&self, job: Job<'_>, clock: Clock) -> RequestRecord {
        let mut exchange = Exchange::default();
        let max_tokens = job.prompt.max_tokens.unwrap_or(self.body.max_tokens);
        let body = self.body.render(&job.prompt.messages, max_tokens);
        let sent_us = clock.now_us();
        let outcome = match body {
            Err(failure) => Err(failure),
            Ok(body) => {
                match tokio::time::timeout(self.request_timeout, self.converse(body, clock, &mut exchange))
                    .await
                {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        let seconds = self.request_timeout.as_secs_f64();
                        Err(Failure::new(FailureKind::Timeout, format!("not at its end after {seconds} s")))
                    }
                }
            }
        };
        let done_us = exchange.done_us.unwrap_or_else(|| clock.now_us());
        let (chunks, token_basis) = exchange.answer.settled_chunks();
        let whole_us = (!self.body.stream && outcome.is_ok()).then_some(done_us);
        RequestRecord {
            index: job.index,
            warmup: job.warmup,
            scheduled_us: job.scheduled_us,
            sent_us,
            first_token_us: chunks.first().map(|chunk| chunk.at_us),
            last_token_us: chunks.last().map(|chunk| chunk.at_us).or(whole_us),
            done_us,
            chunks,
            token_basis,
            status: exchange.status,
            finish_reason: exchange.answer.finish_reason,
            usage: exchange.answer.usage,
            max_tokens,
            cache: None,
            answer_hash: None,
            resent: false,
            failure: outcome.err(),
        }
    }

    async fn converse(&self, body: Bytes, clock: Clock, exchange: &mut Exchange) -> Result<(), Failure> {
        let request = self.request(Method::POST, &self.target.chat, body);
        let response = self.http.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { FailureKind::Connect } else { FailureKind::Disconnected };
            Failure::new(kind, causes(&error))
        })?;
        let status = response.status().as_u16();
        exchange.status = Some(status);
        if !response.status().is_success() {
            let body = Limited::new(response.into_body(), ERROR_BODY_BYTES_MAX).collect().await;
            return Err(http_failure(status, &body.map(|body| body.to_bytes()).unwrap_or_default()));
        }
        if self.body.stream {
            read_stream(response, clock, exchange).await
        } else {
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body =
                body.map_err(|error| Failure::new(FailureKind::Disconnected, causes(error.as_ref())))?;
            exchange.done_us = Some(clock.now_us());
            exchange.answer.take_whole(&body.to_bytes())
        }
    }

    async fn probe(&self, method: Method, uri: &Uri, body: Bytes) -> Result<(u16, Bytes), Error> {
        let unreachable = |reason: String| Error::Unreachable { address: uri.to_string(), reason };
        let exchange = async {
            let response =
                self.http.request(self.request(method, uri, body)).await.map_err(|error| causes(&error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| causes(error.as_ref()))?.to_bytes()))
        };
        match tokio::time::timeout(PROBE_TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(unreachable),
            Err(_) => Err(unreachable(format!("no answer within {} s", PROBE_TIMEOUT.as_secs()))),
        }
    }

    fn request(&self, method: Method, uri: &Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl BodyTemplate {
    fn render(&self, messages: &Messages<'_>, max_tokens: u32) -> Result<Bytes, Failure> {
        let body = ChatBody {
            model: &self.model,
            messages,
            max_tokens,
            stream: self.stream,
            stream_options: self.stream.then_some(protocol::StreamOptions { include_usage: Some(true) }),
            temperature: self.temperature,
            ignore_eos: self.ignore_eos,
            return_token_ids: self.return_token_ids,
        };
        let json = serde_json::to_vec(&body)
            .map_err(|error| Failure::new(FailureKind::BadAnswer, error.to_string()))?;
        Ok(json.into())
    }
}

async fn read_stream(
    response: Response<Incoming>,
    clock: Clock,
    exchange: &mut Exchange,
) -> Result<(), Failure> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("no content type").to_owned();
    let mut body = response.into_body();
    let mut done = false;
    while !done {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Failure::new(FailureKind::Disconnected, causes(&error)))?;
        // The time is taken once a read: what the network brought together, the reader saw together.
        let at_us = clock.now_us();
        if let Some(data) = frame.data_ref() {
            done = exchange.answer.take_stream(data, at_us)?;
        }
    }
    exchange.done_us = Some(clock.now_us());
    exchange.answer.check_stream_end(&content_type)?;
    // How the body ends no longer matters; the connection is used again only if it ends soon.
    let drain = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
    Ok(())
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
