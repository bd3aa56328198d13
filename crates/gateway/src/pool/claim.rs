//! A place at a worker, held while it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use routing::{Outcome, WorkerId};
use telemetry::InFlight;
use tokio::sync::watch;

use super::WorkerEntry;

/// Counts one request in flight at a worker until it is dropped. Dropped without a record, the request was cancelled:
/// a client that leaves says nothing about the worker.
#[derive(Debug)]
pub(crate) struct Claim {
    worker: Arc<WorkerEntry>,
    version: Option<Arc<str>>,
    epoch: Instant,
    recorded: bool,
    silenced: watch::Receiver<()>,
    _gauge: InFlight,
}

impl Claim {
    /// The caller holds the view, so that a probe which finds the worker silent comes before it was picked, or is heard.
    pub(super) fn new(worker: Arc<WorkerEntry>, version: Option<Arc<str>>, epoch: Instant) -> Self {
        worker.in_flight.fetch_add(1, Ordering::Relaxed);
        let gauge = InFlight::enter(&worker.series.in_flight);
        let silenced = worker.silenced.subscribe();
        Self { worker, version, epoch, recorded: false, silenced, _gauge: gauge }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.worker.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.worker.name
    }

    /// What the worker is known to serve.
    pub(crate) fn version(&self) -> Option<&Arc<str>> {
        self.version.as_ref()
    }

    pub(crate) fn worker(&self) -> &Arc<WorkerEntry> {
        &self.worker
    }

    /// Resolves when probes find nobody there any more. A machine that vanishes sends no word on its connections, and
    /// what waits for a first byte on them would wait for the whole of its time.
    pub(crate) async fn silence(&mut self) {
        // The sender lives in the worker, which the claim holds.
        let _ = self.silenced.changed().await;
    }

    /// Tells how it went, for the worker's health and its counters. The first time counts.
    pub(crate) fn record(&mut self, outcome: Option<Outcome>, label: &str) {
        if !std::mem::replace(&mut self.recorded, true) {
            self.worker.record(self.epoch.elapsed(), outcome, label);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.record(None, "cancelled");
        self.worker.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
