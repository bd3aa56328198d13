//! The worker's paths.

mod chat;
mod completions;
mod faults;
mod info;
mod tokenize;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue};
use http_server::{Failed, has_key};
use protocol::{ApiError, ErrorCode, headers};
use uuid::Uuid;

use crate::app::App;

pub(crate) fn router(app: Arc<App>) -> Router {
    let mut answers = Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(completions::completions));
    if app.faults.is_some() {
        let admin = get(faults::list).post(faults::set).delete(faults::heal);
        answers = answers
            .route_layer(middleware::from_fn_with_state(Arc::clone(&app), faults::inject))
            .route("/admin/faults", admin);
    }
    answers
        .route("/v1/models", get(info::models))
        .route("/v1/models/{*id}", get(info::model))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/internal/load", get(info::load))
        .route("/metrics", get(info::metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), authenticate))
        .route("/health/live", get(info::live))
        .route("/health/ready", get(info::ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), label))
        .with_state(app)
}

/// Off loopback only gateways may speak to a worker: it believes them about tenants.
async fn authenticate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.api_key.as_ref().is_some_and(|key| !has_key(request.headers(), key)) {
        let message = "this worker needs its gateway's key as bearer token";
        return Failed(ApiError::new(ErrorCode::Unauthenticated, message)).into_response();
    }
    next.run(request).await
}

/// Every answer says which model version gave it.
async fn label(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Ok(version) = HeaderValue::from_str(app.model.version()) {
        response.headers_mut().insert(headers::MODEL_VERSION, version);
    }
    response
}

async fn not_found() -> Failed {
    Failed(ApiError::new(
        ErrorCode::NotFound,
        "there is nothing at this path; GET /v1/models is a good start",
    ))
}

async fn method_not_allowed() -> Failed {
    Failed(ApiError::new(ErrorCode::MethodNotAllowed, "this path does not take this method"))
}

/// The gateway's id for the request, or one of our own.
fn request_id(headers: &HeaderMap) -> String {
    let sent = headers
        .get(headers::REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()));
    sent.map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned)
}
