//! The handles of a gateway's metrics.

mod labels;
mod version;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, RwLock};

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

pub use labels::{CacheResult, Endpoint, LabelLimits};
pub use version::VersionSeries;

use crate::TelemetryError;
use crate::catalogue::gateway as specs;
use crate::series::{Family, OTHER, read, register, unregister, write};

/// A gateway's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct GatewayMetrics(Arc<GatewaySeries>);

impl Deref for GatewayMetrics {
    type Target = GatewaySeries;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl GatewayMetrics {
    /// Registers a gateway's metrics with the default bounds on label values.
    pub fn new(registry: &Registry) -> Result<Self, TelemetryError> {
        Self::with_limits(registry, LabelLimits::default())
    }

    /// Registers a gateway's metrics with bounds of the caller's.
    pub fn with_limits(registry: &Registry, limits: LabelLimits) -> Result<Self, TelemetryError> {
        limits.validate()?;
        let values_max = limits.values_max;
        let cache = CacheResult::ALL
            .iter()
            .map(|result| register(registry, &specs::CACHE_REQUESTS, &[result.as_str()]))
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(GatewaySeries {
            requests_in_flight: register(registry, &specs::REQUESTS_IN_FLIGHT, &[])?,
            own: register(registry, &specs::OWN, &[])?,
            queue_depth: register(registry, &specs::QUEUE_DEPTH, &[])?,
            queue_wait: register(registry, &specs::QUEUE_WAIT, &[])?,
            prefix_blocks: register(registry, &specs::PREFIX_BLOCKS, &[])?,
            prefix_matched_blocks: register(registry, &specs::PREFIX_MATCHED_BLOCKS, &[])?,
            cache_entries: register(registry, &specs::CACHE_ENTRIES, &[])?,
            cache_bytes: register(registry, &specs::CACHE_BYTES, &[])?,
            resends: register(registry, &specs::RESENDS, &[])?,
            controller_up: register(registry, &specs::CONTROLLER_UP, &[])?,
            rejected: Family::new(registry, &specs::REJECTED, &[], values_max)?,
            retries: Family::new(registry, &specs::RETRIES, &[], values_max)?,
            cache_errors: Family::new(registry, &specs::CACHE_ERRORS, &[], values_max)?,
            cache,
            other_version: Arc::new(VersionSeries::detached(registry, OTHER, OTHER)?),
            other_worker: Arc::new(WorkerSeries::detached(registry, OTHER, values_max)?),
            versions: RwLock::default(),
            workers: RwLock::default(),
            limits,
            registry: registry.clone(),
        })))
    }
}

/// Series that every gateway has are fields; those of a model version, a worker or a reason are asked for by its
/// name, once, and kept by whoever updates them.
#[derive(Debug)]
pub struct GatewaySeries {
    registry: Registry,
    limits: LabelLimits,
    versions: RwLock<HashMap<String, HashMap<String, Arc<VersionSeries>>>>,
    other_version: Arc<VersionSeries>,
    workers: RwLock<HashMap<String, Arc<WorkerSeries>>>,
    other_worker: Arc<WorkerSeries>,
    rejected: Family<IntCounter>,
    retries: Family<IntCounter>,
    cache_errors: Family<IntCounter>,
    cache: Vec<IntCounter>,
    /// Requests being answered; hold it up with [`crate::InFlight`].
    pub requests_in_flight: IntGauge,
    /// Seconds of a request that were the gateway's own.
    pub own: Histogram,
    /// Requests that wait for a worker.
    pub queue_depth: IntGauge,
    /// Seconds that a request waited for a worker.
    pub queue_wait: Histogram,
    /// Prefix blocks of routed prompts.
    pub prefix_blocks: IntCounter,
    /// Those of them that the chosen worker is thought to hold.
    pub prefix_matched_blocks: IntCounter,
    /// Requests sent again because a kept connection had been closed.
    pub resends: IntCounter,
    /// 1 while the controller answers.
    pub controller_up: IntGauge,
    /// Answers in the in-process tier.
    pub cache_entries: IntGauge,
    /// Bytes of the in-process tier.
    pub cache_bytes: IntGauge,
}

impl GatewaySeries {
    /// The series of one model version; `other` once [`LabelLimits::versions_max`] are known. Allocates only when
    /// the version is new.
    pub fn version(&self, model: &str, version: &str) -> Arc<VersionSeries> {
        let find = |versions: &HashMap<String, HashMap<String, Arc<VersionSeries>>>| {
            versions.get(model).and_then(|of_model| of_model.get(version)).cloned()
        };
        if let Some(known) = find(&read(&self.versions)) {
            return known;
        }
        let mut versions = write(&self.versions);
        if let Some(known) = find(&versions) {
            return known;
        }
        if versions.values().map(HashMap::len).sum::<usize>() >= self.limits.versions_max {
            self.other_version.show();
            return self.other_version.clone();
        }
        match VersionSeries::detached(&self.registry, model, version) {
            Ok(made) => {
                made.show();
                let made = Arc::new(made);
                versions.entry(model.to_owned()).or_default().insert(version.to_owned(), made.clone());
                made
            }
            Err(error) => {
                tracing::error!(%error, model, version, "a version's metrics are not shown");
                self.other_version.clone()
            }
        }
    }

    /// Takes a retired version off the page and frees its place.
    pub fn forget_version(&self, model: &str, version: &str) {
        let mut versions = write(&self.versions);
        let Some(of_model) = versions.get_mut(model) else { return };
        if let Some(gone) = of_model.remove(version) {
            gone.hide();
        }
        if of_model.is_empty() {
            versions.remove(model);
        }
    }

    /// The series of one worker, by its bounded name; `other` once [`LabelLimits::workers_max`] are known.
    pub fn worker(&self, name: &str) -> Arc<WorkerSeries> {
        if let Some(known) = read(&self.workers).get(name) {
            return known.clone();
        }
        let mut workers = write(&self.workers);
        if let Some(known) = workers.get(name) {
            return known.clone();
        }
        if workers.len() >= self.limits.workers_max {
            self.other_worker.show();
            return self.other_worker.clone();
        }
        match WorkerSeries::detached(&self.registry, name, self.limits.values_max) {
            Ok(made) => {
                made.show();
                let made = Arc::new(made);
                workers.insert(name.to_owned(), made.clone());
                made
            }
            Err(error) => {
                tracing::error!(%error, worker = name, "a worker's metrics are not shown");
                self.other_worker.clone()
            }
        }
    }

    /// Takes a worker that is gone for good off the page and frees its place.
    pub fn forget_worker(&self, name: &str) {
        if let Some(gone) = write(&self.workers).remove(name) {
            gone.hide();
        }
    }

    /// The counter of requests turned away for `reason`, a fixed word such as `queue_full`.
    pub fn rejected(&self, reason: &str) -> IntCounter {
        self.rejected.get(reason)
    }

    /// The counter of second attempts made for `reason`, a fixed word such as `connect`.
    pub fn retries(&self, reason: &str) -> IntCounter {
        self.retries.get(reason)
    }

    /// The counter of response-cache look-ups that ended in `result`.
    pub fn cache_requests(&self, result: CacheResult) -> &IntCounter {
        &self.cache[result as usize]
    }

    /// The counter of response-cache failures of `kind`, a fixed word such as `redis_timeout`.
    pub fn cache_errors(&self, kind: &str) -> IntCounter {
        self.cache_errors.get(kind)
    }
}

/// What a gateway counts about one worker.
#[derive(Debug)]
pub struct WorkerSeries {
    registry: Registry,
    outcomes: Family<IntCounter>,
    /// Requests of this gateway that the worker is answering.
    pub in_flight: IntGauge,
    /// 1 while the worker may be given requests.
    pub healthy: IntGauge,
}

impl WorkerSeries {
    fn detached(registry: &Registry, name: &str, outcomes_max: usize) -> Result<Self, TelemetryError> {
        Ok(Self {
            registry: registry.clone(),
            outcomes: Family::new(registry, &specs::WORKER_REQUESTS, &[name], outcomes_max)?,
            in_flight: crate::series::detached(&specs::WORKER_IN_FLIGHT, &[name])?,
            healthy: crate::series::detached(&specs::WORKER_HEALTHY, &[name])?,
        })
    }

    /// The counter of requests that ended in `outcome`, a fixed word such as `ok`, `error` or `cancelled`.
    pub fn requests(&self, outcome: &str) -> IntCounter {
        self.outcomes.get(outcome)
    }

    /// Showing what is shown already changes nothing.
    fn show(&self) {
        for gauge in [&self.in_flight, &self.healthy] {
            let _ = self.registry.register(Box::new(gauge.clone()));
        }
    }

    fn hide(&self) {
        unregister(&self.registry, self.in_flight.clone());
        unregister(&self.registry, self.healthy.clone());
        self.outcomes.close();
    }
}

#[cfg(test)]
mod tests;
