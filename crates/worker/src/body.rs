//! Request bodies, from bytes to types.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use http_server::{Body, Failed};
use protocol::{ApiError, Generation, parse_json};
use serde::de::DeserializeOwned;

use crate::app::App;

/// A whole body.
pub(crate) struct RequestBody(Body);

impl FromRequest<Arc<App>> for RequestBody {
    type Rejection = Failed;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failed> {
        Ok(Self(app.bodies.read(request.into_body()).await?))
    }
}

impl RequestBody {
    /// The endpoint's own request and the fields that endpoints share.
    pub(crate) async fn parse<T>(self, app: &App) -> Result<(T, Generation), ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Self(body) = self;
        app.compute.run_over(body.len(), move || Ok((parse_json(&body)?, parse_json(&body)?))).await
    }

    /// A request that shares no fields with others.
    pub(crate) async fn parse_one<T>(self, app: &App) -> Result<T, ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Self(body) = self;
        app.compute.run_over(body.len(), move || parse_json(&body)).await
    }
}
