//! The controller over HTTP: gateways watch, owners command.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State as Shared};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_server::{Bodies, Failed, has_key};
use protocol::{ApiError, ErrorCode};
use rollout::{Command, Spec};
use serde::de::DeserializeOwned;
use telemetry::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::executor::{Message, Published, Reply};
use crate::openapi;

/// How many epochs a gateway may be ahead of the controller that it tells, which may have lost its log. Each epoch is a
/// controller that took over; one that is made up must not use up all there are.
const EPOCHS_AHEAD_MAX: u64 = 1_000_000;
/// A gateway hears within this time, be there news or not.
const WATCH_TIMEOUT: Duration = Duration::from_millis(900);
/// The most decisions that are listed.
const HISTORY_MAX: usize = 1_000;

/// What handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) published: Arc<Published>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) bodies: Arc<Bodies>,
    pub(crate) api_key: Option<Arc<str>>,
}

/// The paths; [`openapi`] describes them.
pub(crate) fn router(front: Front) -> Router {
    Router::new()
        .route("/v1/rollouts", get(list).post(start))
        .route("/v1/rollouts/{model}", get(status))
        .route("/v1/rollouts/{model}/history", get(history))
        .route("/v1/rollouts/{model}/{command}", post(command))
        .route("/internal/watch", post(watch))
        .route_layer(middleware::from_fn_with_state(front.clone(), authenticate))
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .fallback(async || {
            Failed(ApiError::new(ErrorCode::NotFound, "there is nothing at this path; see /openapi.json"))
        })
        .method_not_allowed_fallback(async || {
            Failed(ApiError::new(ErrorCode::MethodNotAllowed, "this path does not take this method"))
        })
        .with_state(front)
}

async fn authenticate(Shared(front): Shared<Front>, request: Request, next: Next) -> Response {
    match &front.api_key {
        Some(key) if !has_key(request.headers(), key) => {
            let message = "the controller's key is needed, as `Authorization: Bearer KEY`";
            Failed(ApiError::new(ErrorCode::Unauthenticated, message)).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether this controller decides.
async fn ready(Shared(front): Shared<Front>) -> Response {
    if front.published.table.borrow().is_some() {
        return "ready\n".into_response();
    }
    Failed(ApiError::new(ErrorCode::Unavailable, "another controller decides, or none can yet"))
        .into_response()
}

async fn metrics(Shared(front): Shared<Front>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], telemetry::render(&front.registry))
        .into_response()
}

async fn read<T: DeserializeOwned>(front: &Front, request: Request) -> Result<T, Failed> {
    let body = front.bodies.read(request.into_body()).await?;
    Ok(protocol::parse_json(&body)?)
}

impl Front {
    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Failed> {
        let (reply, replied) = oneshot::channel();
        let gone = || ApiError::new(ErrorCode::Unavailable, "the controller is ending");
        self.messages.send(message(reply)).await.map_err(|_| gone())?;
        Ok(replied.await.map_err(|_| gone())??)
    }
}

/// Takes a gateway's report, and answers with the route table once there is one that it does not have.
async fn watch(Shared(front): Shared<Front>, request: Request) -> Result<Response, Failed> {
    let report: evidence::Report = read(&front, request).await?;
    let has = report.routes_by;
    let known = front.published.table.borrow().as_ref().map_or(0, |table| table.epoch);
    if has.0 > known.saturating_add(EPOCHS_AHEAD_MAX) {
        let message = "no controller has decided in that epoch, nor will one soon";
        return Err(ApiError::invalid("routes_by", message).into());
    }
    let gone = |_| ApiError::new(ErrorCode::Unavailable, "the controller is ending");
    front.messages.send(Message::Report(Box::new(report))).await.map_err(gone)?;
    let mut tables = front.published.table.subscribe();
    let newer =
        tables.wait_for(|table| table.as_ref().is_some_and(|table| (table.epoch, table.generation) > has));
    match tokio::time::timeout(WATCH_TIMEOUT, newer).await {
        Ok(Ok(table)) => Ok(Json(table.as_deref().cloned()).into_response()),
        _ => Ok(axum::http::StatusCode::NO_CONTENT.into_response()),
    }
}

async fn list(Shared(front): Shared<Front>) -> Response {
    let statuses = Arc::clone(&front.published.statuses.borrow());
    Json(statuses.values().cloned().collect::<Vec<_>>()).into_response()
}

async fn start(Shared(front): Shared<Front>, request: Request) -> Result<Response, Failed> {
    let spec: Spec = read(&front, request).await?;
    let status = front.ask(|reply| Message::Start(Box::new(spec), reply)).await?;
    Ok((axum::http::StatusCode::CREATED, Json(status)).into_response())
}

async fn status(Shared(front): Shared<Front>, Path(model): Path<String>) -> Result<Response, Failed> {
    let statuses = Arc::clone(&front.published.statuses.borrow());
    match statuses.get(&model) {
        Some(status) => Ok(Json(status.clone()).into_response()),
        None => Err(not_served(&model).into()),
    }
}

async fn history(Shared(front): Shared<Front>, Path(model): Path<String>) -> Result<Response, Failed> {
    let records = front.ask(|reply| Message::History(model.clone(), HISTORY_MAX, reply)).await?;
    // A model that nobody serves now may have been served before.
    if records.is_empty() && !front.published.statuses.borrow().contains_key(&model) {
        return Err(not_served(&model).into());
    }
    Ok(Json(records).into_response())
}

fn not_served(model: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("no gateway serves a model `{model}`"))
}

async fn command(
    Shared(front): Shared<Front>,
    Path((model, command)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let command = match command.as_str() {
        "promote" => Command::Promote,
        "promote-fully" => Command::PromoteFully,
        "abort" => Command::Abort,
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        _ => {
            let message = "a rollout can be told to promote, promote-fully, abort, pause or resume";
            return Err(ApiError::new(ErrorCode::NotFound, message).into());
        }
    };
    let status = front.ask(|reply| Message::Command(model, command, reply)).await?;
    Ok(Json(status).into_response())
}
