//! The outermost layer: an id for every request, one log line and the counts for its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
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

/// Gives the request its id and its trail, and records how it ended once its last byte is out.
pub(crate) async fn trace(Shared(state): Shared<Arc<State>>, mut request: Request, next: Next) -> Response {
    let trail = Arc::new(Trail::new(Instant::now()));
    let in_flight = InFlight::enter(&state.metrics.requests_in_flight);
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    request.extensions_mut().insert(Arc::clone(&trail));
    let span = tracing::info_span!("request", id = &*id, path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(headers::REQUEST_ID, id);
    }
    let record = Record { state, trail, id, status: response.status(), _in_flight: in_flight };
    response.map(|body| Body::new(Recorded { body, _record: record }))
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
    status: StatusCode,
    _in_flight: InFlight,
}

impl Drop for Record {
    fn drop(&mut self) {
        let trail = &self.trail;
        let span = trail.arrived.elapsed();
        let Some(endpoint) = trail.endpoint.get() else { return };
        let model = trail.model.get().map_or(UNKNOWN, |model| model);
        let version = trail.version.get().map_or(UNKNOWN, |version| version);
        let series = self.state.metrics.version(model, version);
        series.requests(endpoint.label(), self.status.as_u16()).inc();
        series.request_duration.observe(span.as_secs_f64());
        let own = span.saturating_sub(trail.wait());
        self.state.metrics.own.observe(own.as_secs_f64());
        tracing::info!(
            request_id = &*self.id,
            path = endpoint.path(),
            status = self.status.as_u16(),
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
    _record: Record,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
