//! The workers: what is known of each, who gets the next request, and the route table that follows from them.

mod claim;
pub(crate) mod probe;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Uri;
use protocol::{LoadReport, Usage};
use routing::{
    Health, HealthState, ModelRoutes, Outcome, PickRequest, Picker, PrefixIndex, ProbeResult, RetryBudget,
    RouteError, RouteTable, VersionRoute, WorkerId, WorkerSnapshot,
};
use serde::Deserialize;
use telemetry::{GatewayMetrics, WorkerSeries};
use tokio::sync::watch;

use crate::call::Call;
pub(crate) use claim::Claim;

/// The version of a worker that does not say which it serves. Its answers are never cached.
pub(crate) const UNKNOWN_VERSION: &str = "unknown";

/// The pool of workers that were given by address.
const POOL: &str = "default";

/// Weights of a model's versions add up to this.
const WEIGHT_TOTAL: u32 = 10_000;

/// One worker.
#[derive(Debug)]
pub(crate) struct WorkerEntry {
    pub(crate) id: WorkerId,
    /// `worker-0`, `worker-1`, …: clients and labels see this, never an address.
    pub(crate) name: Arc<str>,
    base: String,
    in_flight: AtomicU32,
    health: Mutex<Health>,
    /// What it serves and how loaded it is, as of the last probe that it answered; one snapshot a model.
    served: RwLock<Vec<WorkerSnapshot>>,
    series: Arc<WorkerSeries>,
}

impl WorkerEntry {
    /// The address of a path at this worker.
    pub(crate) fn uri(&self, path: &str) -> Uri {
        Uri::try_from(format!("{}{path}", self.base)).unwrap_or_default()
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All workers.
pub(crate) struct Pool {
    workers: Vec<Arc<WorkerEntry>>,
    picker: Picker,
    prefixes: Mutex<PrefixIndex>,
    budget: Mutex<RetryBudget>,
    table: ArcSwap<RouteTable>,
    /// Counts changes of what is served or up.
    changed: watch::Sender<u64>,
    turn: AtomicU64,
    epoch: Instant,
    metrics: GatewayMetrics,
    pub(crate) routing: routing::Config,
}

impl Pool {
    pub(crate) fn new(workers: &[String], routing: &routing::Config, metrics: &GatewayMetrics) -> Self {
        let entry = |(index, base): (usize, &String)| {
            let name: Arc<str> = Arc::from(format!("worker-{index}"));
            Arc::new(WorkerEntry {
                id: WorkerId(index as u32),
                series: metrics.worker(&name),
                name,
                base: base.trim_end_matches('/').to_owned(),
                in_flight: AtomicU32::new(0),
                health: Mutex::new(Health::new(&routing.health)),
                served: RwLock::new(Vec::new()),
            })
        };
        Self {
            workers: workers.iter().enumerate().map(entry).collect(),
            picker: Picker::new(routing),
            prefixes: Mutex::new(PrefixIndex::new(routing)),
            budget: Mutex::new(RetryBudget::new(&routing.retry_budget)),
            table: ArcSwap::from_pointee(RouteTable::default()),
            changed: watch::Sender::new(0),
            turn: AtomicU64::new(0),
            epoch: Instant::now(),
            metrics: metrics.clone(),
            routing: routing.clone(),
        }
    }

    pub(crate) fn workers(&self) -> &[Arc<WorkerEntry>] {
        &self.workers
    }

    pub(crate) fn table(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// Resolves at each change of what is served or up.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether any worker can take requests for some model.
    pub(crate) fn ready(&self) -> bool {
        let now = self.now();
        self.workers.iter().any(|worker| worker.health().state(now) == HealthState::Healthy)
    }

    /// Whether a worker for this model may be up: one that was not seen down.
    pub(crate) fn any_up(&self, model: &str) -> bool {
        let now = self.now();
        self.workers.iter().any(|worker| {
            let up = matches!(worker.health().state(now), HealthState::Healthy | HealthState::Unknown);
            up && read(&worker.served).iter().any(|served| &*served.model == model)
        })
    }

    /// Chooses a worker and claims a place at it.
    pub(crate) fn pick(&self, call: &Call, tried: &[WorkerId]) -> Result<Claim, RouteError> {
        let now = self.now();
        let snapshots: Vec<WorkerSnapshot> = self
            .workers
            .iter()
            .flat_map(|worker| {
                let health = worker.health().state(now);
                let in_flight = worker.in_flight.load(Ordering::Relaxed);
                let served = read(&worker.served);
                let now =
                    |snapshot: &WorkerSnapshot| WorkerSnapshot { health, in_flight, ..snapshot.clone() };
                served.iter().filter(|snapshot| *snapshot.model == *call.model).map(now).collect::<Vec<_>>()
            })
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let request = PickRequest {
            model: &call.model,
            pool: call.pool.as_deref(),
            version: call.version.as_deref().filter(|version| *version != UNKNOWN_VERSION),
            digests: &call.digests,
            excluded: tried,
            random: mix(turn),
            turn,
        };
        let mut prefixes = lock(&self.prefixes);
        let pick = self.picker.pick(&snapshots, &request, &prefixes)?;
        prefixes.record(pick.worker, &call.digests);
        drop(prefixes);
        self.metrics.prefix_blocks.inc_by(call.digests.len() as u64);
        self.metrics.prefix_matched_blocks.inc_by(pick.matched_blocks as u64);
        Ok(Claim::new(Arc::clone(&self.workers[pick.worker.0 as usize]), self.epoch))
    }

    pub(crate) fn deposit_retry(&self) {
        lock(&self.budget).deposit(self.now());
    }

    pub(crate) fn withdraw_retry(&self) -> bool {
        lock(&self.budget).try_withdraw(self.now())
    }

    /// A worker said itself that it is shutting down.
    pub(crate) fn note_draining(&self, worker: &WorkerEntry) {
        worker.health().on_probe(self.now(), ProbeResult::Draining);
    }

    /// Takes a probe's result in: health, what is served, prefixes; and the route table if that changed.
    pub(crate) fn take_probe(&self, worker: &WorkerEntry, probed: probe::Probed) {
        let now = self.now();
        let before = worker.health().state(now);
        worker.health().on_probe(now, probed.result);
        let after = worker.health().state(now);
        worker.series.healthy.set(i64::from(after == HealthState::Healthy));
        if before != after {
            tracing::info!(worker = &*worker.name, address = worker.base, ?before, ?after, "health");
        }
        if let Some(report) = &probed.report {
            lock(&self.prefixes).merge_hot(worker.id, &report.hot_prefixes);
        }
        if after == HealthState::Unhealthy && before != after {
            // Its cache will be empty when it comes back.
            lock(&self.prefixes).forget(worker.id);
        }
        if let Some(served) = probed.served(worker.id) {
            *worker.served.write().unwrap_or_else(PoisonError::into_inner) = served;
        }
        self.rebuild_table();
        if before != after {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// One row a model; where workers serve several versions, each gets its workers' share.
    fn rebuild_table(&self) {
        let mut counts: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>> = BTreeMap::new();
        for worker in &self.workers {
            for served in read(&worker.served).iter() {
                let version = served.version.clone().unwrap_or_else(|| Arc::from(UNKNOWN_VERSION));
                *counts.entry(Arc::clone(&served.model)).or_default().entry(version).or_default() += 1;
            }
        }
        let models: BTreeMap<String, ModelRoutes> =
            counts.into_iter().map(|(model, versions)| (model.to_string(), shares(&versions))).collect();
        let current = self.table.load();
        if current.models != models {
            let generation = current.generation + 1;
            tracing::info!(generation, models = ?models.keys().collect::<Vec<_>>(), "route table");
            self.table.store(Arc::new(RouteTable { epoch: 0, generation, models }));
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

fn shares(versions: &BTreeMap<Arc<str>, u32>) -> ModelRoutes {
    let total: u32 = versions.values().sum();
    let mut left = WEIGHT_TOTAL;
    let routes = versions.iter().enumerate().map(|(index, (version, count))| {
        let last = index + 1 == versions.len();
        let weight = if last { left } else { WEIGHT_TOTAL * count / total };
        left -= weight;
        VersionRoute::active(version.to_string(), weight, POOL)
    });
    ModelRoutes::new(routes.collect())
}

impl probe::Probed {
    /// Snapshots of what a worker serves; `None` keeps what was known.
    fn served(&self, id: WorkerId) -> Option<Vec<WorkerSnapshot>> {
        let snapshot = |model: &str, report: Option<&LoadReport>| {
            let mut snapshot = WorkerSnapshot::new(id, POOL, model);
            if let Some(report) = report {
                snapshot.apply_report(report);
            }
            snapshot
        };
        match (&self.report, &self.models) {
            (Some(report), _) => Some(vec![snapshot(&report.model, Some(report))]),
            (None, Some(models)) => Some(models.iter().map(|model| snapshot(model, None)).collect()),
            (None, None) => None,
        }
    }
}

/// Token counts of a JSON answer.
pub(crate) fn usage_of(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answered {
        usage: Option<Usage>,
    }
    serde_json::from_slice::<Answered>(body).ok()?.usage
}

/// Spreads a counter over all of `u64` (SplitMix64's output function).
fn mix(count: u64) -> u64 {
    let bits = count.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

impl WorkerEntry {
    fn record(&self, now: Duration, outcome: Option<Outcome>, label: &str) {
        if let Some(outcome) = outcome {
            self.health().on_outcome(now, outcome);
        }
        self.series.requests(label).inc();
    }
}
