//! One worker: its name, its address, its health.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::Uri;
use routing::{Health, Outcome, WorkerId};
use telemetry::{GatewayMetrics, WorkerSeries};
use tokio::sync::watch;

use super::lock;
use crate::call::Endpoint;

/// One worker.
#[derive(Debug)]
pub(crate) struct WorkerEntry {
    pub(crate) id: WorkerId,
    /// `worker-0`, `worker-1`, …: clients and labels see this, never an address.
    pub(crate) name: Arc<str>,
    pub(super) base: String,
    endpoints: [Uri; Endpoint::ALL.len()],
    pub(super) in_flight: AtomicU32,
    pub(super) health: Mutex<Health>,
    /// Changes when probes find that it has fallen silent.
    pub(super) silenced: watch::Sender<()>,
    pub(super) series: Arc<WorkerSeries>,
}

impl WorkerEntry {
    pub(super) fn new(id: u32, base: &str, routing: &routing::Config, metrics: &GatewayMetrics) -> Self {
        let name: Arc<str> = Arc::from(format!("worker-{id}"));
        let base = base.trim_end_matches('/').to_owned();
        Self {
            id: WorkerId(id),
            series: metrics.worker(&name),
            name,
            endpoints: Endpoint::ALL.map(|endpoint| uri(&base, endpoint.path())),
            base,
            in_flight: AtomicU32::new(0),
            health: Mutex::new(Health::new(&routing.health)),
            silenced: watch::Sender::new(()),
        }
    }

    /// The address of an endpoint at this worker.
    pub(crate) fn uri(&self, endpoint: Endpoint) -> Uri {
        self.endpoints[endpoint as usize].clone()
    }

    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    pub(super) fn record(&self, now: Duration, outcome: Option<Outcome>, label: &str) {
        if let Some(outcome) = outcome {
            self.health().on_outcome(now, outcome);
        }
        self.series.requests(label).inc();
    }
}

pub(super) fn uri(base: &str, path: &str) -> Uri {
    Uri::try_from(format!("{base}{path}")).unwrap_or_default()
}
