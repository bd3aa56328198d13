//! Chooses the model version from the route table.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use protocol::{ApiError, ErrorCode};
use routing::RouteError;
use tower::ServiceExt;

use super::layer;
use crate::call::{Answer, CacheDirective, Call, CallService, Trail};
use crate::error::CallError;
use crate::observe::Mirror;

layer! {
    /// Gives each call the version and the pool that its model's row says.
    AssignLayer => Assign
}

/// Lets a version answer a copy of a call, and throws the answer away: only what was seen of it is kept.
async fn copy<S: CallService>(inner: S, call: Call, mirror: Mirror) {
    let call = Call {
        version: Some(Arc::clone(&mirror.version)),
        directive: CacheDirective::NoStore,
        is_copy: true,
        trail: Arc::new(Trail::new(Instant::now())),
        ..call
    };
    if let Ok(Answer::Stream(mut pieces)) = inner.oneshot(call).await {
        while let Some(Ok(_)) = pieces.next().await {}
    }
}

impl<S: CallService> Assign<S> {
    async fn run(self, mut call: Call) -> Result<Answer, CallError> {
        let table = self.state.pool.table();
        if table.models.is_empty() {
            // Which models exist is not known yet: a 404 would tell clients not to come again.
            self.state.metrics.rejected("no_worker").inc();
            return Err(CallError::new(ErrorCode::Unavailable, "no worker is up yet; try again shortly"));
        }
        let model = match (call.model.is_empty(), table.models().next()) {
            // Tokenizing needs no model's name where there is one model.
            (true, Some(only)) if table.models.len() == 1 => Arc::from(only),
            _ => Arc::clone(&call.model),
        };
        if model.is_empty() {
            let message = "missing field `model`; this server has several";
            return Err(ApiError::invalid("model", message).into());
        }
        let wanted = call.wanted_version.as_deref();
        let route = table
            .assign(&model, call.sticky, wanted)
            .map_err(|error| self.refused(&model, &error, wanted))?;
        let version: Arc<str> = Arc::from(route.version.as_str());
        call.pool = Some(Arc::from(route.pool.as_str()));
        call.version = Some(Arc::clone(&version));
        call.model = model;
        // Only names of the table become labels, so a client cannot make new ones up.
        let _ = call.trail.model.set(Arc::clone(&call.model));
        call.trail.set_version(&version);
        if let Some(mirror) = self.state.observer.meet(&mut call) {
            tokio::spawn(copy(self.inner.clone(), call.clone(), mirror));
        }
        self.inner.oneshot(call).await
    }

    fn refused(&self, model: &str, error: &RouteError, wanted: Option<&str>) -> CallError {
        if let (Some(version), RouteError::UnknownVersion { .. } | RouteError::VersionDraining { .. }) =
            (wanted, error)
        {
            let message =
                format!("`{model}` has no version `{version}` that takes requests, as `x-tenk-version` asks");
            return CallError::new(ErrorCode::NotFound, &message);
        }
        let unknown = matches!(error, RouteError::UnknownModel { .. } | RouteError::UnknownVersion { .. });
        if unknown && !self.state.pool.any_unheard() {
            return ApiError::model_not_found(model).into();
        }
        let message = if unknown {
            "this model is not known yet, and not all workers have been heard; try again shortly"
        } else {
            "no version of this model takes requests at the moment"
        };
        CallError::new(ErrorCode::Unavailable, message)
    }
}
