//! Request bodies: within a bound, within a time, and from bytes to types.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use http_body_util::BodyExt as _;
use protocol::{ApiError, ErrorCode, Generation, parse_json};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::{Failed, overloaded};

/// Of a body that is too large this many times its bound are still read: a client that is cut off while it writes
/// loses the answer.
const DISCARD_FACTOR: usize = 4;
/// Longer bodies are parsed off the runtime's threads.
const PARSE_INLINE_BYTES_MAX: usize = 64 << 10;

/// A whole body.
pub(crate) struct RequestBody(Bytes);

impl FromRequest<Arc<App>> for RequestBody {
    type Rejection = Failed;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failed> {
        let read = read(request.into_body(), app.body_bytes_max);
        let body = tokio::time::timeout(app.idle_timeout, read).await.map_err(|_| {
            ApiError::new(ErrorCode::InvalidRequest, "the body took too long to arrive; send it again")
        })??;
        Ok(Self(body))
    }
}

async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let mut collected = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|_| ApiError::new(ErrorCode::InvalidRequest, "the body could not be read to its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= bytes_max {
            collected.extend_from_slice(&data);
        } else if length > bytes_max.saturating_mul(DISCARD_FACTOR) {
            break;
        } else {
            collected = Vec::new();
        }
    }
    if length <= bytes_max {
        return Ok(collected.into());
    }
    let message = format!("the body is larger than the {bytes_max} bytes that this server accepts");
    Err(ApiError::new(ErrorCode::PayloadTooLarge, message))
}

impl RequestBody {
    /// The endpoint's own request and the fields that endpoints share.
    pub(crate) async fn parse<T>(self, app: &App) -> Result<(T, Generation), ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.parse_with(app, |body| Ok((parse_json(body)?, parse_json(body)?))).await
    }

    /// A request that shares no fields with others.
    pub(crate) async fn parse_one<T>(self, app: &App) -> Result<T, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        self.parse_with(app, parse_json).await
    }

    async fn parse_with<T: Send + 'static>(
        self,
        app: &App,
        parse: impl FnOnce(&[u8]) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let Self(body) = self;
        if body.len() <= PARSE_INLINE_BYTES_MAX {
            return parse(&body);
        }
        let waiting = app.large_bodies.try_acquire();
        let _waiting = waiting.map_err(|_| overloaded("too many large bodies wait to be read"))?;
        app.compute.run(move || parse(&body)).await
    }
}
