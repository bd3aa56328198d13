//! Asks each worker, again and again, whether it is there, what it serves and how loaded it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use protocol::{LoadReport, ModelList};
use routing::ProbeResult;
use tokio::task::JoinSet;

use super::WorkerEntry;
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
}

impl Probed {
    const FAILED: Self = Self { result: ProbeResult::Failed, report: None, models: None };
}

/// Probes every worker until the set is dropped.
pub(crate) fn start(state: &Arc<State>) -> JoinSet<()> {
    let mut probes = JoinSet::new();
    for worker in state.pool.workers() {
        let (state, worker) = (Arc::clone(state), Arc::clone(worker));
        probes.spawn(async move {
            let interval = Duration::from_millis(state.pool.routing.probe_interval_ms);
            let timeout = Duration::from_millis(state.pool.routing.probe_timeout_ms);
            let mut ours = true;
            loop {
                let probed = tokio::time::timeout(timeout, probe(&state, &worker, &mut ours)).await;
                state.pool.take_probe(&worker, probed.unwrap_or(Probed::FAILED));
                tokio::time::sleep(interval).await;
            }
        });
    }
    probes
}

/// `ours` remembers whether the load report was there last time.
async fn probe(state: &State, worker: &WorkerEntry, ours: &mut bool) -> Probed {
    if *ours {
        match get(state, worker, "/internal/load").await {
            Some((StatusCode::OK, body)) => return of_report(&body),
            Some((StatusCode::NOT_FOUND, _)) => *ours = false,
            _ => return Probed::FAILED,
        }
    }
    match get(state, worker, "/v1/models").await {
        Some((StatusCode::OK, body)) => of_models(&body),
        _ => {
            *ours = true;
            Probed::FAILED
        }
    }
}

fn of_report(body: &[u8]) -> Probed {
    match serde_json::from_slice::<LoadReport>(body) {
        Ok(report) => {
            let result = if report.ready { ProbeResult::Ready } else { ProbeResult::Draining };
            Probed { result, report: Some(report), models: None }
        }
        Err(_) => Probed::FAILED,
    }
}

fn of_models(body: &[u8]) -> Probed {
    match serde_json::from_slice::<ModelList>(body) {
        Ok(list) => {
            let models = list.data.into_iter().map(|card| card.id).collect();
            Probed { result: ProbeResult::Ready, report: None, models: Some(models) }
        }
        Err(_) => Probed::FAILED,
    }
}

async fn get(state: &State, worker: &WorkerEntry, path: &str) -> Option<(StatusCode, Bytes)> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = worker.uri(path);
    if let Some(key) = &state.worker_authorization {
        request.headers_mut().insert(header::AUTHORIZATION, key.clone());
    }
    let response = state.client.request(request).await.ok()?;
    let status = response.status();
    let body = Limited::new(response.into_body(), PROBE_BYTES_MAX).collect().await.ok()?;
    Some((status, body.to_bytes()))
}
