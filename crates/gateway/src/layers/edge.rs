//! Where HTTP ends: a request's body becomes a call, an answer becomes a response.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use protocol::{ApiError, headers, sse};
use tower::ServiceExt;

use crate::call::{Answer, Endpoint, Piece, Pieces, Trail};
use crate::error::CallError;
use crate::layers::authenticate::Tenant;
use crate::layers::trace::RequestId;
use crate::parse;
use crate::server::Front;

/// Handles every path that is passed on.
pub(crate) async fn edge(Shared(front): Shared<Front>, endpoint: Endpoint, request: Request) -> Response {
    let trail = request.extensions().get::<Arc<Trail>>().map(Arc::clone);
    let trail = trail.unwrap_or_else(|| Arc::new(Trail::new(Instant::now())));
    let answer = answer(front, endpoint, request, Arc::clone(&trail)).await;
    let mut response = answer.unwrap_or_else(CallError::into_response);
    label(response.headers_mut(), &trail);
    response
}

async fn answer(
    front: Front,
    endpoint: Endpoint,
    request: Request,
    trail: Arc<Trail>,
) -> Result<Response, CallError> {
    let (parts, body) = request.into_parts();
    let since = Instant::now();
    let body = front.state.bodies.read(body).await?;
    // A client that sends slowly takes its own time.
    trail.waited(since.elapsed());
    let tenant = parts.extensions.get::<Tenant>().map_or_else(Tenant::nobody, Tenant::clone);
    let request_id =
        parts.extensions.get::<RequestId>().map_or_else(|| Arc::from(""), |id| Arc::clone(&id.0));
    let headers = parts.headers;
    let parts = parse::Parts { endpoint, headers, tenant, request_id, trail: Arc::clone(&trail) };
    let call = front.state.compute.run_over(body.len(), || parse::parse(parts, body)).await?;
    let include_usage = call.include_usage;
    match front.stack.oneshot(call).await? {
        Answer::Whole { body, .. } => {
            Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
        }
        Answer::Stream(pieces) => Ok(event_stream(framed(pieces, include_usage, trail))),
        Answer::Replay(events) => Ok(event_stream(Body::from(all_framed(&events)))),
    }
}

/// Frames the pieces. An error is told in the stream, which then ends without its end mark.
fn framed(pieces: Pieces, include_usage: bool, trail: Arc<Trail>) -> Body {
    let started = Instant::now();
    let ended = futures::stream::once(async { Ok::<_, ApiError>(None) });
    let framed = pieces
        .map(|piece| piece.map(Some))
        .chain(ended)
        .scan(false, move |failed, piece| {
            let bytes = match (*failed, piece) {
                (true, _) => return futures::future::ready(None),
                (_, Ok(None)) => {
                    // Streaming is the worker's and the client's time.
                    trail.waited(started.elapsed());
                    all_framed(&[])
                }
                (_, Ok(Some(Piece::Chunk { payload, .. }))) => frame(&payload),
                (_, Ok(Some(Piece::Usage { payload, .. }))) if include_usage => frame(&payload),
                (_, Ok(Some(Piece::Usage { .. }))) => Bytes::new(),
                (_, Err(error)) => {
                    *failed = true;
                    trail.waited(started.elapsed());
                    trail.break_off(error.code.http_status());
                    frame(error.to_json().as_bytes())
                }
            };
            futures::future::ready(Some(bytes))
        })
        .filter(|bytes| futures::future::ready(!bytes.is_empty()))
        .map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(framed)
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // For proxies in front that would wait for more.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A whole stream with its end mark, in one buffer.
fn all_framed(events: &[Bytes]) -> Bytes {
    let payloads = || events.iter().map(|event| &event[..]).chain([sse::DONE.as_bytes()]);
    let mut framed = Vec::with_capacity(payloads().map(|payload| payload.len() + FRAME_BYTES).sum());
    payloads().for_each(|payload| push_frame(&mut framed, payload));
    framed.into()
}

fn frame(payload: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(payload.len() + FRAME_BYTES);
    push_frame(&mut framed, payload);
    framed.into()
}

/// What a frame adds to its payload.
const FRAME_BYTES: usize = 8;

fn push_frame(framed: &mut Vec<u8>, payload: &[u8]) {
    framed.extend_from_slice(b"data: ");
    framed.extend_from_slice(payload);
    framed.extend_from_slice(b"\n\n");
}

fn label(headers: &mut HeaderMap, trail: &Trail) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set(headers::CACHE, trail.cache().as_str());
    if let Some(worker) = trail.worker() {
        set(headers::WORKER, &worker);
    }
    if let Some(version) = trail.version() {
        set(headers::MODEL_VERSION, &version);
    }
}
