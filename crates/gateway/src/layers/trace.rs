//! The outermost layer: an id for every request, one log line and the counts for its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use protocol::headers;
use telemetry::{InFlight, UNKNOWN};
use tracing::Instrument;
use uuid::Uuid;

use crate::call::Trail;
use crate::state::State;

/// The id that gateway and worker log a request under.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// The status that is recorded for a client that went away before its answer was whole, as nginx has it.
const CLIENT_GONE: u16 = 499;

/// Gives the request its id and its trail, and records how it ended once its last byte is out.
pub(crate) async fn trace(Shared(state): Shared<Arc<State>>, mut request: Request, next: Next) -> Response {
    let trail = Arc::new(Trail::new(Instant::now()));
    let id = request_id(&request);
    let mut record = Record {
        trail: Arc::clone(&trail),
        id: Arc::clone(&id),
        endpoint: endpoint_of(request.uri().path()),
        status: CLIENT_GONE,
        _in_flight: InFlight::enter(&state.metrics.requests_in_flight),
        state,
    };
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    request.extensions_mut().insert(trail);
    let span = tracing::info_span!("request", id = &*id);
    let mut response = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(headers::REQUEST_ID, id);
    }
    let status = response.status().as_u16();
    if response.body().is_end_stream() {
        record.status = status;
    }
    response.map(|body| Body::new(Recorded { body, status, record }))
}

fn endpoint_of(path: &str) -> telemetry::Endpoint {
    match path {
        "/v1/chat/completions" => telemetry::Endpoint::ChatCompletions,
        "/v1/completions" => telemetry::Endpoint::Completions,
        "/tokenize" | "/detokenize" => telemetry::Endpoint::Tokenize,
        path if path.starts_with("/v1/models") => telemetry::Endpoint::Models,
        _ => telemetry::Endpoint::Other,
    }
}

/// The client's own id if it is short and plain, else a new one.
fn request_id(request: &Request) -> Arc<str> {
    let sent = request.headers().get(headers::REQUEST_ID).and_then(|id| id.to_str().ok());
    let plain = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    sent.filter(plain).map_or_else(|| Arc::from(Uuid::new_v4().simple().to_string()), Arc::from)
}

/// Written down when the response is gone, whole or not.
struct Record {
    state: Arc<State>,
    trail: Arc<Trail>,
    id: Arc<str>,
    endpoint: telemetry::Endpoint,
    status: u16,
    _in_flight: InFlight,
}

impl Drop for Record {
    fn drop(&mut self) {
        let trail = &self.trail;
        let span = trail.arrived.elapsed();
        let model = trail.model.get().map_or(UNKNOWN, |model| model);
        let version = trail.version();
        let version = version.as_deref().unwrap_or(UNKNOWN);
        let series = self.state.metrics.version(model, version);
        series.requests(self.endpoint, self.status).inc();
        series.request_duration.observe(span.as_secs_f64());
        let own = span.saturating_sub(trail.wait());
        if self.status != CLIENT_GONE {
            // What a request waited for is known only once it has it.
            self.state.metrics.own.observe(own.as_secs_f64());
        }
        tracing::info!(
            request_id = &*self.id,
            endpoint = self.endpoint.as_str(),
            status = self.status,
            model,
            version,
            worker = trail.worker().as_deref().unwrap_or("-"),
            cache = trail.cache().as_str(),
            span_ms = span.as_millis() as u64,
            own_us = own.as_micros() as u64,
            "answered"
        );
    }
}

/// A body that is recorded when it is dropped.
struct Recorded {
    body: Body,
    /// Once the body is out to its end.
    status: u16,
    record: Record,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            // A stream that broke off had said 200, and is an error all the same.
            self.record.status = self.record.trail.broken().unwrap_or(self.status);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
