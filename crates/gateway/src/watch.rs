//! The controller's word: tells it once a second what was seen, and takes its route tables as they come.
//!
//! The gateway asks, so that a controller needs no list of gateways, which come and go. When nobody answers, the last
//! table stays.

use std::sync::Arc;
use std::time::Duration;

use evidence::{ModelReport, Report};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use routing::RouteTable;
use telemetry::CacheResult;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::state::State;

/// From one report to the next. The controller answers later than this only if it has nothing new.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a gateway that has just started is not ready for want of a route table: without one it would split users by
/// workers, also among versions that were not to have any.
const FIRST_WORD: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
const TABLE_BYTES_MAX: usize = 8 << 20;

/// Starts to watch, if there is a controller.
pub(crate) fn start(state: &Arc<State>) -> Option<AbortOnDropHandle<()>> {
    let base = state.config.controller.as_ref()?.trim_end_matches('/');
    // `Config::validate` has seen that it is one.
    let uri = Uri::try_from(format!("{base}/internal/watch")).ok()?;
    state.pool.await_routes(true);
    Some(AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(state), uri))))
}

async fn watch(state: Arc<State>, uri: Uri) {
    let gateway = Uuid::new_v4().simple().to_string();
    let mut heard = None;
    let started = Instant::now();
    loop {
        let next = Instant::now() + INTERVAL;
        let answer = timeout(TIMEOUT, exchange(&state, &uri, &gateway)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
        state.metrics.controller_up.set(i64::from(answer.is_ok()));
        if heard.replace(answer.is_ok()) != Some(answer.is_ok()) {
            match &answer {
                Ok(_) => tracing::info!(%uri, "the controller answers"),
                Err(why) => {
                    tracing::warn!(%uri, why, "the controller does not answer; the last route table stays")
                }
            }
        }
        if let Ok(Some(table)) = answer {
            let generation = (table.epoch, table.generation);
            if state.pool.take_table(table) {
                tracing::info!(?generation, "route table of the controller");
                state.observer.follow(&state.pool.given().models);
                state.pool.await_routes(false);
                // It is waiting to hear that.
                continue;
            }
        }
        if started.elapsed() >= FIRST_WORD {
            state.pool.await_routes(false);
        }
        sleep_until(next).await;
    }
}

/// Tells what is known, and gets the route table if there is a newer one.
async fn exchange(state: &State, uri: &Uri, gateway: &str) -> Result<Option<RouteTable>, String> {
    let body = serde_json::to_vec(&report(state, gateway)).map_err(|error| error.to_string())?;
    let request = || {
        let mut request = Request::new(Full::new(body.clone().into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &state.controller_authorization {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        request
    };
    let (status, body) = state.client.fetch(request, TABLE_BYTES_MAX).await?;
    match status {
        StatusCode::NO_CONTENT => Ok(None),
        StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| error.to_string()),
        status => Err(format!("status {}", status.as_u16())),
    }
}

fn report(state: &State, gateway: &str) -> Report {
    let count = |result| state.metrics.cache_requests(result).get();
    let hits = count(CacheResult::HitMemory) + count(CacheResult::HitRedis) + count(CacheResult::Coalesced);
    let models = state.pool.loads().into_iter().map(|(model, versions)| {
        let (evidence, prompts) = state.observer.take(&model);
        (model, ModelReport { versions, evidence, prompts })
    });
    let given = state.pool.given();
    Report {
        gateway: gateway.to_owned(),
        routes_by: (given.epoch, given.generation),
        complete: !state.pool.any_unheard(),
        any_unidentified: state.pool.any_unidentified(),
        requests: hits + count(CacheResult::Miss) + count(CacheResult::Bypass),
        cache_hits: hits,
        models: models.collect(),
    }
}
