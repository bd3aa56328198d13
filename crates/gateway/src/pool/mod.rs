//! The workers: what is known of each, who gets the next request, and the route table that follows from them.

mod claim;
pub(crate) mod probe;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Uri;
use protocol::{LoadReport, PrefixDigest};
use routing::{
    Health, HealthState, ModelRoutes, Outcome, PickRequest, Picker, PrefixIndex, ProbeResult, RetryBudget,
    RouteError, RouteTable, VersionRoute, WorkerId, WorkerSnapshot,
};
use telemetry::{GatewayMetrics, WorkerSeries};
use tokio::sync::watch;

use crate::call::{Call, Endpoint};
pub(crate) use claim::Claim;

/// The version of a worker that does not say which it serves. Its answers are never cached.
pub(crate) const UNKNOWN_VERSION: &str = "unknown";

/// The pool of workers that were given by address.
const POOL: &str = "default";

/// One worker.
#[derive(Debug)]
pub(crate) struct WorkerEntry {
    pub(crate) id: WorkerId,
    /// `worker-0`, `worker-1`, …: clients and labels see this, never an address.
    pub(crate) name: Arc<str>,
    base: String,
    endpoints: [Uri; Endpoint::ALL.len()],
    in_flight: AtomicU32,
    health: Mutex<Health>,
    /// Changes when probes find that it has fallen silent.
    silenced: watch::Sender<()>,
    series: Arc<WorkerSeries>,
}

impl WorkerEntry {
    fn new(id: u32, base: &str, routing: &routing::Config, metrics: &GatewayMetrics) -> Self {
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

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }

    /// Resolves when probes find nobody there any more. A machine that vanishes sends no word on its connections, and
    /// what waits for a first byte on them would wait for the whole of its time.
    pub(crate) fn silence(&self) -> impl Future<Output = ()> + use<> {
        let mut silenced = self.silenced.subscribe();
        async move {
            let _ = silenced.changed().await;
        }
    }

    fn record(&self, now: Duration, outcome: Option<Outcome>, label: &str) {
        if let Some(outcome) = outcome {
            self.health().on_outcome(now, outcome);
        }
        self.series.requests(label).inc();
    }
}

fn uri(base: &str, path: &str) -> Uri {
    Uri::try_from(format!("{base}{path}")).unwrap_or_default()
}

/// All workers.
pub(crate) struct Pool {
    workers: Vec<Arc<WorkerEntry>>,
    picker: Picker,
    view: Mutex<View>,
    budget: Mutex<RetryBudget>,
    table: ArcSwap<RouteTable>,
    /// Counts changes of what is served or up.
    changed: watch::Sender<u64>,
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
            changed: watch::Sender::new(0),
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
        self.workers.iter().any(|worker| worker.health().can_serve(now))
    }

    /// Whether nothing was heard of some worker yet: it may serve what nobody else does.
    pub(crate) fn any_unheard(&self) -> bool {
        let now = self.now();
        self.workers.iter().any(|worker| worker.health().state(now) == HealthState::Unknown)
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
        let pick = if assigned.as_ref().is_ok_and(|pick| is_up(pick.health)) {
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
            tracing::info!(worker = &*worker.name, address = worker.base, ?before, ?after, "health");
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

    /// One row a model; where workers serve several versions, each gets its workers' share. The caller holds the view,
    /// so that tables follow each other as views do.
    fn rebuild_table(&self, snapshots: &[WorkerSnapshot], now: Duration) -> bool {
        let mut counts: BTreeMap<&str, BTreeMap<&str, Share>> = BTreeMap::new();
        for served in snapshots {
            let version = served.version.as_deref().unwrap_or(UNKNOWN_VERSION);
            let share = counts.entry(&served.model).or_default().entry(version).or_default();
            share.workers += 1;
            share.workers_up += u32::from(is_up(self.health_of(served, now)));
        }
        let models: BTreeMap<String, ModelRoutes> =
            counts.into_iter().map(|(model, versions)| (model.to_owned(), shares(&versions))).collect();
        let current = self.table.load();
        if current.models == models {
            return false;
        }
        let generation = current.generation + 1;
        tracing::info!(generation, models = ?models.keys().collect::<Vec<_>>(), "route table");
        self.table.store(Arc::new(RouteTable { epoch: 0, generation, models }));
        true
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

/// How many workers a version has.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    workers: u32,
    workers_up: u32,
}

/// Weights by the workers that are up; by all of them where none is, so that a model does not vanish with them.
fn shares(versions: &BTreeMap<&str, Share>) -> ModelRoutes {
    let up: u32 = versions.values().map(|share| share.workers_up).sum();
    let count = |share: &Share| if up == 0 { share.workers } else { share.workers_up };
    let total: u32 = versions.values().map(count).sum();
    let (mut counted, mut given) = (0, 0);
    let routes = versions.iter().map(|(version, share)| {
        counted += count(share);
        // Rounding goes to the neighbours, and the weights add up whatever it does.
        let end = RouteTable::WEIGHT_TOTAL * counted / total;
        let weight = end - std::mem::replace(&mut given, end);
        VersionRoute::active(*version, weight, POOL)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(versions: &[(&str, u32, u32)]) -> Vec<u32> {
        let share = |&(version, workers, workers_up)| (version, Share { workers, workers_up });
        let routes = shares(&versions.iter().map(share).collect());
        routes.versions.iter().map(|route| route.weight).collect()
    }

    #[test]
    fn versions_share_users_as_they_share_workers_that_are_up() {
        assert_eq!(weights(&[("a", 1, 1)]), [10_000]);
        assert_eq!(weights(&[("a", 1, 1), ("b", 2, 2)]), [3_333, 6_667]);
        assert_eq!(weights(&[("a", 2, 0), ("b", 1, 1)]), [0, 10_000]);
        assert_eq!(weights(&[("a", 3, 0), ("b", 1, 0)]), [7_500, 2_500]);
        assert_eq!(weights(&[("a", 7, 7); 1]).iter().sum::<u32>(), RouteTable::WEIGHT_TOTAL);
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|version| (version, 3, 3)).to_vec();
        assert_eq!(weights(&many).iter().sum::<u32>(), RouteTable::WEIGHT_TOTAL);
    }
}
