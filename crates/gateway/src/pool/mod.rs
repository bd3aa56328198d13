//! The workers: what is known of each, and who gets the next request.

mod claim;
pub(crate) mod probe;
mod table;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use evidence::VersionLoad;
use protocol::{LoadReport, PrefixDigest};
use routing::{
    HealthState, ModelRoutes, PickRequest, Picker, PrefixIndex, ProbeResult, RetryBudget, RouteError,
    RouteTable, VersionRoute, WorkerId, WorkerSnapshot,
};
use telemetry::GatewayMetrics;
use tokio::sync::watch;

use crate::call::Call;
pub(crate) use claim::Claim;
pub(crate) use worker::WorkerEntry;

/// The version of a worker that does not say which it serves. Its answers are never cached.
pub(crate) const UNKNOWN_VERSION: &str = "unknown";

/// All workers.
pub(crate) struct Pool {
    workers: Vec<Arc<WorkerEntry>>,
    picker: Picker,
    view: Mutex<View>,
    budget: Mutex<RetryBudget>,
    table: ArcSwap<RouteTable>,
    /// What a controller said last. It goes before what follows from the workers, as long as any serves the model.
    given: ArcSwap<RouteTable>,
    /// Counts changes of what is served or up.
    changed: watch::Sender<u64>,
    /// Whether a controller is waited for, that may know better than to split users by workers.
    awaits_routes: AtomicBool,
    epoch: Instant,
    metrics: GatewayMetrics,
    pub(crate) routing: routing::Config,
}

/// What choices are made from. Whoever chooses holds it, some microseconds, so that of two requests that come
/// together the second sees the first.
#[derive(Debug)]
struct View {
    /// What workers serve and how loaded they are, as of their last good probes; by worker, one a model.
    snapshots: Vec<WorkerSnapshot>,
    prefixes: PrefixIndex,
    /// Each worker's state at its last probe.
    seen: Vec<HealthState>,
    turn: u64,
}

impl Pool {
    pub(crate) fn new(workers: &[String], routing: &routing::Config, metrics: &GatewayMetrics) -> Self {
        let entry = |(id, base): (u32, &String)| Arc::new(WorkerEntry::new(id, base, routing, metrics));
        let view = View {
            snapshots: Vec::new(),
            prefixes: PrefixIndex::new(routing),
            seen: vec![HealthState::Unknown; workers.len()],
            turn: 0,
        };
        Self {
            workers: (0..).zip(workers).map(entry).collect(),
            picker: Picker::new(routing),
            view: Mutex::new(view),
            budget: Mutex::new(RetryBudget::new(&routing.retry_budget)),
            table: ArcSwap::from_pointee(RouteTable::default()),
            given: ArcSwap::from_pointee(RouteTable::default()),
            changed: watch::Sender::new(0),
            awaits_routes: AtomicBool::new(false),
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

    /// Whether any worker can take requests for some model, and no controller is waited for.
    pub(crate) fn ready(&self) -> bool {
        let now = self.now();
        !self.awaits_routes.load(Ordering::Relaxed)
            && self.workers.iter().any(|worker| worker.health().can_serve(now))
    }

    /// Whether nothing was heard of some worker yet: it may serve what nobody else does.
    pub(crate) fn any_unheard(&self) -> bool {
        let now = self.now();
        self.workers.iter().any(|worker| worker.health().state(now) == HealthState::Unknown)
    }

    /// Whether some worker has never said what it serves.
    pub(crate) fn any_unidentified(&self) -> bool {
        let view = lock(&self.view);
        self.workers.iter().any(|worker| view.snapshots.iter().all(|served| served.id != worker.id))
    }

    /// Whether a worker for this model may be up: one that was not seen down.
    pub(crate) fn any_up(&self, model: &str) -> bool {
        let now = self.now();
        let may_be_up = |served: &WorkerSnapshot| {
            let health = self.worker(served.id).health();
            health.can_serve(now) || health.state(now) == HealthState::Unknown
        };
        lock(&self.view).snapshots.iter().any(|served| *served.model == *model && may_be_up(served))
    }

    /// Whether another worker is left, so that no retry is taken from the budget for nothing.
    pub(crate) fn any_untried(&self, model: &str, tried: &[WorkerId]) -> bool {
        let now = self.now();
        lock(&self.view).snapshots.iter().any(|served| {
            *served.model == *model
                && !tried.contains(&served.id)
                && self.health_of(served, now) != HealthState::Draining
        })
    }

    /// Chooses a worker and claims a place at it.
    pub(crate) fn pick(
        &self,
        call: &Call,
        digests: &[PrefixDigest],
        tried: &[WorkerId],
    ) -> Result<Claim, RouteError> {
        let now = self.now();
        let mut view = lock(&self.view);
        let View { snapshots, prefixes, turn, .. } = &mut *view;
        for snapshot in snapshots.iter_mut() {
            snapshot.health = self.health_of(snapshot, now);
            snapshot.in_flight = self.worker(snapshot.id).in_flight.load(Ordering::Relaxed);
        }
        *turn += 1;
        let request = PickRequest {
            model: &call.model,
            pool: call.pool.as_deref(),
            version: call.version.as_deref(),
            digests,
            excluded: tried,
            random: mix(*turn),
            turn: *turn,
        };
        let assigned = self.picker.pick(snapshots, &request, prefixes);
        let bound = call.is_copy || call.wanted_version.is_some();
        let pick = if bound || assigned.as_ref().is_ok_and(|pick| is_up(pick.health)) {
            assigned?
        } else {
            // The version's workers went away or down since it was assigned: any other is better than none.
            let other = self.picker.pick(snapshots, &PickRequest { version: None, ..request }, prefixes);
            if other.as_ref().is_ok_and(|pick| is_up(pick.health)) { other? } else { assigned.or(other)? }
        };
        prefixes.record(pick.worker, digests);
        let served =
            |snapshot: &&WorkerSnapshot| snapshot.id == pick.worker && *snapshot.model == *call.model;
        let version = snapshots.iter().find(served).and_then(|snapshot| snapshot.version.clone());
        let claim = Claim::new(Arc::clone(self.worker(pick.worker)), version, self.epoch);
        drop(view);
        self.metrics.prefix_blocks.inc_by(digests.len() as u64);
        self.metrics.prefix_matched_blocks.inc_by(pick.matched_blocks as u64);
        Ok(claim)
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

    /// Takes a probe's result in: what is served, health, prefixes; and the route table if that changed.
    pub(crate) fn take_probe(&self, worker: &WorkerEntry, probed: probe::Probed) {
        let now = self.now();
        let mut view = lock(&self.view);
        if let Some(served) = probed.served(worker.id) {
            view.snapshots.retain(|snapshot| snapshot.id != worker.id);
            view.snapshots.extend(served);
            view.snapshots.sort_by_key(|snapshot| snapshot.id);
        }
        let (after, fell_silent) = {
            let mut health = worker.health();
            let was_silent = health.is_silent();
            health.on_probe(now, probed.result);
            (health.state(now), health.is_silent() && !was_silent)
        };
        if fell_silent {
            worker.silenced.send_replace(());
        }
        let before = std::mem::replace(&mut view.seen[worker.id.0 as usize], after);
        worker.series.healthy.set(i64::from(after == HealthState::Healthy));
        if before != after {
            let why = probed.failure.as_deref().unwrap_or("requests failed");
            let why = (after == HealthState::Unhealthy).then_some(why);
            tracing::info!(worker = &*worker.name, address = worker.base, ?before, ?after, why, "health");
            if after == HealthState::Healthy {
                // Its cache is likely empty; what is in it all the same is in its report.
                view.prefixes.forget(worker.id);
            }
        }
        if let Some(report) = &probed.report {
            view.prefixes.merge_hot(worker.id, &report.hot_prefixes);
        }
        let table_changed = self.rebuild_table(&view.snapshots, now);
        drop(view);
        if table_changed || before != after {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// The caller holds the view, so that tables follow each other as views do.
    fn rebuild_table(&self, snapshots: &[WorkerSnapshot], now: Duration) -> bool {
        let served = snapshots.iter().map(|served| table::Served {
            model: &served.model,
            version: served.version.as_deref().unwrap_or(UNKNOWN_VERSION),
            up: is_up(self.health_of(served, now)),
        });
        let mut models = table::routes(served);
        for (model, routes) in &self.given.load().models {
            models.entry(model.clone()).and_modify(|derived| derived.clone_from(routes));
        }
        let current = self.table.load();
        if current.models == models {
            return false;
        }
        self.forget_versions(&current, &models);
        let generation = current.generation + 1;
        tracing::info!(generation, models = ?models.keys().collect::<Vec<_>>(), "route table");
        self.table.store(Arc::new(RouteTable { epoch: 0, generation, models }));
        true
    }

    /// Takes versions that are gone off the metrics' page.
    fn forget_versions(&self, before: &RouteTable, after: &BTreeMap<String, ModelRoutes>) {
        for (model, routes) in &before.models {
            let left = after.get(model);
            for VersionRoute { version, .. } in &routes.versions {
                if !left.is_some_and(|left| left.versions.iter().any(|route| route.version == *version)) {
                    self.metrics.forget_version(model, version);
                }
            }
        }
    }

    /// Takes a controller's table, if it is newer than the last one; says whether it was.
    pub(crate) fn take_table(&self, table: RouteTable) -> bool {
        if let Err(error) = table.validate() {
            tracing::error!(%error, "the controller's route table is refused");
            return false;
        }
        let view = lock(&self.view);
        if !table.supersedes(&self.given.load()) {
            return false;
        }
        self.given.store(Arc::new(table));
        let changed = self.rebuild_table(&view.snapshots, self.now());
        drop(view);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        true
    }

    /// Begins to wait for the controller's first word, or waits no longer.
    pub(crate) fn await_routes(&self, awaits: bool) {
        if self.awaits_routes.swap(awaits, Ordering::Relaxed) != awaits {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// The controller's last table; an empty one where there was none.
    pub(crate) fn given(&self) -> Arc<RouteTable> {
        self.given.load_full()
    }

    /// Each model's versions, and what their workers could do.
    pub(crate) fn loads(&self) -> BTreeMap<String, BTreeMap<String, VersionLoad>> {
        let now = self.now();
        let mut loads: BTreeMap<String, BTreeMap<String, VersionLoad>> = BTreeMap::new();
        for served in &lock(&self.view).snapshots {
            let version = served.version.as_deref().unwrap_or(UNKNOWN_VERSION);
            let of_model = loads.entry(served.model.to_string()).or_default();
            let load = of_model.entry(version.to_owned()).or_default();
            load.workers += 1;
            load.in_flight += self.worker(served.id).in_flight.load(Ordering::Relaxed);
            if is_up(self.health_of(served, now)) {
                load.workers_up += 1;
                load.places += served.max_num_seqs.unwrap_or(0);
            }
        }
        loads
    }

    fn worker(&self, id: WorkerId) -> &Arc<WorkerEntry> {
        &self.workers[id.0 as usize]
    }

    fn health_of(&self, snapshot: &WorkerSnapshot, now: Duration) -> HealthState {
        self.worker(snapshot.id).health().state(now)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

const fn is_up(state: HealthState) -> bool {
    matches!(state, HealthState::Healthy | HealthState::Unknown)
}

impl probe::Probed {
    /// Snapshots of what a worker serves; `None` keeps what was known.
    fn served(&self, id: WorkerId) -> Option<Vec<WorkerSnapshot>> {
        let snapshot = |model: &str, report: Option<&LoadReport>| {
            let mut snapshot = WorkerSnapshot::new(id, RouteTable::POOL, model);
            if let Some(report) = report {
                snapshot.apply_report(report);
            }
            // Said, not left out: one that may serve any version must not answer for one that is known.
            snapshot.version.get_or_insert_with(|| Arc::from(UNKNOWN_VERSION));
            snapshot
        };
        match (&self.report, &self.models) {
            (Some(report), _) => Some(vec![snapshot(&report.model, Some(report))]),
            (None, Some(models)) => Some(models.iter().map(|model| snapshot(model, None)).collect()),
            (None, None) => None,
        }
    }
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
