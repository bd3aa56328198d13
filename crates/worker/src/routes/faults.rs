//! `/admin/faults`, and what faults do to requests.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt as _};
use http::{StatusCode, header};
use http_server::Failed;
use protocol::{ApiError, ErrorCode, sse};
use serde_json::{Value, json};

use crate::app::App;
use crate::body::RequestBody;
use crate::faults::{Fault, Faults};

/// The faults in force.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, Failed> {
    Ok(Json(json!({ "faults": faults(&app)?.list() })))
}

/// Puts one in force. After a crash the answer may be lost with its connection.
pub(crate) async fn set(State(app): State<Arc<App>>, body: RequestBody) -> Result<Json<Value>, Failed> {
    let fault: Fault = body.parse_one(&app).await?;
    fault.validate()?;
    tracing::warn!(?fault, "a fault is in force");
    faults(&app)?.set(fault);
    list(State(app)).await
}

/// Ends all.
pub(crate) async fn heal(State(app): State<Arc<App>>) -> Result<StatusCode, Failed> {
    faults(&app)?.heal();
    tracing::warn!("no fault is in force");
    Ok(StatusCode::NO_CONTENT)
}

/// Around requests for answers: some fail, some streams are cut off.
pub(crate) async fn inject(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(faults) = &app.faults else { return next.run(request).await };
    if faults.draws_error() {
        return Failed(ApiError::new(
            ErrorCode::Internal,
            "this request fails by a fault that was asked for",
        ))
        .into_response();
    }
    let response = next.run(request).await;
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_stream = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    match is_stream.then(|| faults.draws_drop()).flatten() {
        Some(pieces) => response.map(|body| cut_after(body, pieces)),
        None => response,
    }
}

/// The first so many pieces, then an error, at the latest in place of the end mark. The server cuts the connection at
/// an error.
fn cut_after(body: Body, pieces: u32) -> Body {
    let pieces = body.into_data_stream().zip(stream::iter(0..pieces)).map(|(piece, _)| piece);
    let end = format!("data: {}\n\n", sse::DONE);
    let pieces = pieces.take_while(move |piece| {
        let goes_on = piece.as_ref().is_ok_and(|bytes| !bytes.ends_with(end.as_bytes()));
        std::future::ready(goes_on)
    });
    let cut = stream::once(async {
        // The server sends what it has when it has to wait, and at an error forgets it.
        tokio::task::yield_now().await;
        Err(axum::Error::new("cut off by a fault"))
    });
    Body::from_stream(pieces.chain(cut))
}

fn faults(app: &App) -> Result<&Faults, ApiError> {
    let none = || ApiError::new(ErrorCode::NotFound, "only simulated workers have faults on request");
    app.faults.as_ref().ok_or_else(none)
}
