//! A place at a worker, held while it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use routing::{Outcome, WorkerId};
use telemetry::InFlight;

use super::WorkerEntry;

/// Counts one request in flight at a worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    worker: Arc<WorkerEntry>,
    epoch: Instant,
    _gauge: InFlight,
}

impl Claim {
    pub(super) fn new(worker: Arc<WorkerEntry>, epoch: Instant) -> Self {
        worker.in_flight.fetch_add(1, Ordering::Relaxed);
        let gauge = InFlight::enter(&worker.series.in_flight);
        Self { worker, epoch, _gauge: gauge }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.worker.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.worker.name
    }

    pub(crate) fn worker(&self) -> &Arc<WorkerEntry> {
        &self.worker
    }

    /// Tells how it went, for the worker's health and its counters.
    pub(crate) fn record(&self, outcome: Option<Outcome>, label: &str) {
        self.worker.record(self.epoch.elapsed(), outcome, label);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.worker.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
