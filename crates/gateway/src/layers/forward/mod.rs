//! One attempt at one worker, over HTTP.

mod events;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error as ClientError;
use protocol::{ApiError, ErrorCode, headers};
use routing::Outcome;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::Service;

use self::events::PeekChoice;
use crate::call::{Answer, Call, Ending, TokenCounts};
use crate::error::CallError;
use crate::observe::AttemptEnd;
use crate::pool::WorkerEntry;
use crate::state::State;

/// An error's words are few.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A call and who is to answer it.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) call: Arc<Call>,
    /// As it goes to a worker.
    pub(crate) body: Bytes,
    pub(crate) worker: Arc<WorkerEntry>,
}

/// Why there is no answer, for the client and for the balancer.
#[derive(Debug)]
pub(crate) struct AttemptError {
    pub(crate) fault: Fault,
    pub(crate) error: CallError,
}

/// What went wrong with a worker, all before its first byte went to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It could not be reached.
    Connect,
    /// It hung up.
    BrokenOff,
    /// It answered 5xx, or what cannot be understood.
    ServerError,
    /// Its engine died in a step that this request was in: the request itself may be the cause.
    EngineFailed,
    /// It is shutting down.
    Draining,
    /// It has no place.
    Overloaded,
    /// It took too long.
    Timeout,
    /// It refused the request, as any other would.
    Client,
    /// Its answer is larger than may be kept in memory, as any other's would be.
    TooLarge,
}

impl Fault {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::BrokenOff => "broken_off",
            Self::ServerError => "server_error",
            Self::EngineFailed => "engine_failed",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Client => "client_error",
            Self::TooLarge => "too_large",
        }
    }

    /// A worker that took too long may have done the work: asking another would double it.
    pub(crate) const fn may_be_retried(self) -> bool {
        !matches!(self, Self::Timeout | Self::Client | Self::TooLarge)
    }

    /// What it says about the worker's health.
    pub(crate) const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Connect => Some(Outcome::ConnectFailed),
            Self::BrokenOff => Some(Outcome::BrokenOff),
            Self::ServerError | Self::EngineFailed | Self::Timeout => Some(Outcome::ServerError),
            Self::Overloaded => Some(Outcome::Overloaded),
            Self::Client | Self::TooLarge => Some(Outcome::Success),
            Self::Draining => None,
        }
    }

    /// What it says about the version that the worker serves.
    pub(crate) const fn seen(self) -> AttemptEnd {
        match self.outcome() {
            Some(Outcome::ConnectFailed | Outcome::BrokenOff | Outcome::ServerError) => AttemptEnd::Failed,
            Some(Outcome::Overloaded) => AttemptEnd::Refused,
            _ => AttemptEnd::Nothing,
        }
    }

    pub(crate) fn error(self) -> AttemptError {
        let (code, message) = match self {
            Self::Connect => (ErrorCode::Unavailable, "the worker could not be reached; try again shortly"),
            Self::BrokenOff => (ErrorCode::BadGateway, "the worker broke off before it answered; try again"),
            Self::ServerError | Self::EngineFailed | Self::Client => {
                (ErrorCode::BadGateway, "the worker failed to answer; try again")
            }
            Self::Draining => (ErrorCode::Unavailable, "the worker is shutting down; try again shortly"),
            Self::Overloaded => (ErrorCode::Overloaded, "every worker is busy; try again shortly"),
            Self::Timeout => (ErrorCode::Timeout, "the worker took too long to answer"),
            Self::TooLarge => {
                (ErrorCode::BadGateway, "the answer is too large; ask for less, or for a stream")
            }
        };
        AttemptError { fault: self, error: CallError::new(code, message) }
    }
}

/// The innermost service.
#[derive(Clone)]
pub(crate) struct Forward(Arc<State>);

impl Forward {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self(Arc::clone(state))
    }
}

impl Service<Attempt> for Forward {
    type Response = Answer;
    type Error = AttemptError;
    type Future = futures::future::BoxFuture<'static, Result<Answer, AttemptError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), AttemptError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            // One time for all attempts and the wait in line together, so that who is in front can have a longer one.
            let timeout = Duration::from_secs(state.config.first_byte_timeout_s);
            let timeout = timeout.saturating_sub(attempt.call.trail.arrived.elapsed());
            let answer = tokio::time::timeout(timeout, ask(&state, &attempt)).await;
            answer.unwrap_or_else(|_| Err(Fault::Timeout.error()))
        })
    }
}

async fn ask(state: &Arc<State>, attempt: &Attempt) -> Result<Answer, AttemptError> {
    let Attempt { call, worker, .. } = attempt;
    let resent = || state.metrics.resends.inc();
    let response = state.client.send(|| request(state, attempt), resent).await;
    let response = response.map_err(|error| fault_of(&error).error())?;
    if is_encoded(&response) {
        tracing::error!(worker = &*worker.name, "the worker compresses answers, which nobody asked it to");
        return Err(Fault::ServerError.error());
    }
    match response.status() {
        StatusCode::OK => {
            note_version(&response, call);
            if call.stream {
                if !is_event_stream(&response) {
                    tracing::warn!(
                        worker = &*worker.name,
                        "the worker was asked for a stream and sends none"
                    );
                    return Err(Fault::ServerError.error());
                }
                let idle_timeout = Duration::from_secs(state.config.idle_timeout_s);
                return events::stream_of(response.into_body(), idle_timeout).await;
            }
            let body = read_whole(response, state.config.answer_bytes_max).await?;
            let answered = body.clone();
            let told = state.compute.run_over(body.len(), move || Ok(told_by(&answered))).await;
            let (usage, ending) = told.map_err(|_| Fault::ServerError.error())?.map_err(|error| {
                tracing::warn!(%error, worker = &*worker.name, "the worker's answer is no JSON object");
                Fault::ServerError.error()
            })?;
            Ok(Answer::Whole { body, usage, ending })
        }
        StatusCode::TOO_MANY_REQUESTS => Err(Fault::Overloaded.error()),
        StatusCode::SERVICE_UNAVAILABLE => {
            state.pool.note_draining(worker);
            Err(Fault::Draining.error())
        }
        // The gateway's own key is wrong: no business of the client's.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            tracing::error!(worker = &*worker.name, "the worker refuses `gateway.worker_api_key`");
            Err(Fault::ServerError.error())
        }
        status if status.is_client_error() => {
            // One that is longer is no error of OpenAI's API.
            let body = read_whole(response, ERROR_BYTES_MAX).await.unwrap_or_default();
            let error = if is_error_json(&body) {
                CallError::Relayed { status, body }
            } else {
                let message = format!("the worker refused the request with status {}", status.as_u16());
                CallError::Own(ApiError::new(ErrorCode::InvalidRequest, message))
            };
            Err(AttemptError { fault: Fault::Client, error })
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            let body = read_whole(response, ERROR_BYTES_MAX).await.unwrap_or_default();
            Err(if is_engine_failure(&body) { Fault::EngineFailed } else { Fault::ServerError }.error())
        }
        _ => Err(Fault::ServerError.error()),
    }
}

fn request(state: &State, attempt: &Attempt) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(attempt.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = attempt.worker.uri(attempt.call.endpoint);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&attempt.call.request_id) {
        headers.insert(headers::REQUEST_ID, id);
    }
    if let Some(key) = &state.worker_authorization {
        headers.insert(header::AUTHORIZATION, key.clone());
    }
    request
}

fn fault_of(error: &ClientError) -> Fault {
    if error.is_connect() { Fault::Connect } else { Fault::BrokenOff }
}

/// A worker that was restarted with another version since its last probe says so in its answer.
fn note_version(response: &Response<Incoming>, call: &Call) {
    let version = response.headers().get(headers::MODEL_VERSION).and_then(|version| version.to_str().ok());
    if let Some(version) = version.filter(|version| Some(*version) != call.version.as_deref()) {
        call.trail.set_version(&Arc::from(version));
    }
}

fn is_event_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.starts_with(b"text/event-stream")
}

/// Whether the body is not what it says in plain bytes.
fn is_encoded(response: &Response<Incoming>) -> bool {
    response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// Whether a worker of ours says that its engine died of the step that the request was in.
fn is_engine_failure(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"]["code"] == ApiError::ENGINE_FAILED)
}

/// Servers agree on `error.message` and on little else.
fn is_error_json(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|body| body["error"]["message"].is_string())
}

/// The token counts and the ending of an answer that must be a JSON object.
fn told_by(body: &[u8]) -> Result<(Option<TokenCounts>, Ending), serde_json::Error> {
    #[derive(Deserialize)]
    struct Answered<'a> {
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
        #[serde(borrow)]
        choices: Option<&'a RawValue>,
    }
    let answered = read_object::<Answered<'_>>(body)?;
    let usage = answered.usage.and_then(counts_of);
    // Whatever else a server puts there is its own business.
    let choices =
        answered.choices.and_then(|choices| serde_json::from_str::<Vec<PeekChoice<'_>>>(choices.get()).ok());
    let ending = choices.map_or(Ending { has_text: true, end: None }, |choices| PeekChoice::ending(&choices));
    Ok((usage, ending))
}

/// Reads as much of a JSON object as `T` wants. serde would take a list for a struct as well, and let bytes that are no
/// text pass in members that it skips.
fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    let text = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde_json::Error::custom("expected an object"))
    }
}

/// None where they are not what everyone means by them.
fn counts_of(usage: &RawValue) -> Option<TokenCounts> {
    serde_json::from_str(usage.get()).ok()
}

async fn read_whole(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, AttemptError> {
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::BrokenOff.error())?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > bytes_max {
            tracing::error!(bytes_max, "a worker's answer is larger than is read");
            return Err(Fault::TooLarge.error());
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_an_object_and_its_usage_may_be_anything() {
        let counts =
            |body: &str| told_by(body.as_bytes()).map(|(usage, _)| usage.map(|usage| usage.prompt_tokens));
        assert_eq!(counts(r#"{"usage":{"prompt_tokens":7}}"#).ok(), Some(Some(7)));
        assert_eq!(counts(r#"{"usage":{"prompt_tokens":7,"prompt_tokens_details":{}}}"#).ok(), Some(Some(7)));
        for without in ["{}", r#"{"usage":null}"#, r#"{"usage":"none"}"#, r#"{"usage":{"prompt_tokens":-1}}"#]
        {
            assert_eq!(counts(without).ok(), Some(None), "{without}");
        }
        for broken in ["", "<html>", "7", "[null]", r#"{"usage":{}"#, "data: {}"] {
            assert!(counts(broken).is_err(), "{broken}");
        }
        assert!(told_by(b"{\"id\":\"\xff\"}").is_err());
    }

    #[test]
    fn error_bodies_of_any_openai_compatible_server_are_known() {
        assert!(is_error_json(br#"{"error":{"message":"m","type":"t","param":null,"code":400}}"#));
        assert!(is_error_json(br#"{"error":{"message":"m \"quoted\""}}"#));
        assert!(!is_error_json(br#"{"error":"m"}"#));
        assert!(!is_error_json(b"<html>"));
    }
}
