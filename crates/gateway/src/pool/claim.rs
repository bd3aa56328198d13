//! A place at a worker, held while it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use routing::{Outcome, WorkerId};
use telemetry::InFlight;

use super::WorkerEntry;

/// Counts one request in flight at a worker until it is dropped. Dropped without a record, the request was cancelled:
/// a client that leaves says nothing about the worker.
#[derive(Debug)]
pub(crate) struct Claim {
    worker: Arc<WorkerEntry>,
    version: Option<Arc<str>>,
    epoch: Instant,
    recorded: bool,
    _gauge: InFlight,
}

impl Claim {
    pub(super) fn new(worker: Arc<WorkerEntry>, version: Option<Arc<str>>, epoch: Instant) -> Self {
        worker.in_flight.fetch_add(1, Ordering::Relaxed);
        let gauge = InFlight::enter(&worker.series.in_flight);
        Self { worker, version, epoch, recorded: false, _gauge: gauge }
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
