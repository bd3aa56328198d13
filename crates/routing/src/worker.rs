//! What is known about a worker at the moment of a choice.

use std::sync::Arc;

use protocol::LoadReport;

use crate::HealthState;

/// A number that the caller gives each worker and gives to no other one later, unless it calls
/// [`PrefixIndex::forget`](crate::PrefixIndex::forget) in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u32);

/// One worker at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerSnapshot {
    /// Which worker.
    pub id: WorkerId,
    /// The group of interchangeable workers that a route names.
    pub pool: Arc<str>,
    /// The served model's name.
    pub model: Arc<str>,
    /// The model's version, from the worker itself; a worker that is not ours may not say, and then its pool decides.
    pub version: Option<Arc<str>>,
    /// From [`Health::state`](crate::Health::state).
    pub health: HealthState,
    /// Requests that this gateway has there now; exact and fresh.
    pub in_flight: u32,
    /// Requests that wait for a place in the batch, from all gateways, as of the last report.
    pub num_waiting: u32,
    /// Requests in the batch, from all gateways, as of the last report. No score counts it: the gateway's own
    /// requests are in `in_flight` already, and a stale count of them would draw or repel whole bursts.
    pub num_running: u32,
    /// Share of KV blocks in use by live requests, 0 to 1, as of the last report.
    pub kv_cache_usage: f32,
    /// Places in the batch; a worker that is not ours may not say.
    pub max_num_seqs: Option<u32>,
}

impl WorkerSnapshot {
    /// An idle worker of which nothing else is known yet.
    pub fn new(id: WorkerId, pool: impl Into<Arc<str>>, model: impl Into<Arc<str>>) -> Self {
        Self {
            id,
            pool: pool.into(),
            model: model.into(),
            version: None,
            health: HealthState::Unknown,
            in_flight: 0,
            num_waiting: 0,
            num_running: 0,
            kv_cache_usage: 0.0,
            max_num_seqs: None,
        }
    }

    /// Takes over what the worker says about itself. Its model stays: what the gateway calls it decides.
    pub fn apply_report(&mut self, report: &LoadReport) {
        self.version = (!report.version.is_empty()).then(|| report.version.as_str().into());
        self.num_waiting = report.num_requests_waiting;
        self.num_running = report.num_requests_running;
        self.kv_cache_usage =
            if report.kv_cache_usage.is_nan() { 0.0 } else { report.kv_cache_usage.clamp(0.0, 1.0) };
        self.max_num_seqs = (report.max_num_seqs > 0).then_some(report.max_num_seqs);
    }

    /// Requests that a new one would share the worker with. Those that wait count twice where they are this gateway's
    /// own: they say that the batch is full, which a running request does not.
    pub(crate) fn load(&self) -> f64 {
        f64::from(self.in_flight) + f64::from(self.num_waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fills_the_snapshot_and_nonsense_in_it_is_made_harmless() {
        let mut worker = WorkerSnapshot::new(WorkerId(1), "pool", "model");
        let report = LoadReport {
            model: "other".into(),
            version: "v1".into(),
            num_requests_waiting: 3,
            num_requests_running: 5,
            kv_cache_usage: f32::NAN,
            max_num_seqs: 8,
            ..LoadReport::default()
        };
        worker.apply_report(&report);
        assert_eq!((worker.num_waiting, worker.num_running, worker.max_num_seqs), (3, 5, Some(8)));
        assert_eq!(
            (&*worker.model, worker.version.as_deref(), worker.kv_cache_usage),
            ("model", Some("v1"), 0.0)
        );
        worker.apply_report(&LoadReport { kv_cache_usage: 7.0, ..LoadReport::default() });
        assert_eq!((worker.version, worker.kv_cache_usage, worker.max_num_seqs), (None, 1.0, None));
    }
}
