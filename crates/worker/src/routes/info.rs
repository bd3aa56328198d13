//! What a worker tells about itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use http_server::Failed;
use protocol::{ApiError, ErrorCode, LoadReport, ModelCard, ModelList};

use crate::app::App;

/// One model by its name, which may hold slashes.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelCard>, Failed> {
    let Path(id) = id.map_err(|_| ApiError::new(ErrorCode::InvalidRequest, "a model's name is UTF-8"))?;
    app.check_model(&id)?;
    Ok(Json(card(&app)))
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList::new(vec![card(&app)]))
}

fn card(app: &App) -> ModelCard {
    ModelCard::new(app.model.name(), app.created, Some(app.max_model_len as u32))
}

pub(crate) async fn load(State(app): State<Arc<App>>) -> Json<LoadReport> {
    Json(app.load_report())
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.refresh_gauges();
    ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], telemetry::render(&app.registry)).into_response()
}

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "live\n"
}

/// The engine takes requests.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Failed> {
    app.accepting()?;
    Ok("ready\n")
}
