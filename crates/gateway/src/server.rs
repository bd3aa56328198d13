//! A gateway's life: bind, probe its workers, serve, drain, end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State as Shared};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header;
use http_server::Connections;
use protocol::{ApiError, ErrorCode, ModelCard, ModelList};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::call::Endpoint;
use crate::error::CallError;
use crate::layers::edge::edge;
use crate::pool::probe;
use crate::stack::Stack;
use crate::state::State;
use crate::{Config, GatewayError, stack, watch};

/// How long writes to Redis may take to finish at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The settings of the parts that a gateway is made of.
#[derive(Clone, Debug, Default)]
pub struct GatewayParts {
    /// `[gateway]`
    pub config: Config,
    /// `[routing]`
    pub routing: routing::Config,
    /// `[response_cache]`
    pub response_cache: response_cache::Config,
}

/// A gateway that has its address and is about to serve.
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
    _probes: JoinSet<()>,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) state: Arc<State>,
    pub(crate) stack: Stack,
    draining: Arc<AtomicBool>,
}

impl Gateway {
    /// Listens, connects the cache, and starts probing the workers.
    pub async fn bind(parts: GatewayParts) -> Result<Self, GatewayError> {
        let listen = parts.config.listen;
        let state = Arc::new(State::new(parts)?);
        let listen_error = |source| GatewayError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let probes = probe::start(&state);
        let watch = watch::start(&state);
        Ok(Self { listener, address, state, _probes: probes, _watch: watch })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until every worker was heard of and one of them is up; false if that is not so by then.
    pub async fn wait_ready(&self, timeout: Duration) -> bool {
        let pool = &self.state.pool;
        let mut changes = pool.changes();
        let ready = changes.wait_for(|_| pool.ready() && !pool.any_unheard());
        tokio::time::timeout(timeout, ready).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Whether the Redis tier is connected; `None` where there is none.
    pub fn redis_up(&self) -> Option<tokio::sync::watch::Receiver<bool>> {
        self.state.cache.redis_up()
    }

    /// Serves until `shutdown` resolves; then is unready and goes on for `drain_delay_ms`, takes no new connections,
    /// lets requests under way end for up to `drain_timeout_s`, cuts off what is left, and returns.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), GatewayError> {
        let Self { listener, state, _probes, _watch, .. } = self;
        let draining = Arc::new(AtomicBool::new(false));
        let front =
            Front { stack: stack::build(&state), state: Arc::clone(&state), draining: Arc::clone(&draining) };
        let client_timeout = Duration::from_secs(state.config.client_timeout_s);
        let mut connections = Connections::new(router(front), state.config.connections_max, client_timeout);
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            () = shutdown => {}
        }
        draining.store(true, Ordering::Release);
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            () = tokio::time::sleep(Duration::from_millis(state.config.drain_delay_ms)) => {}
        }
        drop(listener);
        tracing::info!(requests = state.metrics.requests_in_flight.get(), "draining");
        if !connections.close(Duration::from_secs(state.config.drain_timeout_s)).await {
            tracing::warn!(requests = state.metrics.requests_in_flight.get(), "requests were cut off");
        }
        state.cache.flush(FLUSH_TIMEOUT).await;
        Ok(())
    }
}

/// The paths. What they pass through before their handlers is listed in `stack.rs`.
fn router(front: Front) -> Router {
    let (state, draining) = (Arc::clone(&front.state), Arc::clone(&front.draining));
    let mut router = Router::new().route("/v1/models", get(models)).route("/v1/models/{*id}", get(model));
    for endpoint in Endpoint::ALL {
        let handler =
            move |front: Shared<Front>, request: Request| async move { edge(front, endpoint, request).await };
        router = router.route(endpoint.path(), post(handler));
    }
    stack::http(router, state)
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(draining, close_while_draining))
        .with_state(front)
}

/// A client that keeps its connection would send its next request just when the connection ends.
async fn close_while_draining(
    Shared(draining): Shared<Arc<AtomicBool>>,
    request: Request,
    next: middleware::Next,
) -> Response {
    let mut response = next.run(request).await;
    if draining.load(Ordering::Acquire) {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

async fn models(Shared(front): Shared<Front>) -> Json<ModelList> {
    let created = front.state.started_at;
    let table = front.state.pool.table();
    Json(ModelList::new(table.models().map(|model| ModelCard::new(model, created, None)).collect()))
}

async fn model(Shared(front): Shared<Front>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return CallError::new(ErrorCode::InvalidRequest, "a model's name is UTF-8").into_response();
    };
    let table = front.state.pool.table();
    match table.models().find(|model| *model == id) {
        Some(model) => Json(ModelCard::new(model, front.state.started_at, None)).into_response(),
        None => CallError::from(ApiError::model_not_found(&id)).into_response(),
    }
}

/// The process answers.
async fn live() -> &'static str {
    "live\n"
}

/// A worker is up, the controller was heard if there is one, and the gateway is not ending.
async fn ready(Shared(front): Shared<Front>) -> Response {
    if !front.draining.load(Ordering::Acquire) && front.state.pool.ready() {
        return "ready\n".into_response();
    }
    CallError::new(
        ErrorCode::Unavailable,
        "no worker is up, the controller was not heard yet, or the gateway is shutting down",
    )
    .into_response()
}

async fn metrics(Shared(front): Shared<Front>) -> Response {
    let state = &front.state;
    // Two scrapes at once would add the same counts twice.
    let scrape = state.scrape.lock().unwrap_or_else(PoisonError::into_inner);
    let stats = state.cache.stats();
    state.metrics.cache_entries.set(stats.entries as i64);
    state.metrics.cache_bytes.set(stats.bytes as i64);
    for (kind, count) in [
        ("redis_timeout", stats.redis_timeouts),
        ("redis_error", stats.redis_errors),
        ("redis_skipped", stats.redis_skipped),
        ("redis_corrupt", stats.redis_corrupt),
        ("write_dropped", stats.writes_dropped),
    ] {
        let counter = state.metrics.cache_errors(kind);
        counter.inc_by(count.saturating_sub(counter.get()));
    }
    drop(scrape);
    ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], telemetry::render(&state.registry)).into_response()
}

async fn not_found() -> Response {
    CallError::new(ErrorCode::NotFound, "there is nothing at this path; GET /v1/models is a good start")
        .into_response()
}

async fn method_not_allowed() -> Response {
    CallError::new(ErrorCode::MethodNotAllowed, "this path does not take this method").into_response()
}
