//! One attempt at one worker, over HTTP.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Error as ClientError;
use protocol::sse::{self, EventReader};
use protocol::{ApiError, ErrorCode, headers};
use routing::Outcome;
use serde::Deserialize;
use tower::Service;

use crate::call::{Answer, Call, Piece, Pieces};
use crate::error::CallError;
use crate::pool::WorkerEntry;
use crate::state::State;

/// A call and who is to answer it.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) call: Call,
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
    /// It is shutting down.
    Draining,
    /// It has no place.
    Overloaded,
    /// It took too long.
    Timeout,
    /// It refused the request, as any other would.
    Client,
}

impl Fault {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::BrokenOff => "broken_off",
            Self::ServerError => "server_error",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Client => "client_error",
        }
    }

    /// A worker that took too long may have done the work: asking another would double it.
    pub(crate) const fn may_be_retried(self) -> bool {
        !matches!(self, Self::Timeout | Self::Client)
    }

    /// What it says about the worker's health.
    pub(crate) const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Connect => Some(Outcome::ConnectFailed),
            Self::BrokenOff => Some(Outcome::BrokenOff),
            Self::ServerError | Self::Timeout => Some(Outcome::ServerError),
            Self::Overloaded => Some(Outcome::Overloaded),
            Self::Client => Some(Outcome::Success),
            Self::Draining => None,
        }
    }

    fn error(self) -> AttemptError {
        let (code, message) = match self {
            Self::Connect => (ErrorCode::Unavailable, "the worker could not be reached; try again shortly"),
            Self::BrokenOff => (ErrorCode::BadGateway, "the worker broke off before it answered; try again"),
            Self::ServerError | Self::Client => {
                (ErrorCode::BadGateway, "the worker failed to answer; try again")
            }
            Self::Draining => (ErrorCode::Unavailable, "the worker is shutting down; try again shortly"),
            Self::Overloaded => (ErrorCode::Overloaded, "every worker is busy; try again shortly"),
            Self::Timeout => (ErrorCode::Timeout, "the worker took too long to answer"),
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
            let timeout = Duration::from_secs(state.config.first_byte_timeout_s);
            match tokio::time::timeout(timeout, ask(&state, &attempt)).await {
                Ok(answer) => answer,
                Err(_) => Err(Fault::Timeout.error()),
            }
        })
    }
}

async fn ask(state: &Arc<State>, attempt: &Attempt) -> Result<Answer, AttemptError> {
    let Attempt { call, worker } = attempt;
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = worker.uri(call.endpoint.path());
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&call.request_id) {
        headers.insert(headers::REQUEST_ID, id);
    }
    if let Some(key) = &state.worker_authorization {
        headers.insert(header::AUTHORIZATION, key.clone());
    }
    let response = state.client.request(request).await.map_err(|error| fault_of(&error).error())?;
    match response.status() {
        StatusCode::OK if call.stream && is_event_stream(&response) => {
            let idle_timeout = Duration::from_secs(state.config.idle_timeout_s);
            stream_of(response.into_body(), idle_timeout).await
        }
        StatusCode::OK => Ok(Answer::Whole(read_whole(response, state.config.answer_bytes_max).await?)),
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
            let body = read_whole(response, state.config.answer_bytes_max).await?;
            let error = if is_error_json(&body) {
                CallError::Relayed { status, body }
            } else {
                let message = format!("the worker refused the request with status {}", status.as_u16());
                CallError::Own(ApiError::new(ErrorCode::InvalidRequest, message))
            };
            Err(AttemptError { fault: Fault::Client, error })
        }
        _ => Err(Fault::ServerError.error()),
    }
}

fn fault_of(error: &ClientError) -> Fault {
    if error.is_connect() { Fault::Connect } else { Fault::BrokenOff }
}

fn is_event_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.starts_with(b"text/event-stream")
}

fn is_error_json(body: &[u8]) -> bool {
    serde_json::from_slice::<protocol::ErrorBody>(body).is_ok()
}

async fn read_whole(response: Response<Incoming>, bytes_max: usize) -> Result<Bytes, AttemptError> {
    let mut body = response.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::BrokenOff.error())?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > bytes_max {
                tracing::error!(bytes_max, "a worker's answer is larger than `gateway.answer_bytes_max`");
                return Err(AttemptError { fault: Fault::Client, ..Fault::ServerError.error() });
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

/// The stream, once its first event is there: until then another worker can still be asked.
async fn stream_of(body: Incoming, idle_timeout: Duration) -> Result<Answer, AttemptError> {
    let mut pieces = read_pieces(body, idle_timeout);
    match pieces.next().await {
        Some(Ok(first)) => Ok(Answer::Stream(stream::iter([Ok(first)]).chain(pieces).boxed())),
        Some(Err(_)) => Err(Fault::BrokenOff.error()),
        None => Err(Fault::ServerError.error()),
    }
}

struct Reading {
    body: Incoming,
    reader: EventReader,
    ready: std::collections::VecDeque<Vec<u8>>,
}

/// Event payloads until `[DONE]`. An end without it is an error: the client must not take a part for the whole.
fn read_pieces(body: Incoming, idle_timeout: Duration) -> Pieces {
    let reading = Reading { body, reader: EventReader::default(), ready: std::collections::VecDeque::new() };
    stream::unfold(Some(reading), move |reading| async move {
        let mut reading = reading?;
        match next_piece(&mut reading, idle_timeout).await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

async fn next_piece(reading: &mut Reading, idle_timeout: Duration) -> Result<Option<Piece>, ApiError> {
    loop {
        if let Some(payload) = reading.ready.pop_front() {
            if payload == sse::DONE.as_bytes() {
                // What may still come is the connection's end; reading it gives the connection back to its pool.
                let _ = tokio::time::timeout(Duration::from_millis(100), reading.body.frame()).await;
                return Ok(None);
            }
            return classify(payload.into()).map(Some);
        }
        let frame = tokio::time::timeout(idle_timeout, reading.body.frame()).await;
        let frame = frame.map_err(|_| ApiError::new(ErrorCode::Timeout, "the worker fell silent"))?;
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) | None => {
                let message = "the worker broke off in the middle of this answer; send the request again";
                return Err(ApiError::new(ErrorCode::BadGateway, message));
            }
        };
        let events = reading.reader.push(&data);
        let too_long = |_| ApiError::new(ErrorCode::BadGateway, "the worker sent an event that is too long");
        reading.ready.extend(events.map_err(too_long)?);
    }
}

/// As much of a chunk as the gateway needs to know.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    choices: Option<Vec<PeekChoice<'a>>>,
    usage: Option<protocol::Usage>,
    error: Option<protocol::ErrorFields>,
}

#[derive(Deserialize)]
struct PeekChoice<'a> {
    #[serde(borrow)]
    delta: Option<PeekDelta<'a>>,
    #[serde(borrow)]
    text: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
struct PeekDelta<'a> {
    #[serde(borrow)]
    content: Option<std::borrow::Cow<'a, str>>,
}

/// Tells a chunk from token counts and from an error in mid-stream, which ends the stream.
fn classify(payload: Bytes) -> Result<Piece, ApiError> {
    let peek: Peek<'_> = serde_json::from_slice(&payload).map_err(|error| {
        tracing::warn!(%error, "a worker sent an event that is no chunk");
        ApiError::new(ErrorCode::BadGateway, "the worker sent an event that cannot be understood")
    })?;
    if let Some(error) = peek.error {
        return Err(ApiError::new(ErrorCode::BadGateway, error.message));
    }
    let choices = peek.choices.unwrap_or_default();
    if choices.is_empty() && peek.usage.is_some() {
        return Ok(Piece::Usage { usage: peek.usage, payload });
    }
    let has_text = choices.iter().any(|choice| {
        let content = choice.delta.as_ref().and_then(|delta| delta.content.as_ref());
        content.or(choice.text.as_ref()).is_some_and(|text| !text.is_empty())
    });
    Ok(Piece::Chunk { has_text, payload })
}
