//! Asks each worker, again and again, whether it is there, what it serves and how loaded it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use protocol::{LoadReport, ModelList};
use routing::ProbeResult;
use tokio::task::JoinSet;

use crate::state::State;

/// A load report with all its prefixes is far below this.
const PROBE_BYTES_MAX: usize = 1 << 20;

/// What a probe found.
#[derive(Debug)]
pub(crate) struct Probed {
    pub(crate) result: ProbeResult,
    /// From workers of ours.
    pub(crate) report: Option<LoadReport>,
    /// From any other server: the models that it lists.
    pub(crate) models: Option<Vec<String>>,
    /// Why it failed, for the log.
    pub(crate) failure: Option<String>,
}

impl Probed {
    fn failed(why: String) -> Self {
        Self { result: ProbeResult::Failed, report: None, models: None, failure: Some(why) }
    }
}

/// A server that has no load report is asked for one again after this many probes, for ours may have taken its place.
const FOREIGN_PROBES: u32 = 60;

/// Probes every worker until the set is dropped.
pub(crate) fn start(state: &Arc<State>) -> JoinSet<()> {
    let mut probes = JoinSet::new();
    for worker in state.pool.workers() {
        let (state, worker) = (Arc::clone(state), Arc::clone(worker));
        probes.spawn(async move {
            let interval = Duration::from_millis(state.pool.routing.probe_interval_ms);
            let timeout = Duration::from_millis(state.pool.routing.probe_timeout_ms);
            let paths = ["/internal/load", "/v1/models"].map(|path| super::worker::uri(&worker.base, path));
            let mut foreign = 0;
            loop {
                let probed = tokio::time::timeout(timeout, probe(&state, &paths, &mut foreign)).await;
                let probed = probed.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
                state.pool.take_probe(&worker, probed.unwrap_or_else(Probed::failed));
                tokio::time::sleep(interval).await;
            }
        });
    }
    probes
}

/// `foreign` counts down the probes that ask for no load report.
async fn probe(state: &State, [load, models]: &[Uri; 2], foreign: &mut u32) -> Result<Probed, String> {
    if *foreign == 0 {
        let (status, body) = get(state, load).await?;
        if status.is_server_error() {
            return Err(format!("status {} from {}", status.as_u16(), load.path()));
        }
        if let Some(probed) = of_report(status, &body) {
            return Ok(probed);
        }
        *foreign = FOREIGN_PROBES;
    }
    match get(state, models).await {
        Ok((StatusCode::OK, body)) => {
            *foreign -= 1;
            of_models(&body).ok_or_else(|| format!("{} does not list models", models.path()))
        }
        other => {
            *foreign = 0;
            let (status, _) = other?;
            Err(format!("status {} from {}", status.as_u16(), models.path()))
        }
    }
}

fn of_report(status: StatusCode, body: &[u8]) -> Option<Probed> {
    let report = serde_json::from_slice::<LoadReport>(body).ok().filter(|_| status == StatusCode::OK)?;
    let result = if report.ready { ProbeResult::Ready } else { ProbeResult::Draining };
    Some(Probed { result, report: Some(report), models: None, failure: None })
}

fn of_models(body: &[u8]) -> Option<Probed> {
    let list = serde_json::from_slice::<ModelList>(body).ok()?;
    let models = list.data.into_iter().map(|card| card.id).collect();
    Some(Probed { result: ProbeResult::Ready, report: None, models: Some(models), failure: None })
}

async fn get(state: &State, uri: &Uri) -> Result<(StatusCode, Bytes), String> {
    let request = || {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri.clone();
        if let Some(key) = &state.worker_authorization {
            request.headers_mut().insert(header::AUTHORIZATION, key.clone());
        }
        request
    };
    let fetched = state.client.fetch(request, PROBE_BYTES_MAX).await;
    fetched.map_err(|why| format!("{}: {why}", uri.path()))
}
