//! What every handler shares.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::{Engine, LoadedModel, Reservation, Stats};
use http_server::{Bodies, Compute};
use protocol::{ApiError, ErrorCode, LoadReport, PrefixDigest};
use telemetry::{Registry, WorkerMetrics};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::answer::Answer;
use crate::error::{engine_stopped, overloaded};
use crate::faults::Faults;
use crate::job::Job;
use crate::prefixes::HotPrefixes;

pub(crate) struct App {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) engine: Engine,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) registry: Registry,
    pub(crate) api_key: Option<String>,
    pub(crate) created: u64,
    pub(crate) compute: Compute,
    pub(crate) bodies: Bodies,
    /// Places for requests that want nothing but tokens or their text.
    pub(crate) tokenizations: Semaphore,
    /// Places in the batch.
    pub(crate) max_num_seqs: usize,
    /// Places in the batch and in line.
    pub(crate) num_places: usize,
    /// The longest prompt and answer together: what the model reads and the KV-cache holds.
    pub(crate) max_model_len: usize,
    /// No prompt that fits in it has more.
    pub(crate) prompt_bytes_max: usize,
    pub(crate) prefixes: Mutex<HotPrefixes>,
    /// A simulated worker's faults on request.
    pub(crate) faults: Option<Faults>,
    pub(crate) draining: AtomicBool,
    /// Holds one token for each request under way.
    pub(crate) answers: TaskTracker,
    /// Cancelled when answers under way have had their time to end.
    pub(crate) cut: CancellationToken,
}

/// Keeps a draining worker from closing, until it is told that time is up.
#[derive(Debug)]
pub(crate) struct UnderWay {
    _token: TaskTrackerToken,
    pub(crate) cut: CancellationToken,
}

impl App {
    /// Lets a request in. It is counted before the look at `draining`, and [`App::drain`] sets that before it looks at
    /// the count: either the request sees the one or the drain sees the other.
    pub(crate) fn enter(&self) -> Result<UnderWay, ApiError> {
        let under_way = UnderWay { _token: self.answers.token(), cut: self.cut.clone() };
        fence(Ordering::SeqCst);
        self.accepting()?;
        Ok(under_way)
    }

    /// Resolves when a fault asks for it, and never for a worker that has none.
    pub(crate) async fn crashed(&self) {
        match &self.faults {
            Some(faults) => faults.crashed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Refuses new work from now on, and waits for what is under way.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.answers.close();
        tracing::info!(answers = self.answers.len(), "draining");
        self.answers.wait().await;
    }

    /// Refuses new work while draining or after a failure.
    pub(crate) fn accepting(&self) -> Result<(), ApiError> {
        if self.draining.load(Ordering::Acquire) {
            return Err(ApiError::new(ErrorCode::Unavailable, "this worker is shutting down; try another"));
        }
        if !self.engine.load().healthy {
            return Err(engine_stopped());
        }
        Ok(())
    }

    pub(crate) fn ready(&self) -> bool {
        self.accepting().is_ok()
    }

    pub(crate) fn check_model(&self, asked: &str) -> Result<(), ApiError> {
        if asked == self.model.name() { Ok(()) } else { Err(ApiError::model_not_found(asked)) }
    }

    /// Takes places for `count` answers, all or none, before any of the work. Blames `param` for more than there are.
    pub(crate) fn reserve(&self, count: usize, param: &str) -> Result<Vec<Reservation>, ApiError> {
        if count > self.num_places {
            let message = format!(
                "{count} answers are asked for, but this server works on at most {} at a time; ask for fewer",
                self.num_places
            );
            return Err(ApiError::invalid(param, message));
        }
        let places: Result<Vec<_>, _> = (0..count).map(|_| self.engine.reserve()).collect();
        places.map_err(|full| overloaded(&full.to_string()))
    }

    /// Hands a job to the engine.
    pub(crate) fn submit(
        &self,
        job: &Job,
        prompt_param: &str,
        places: Vec<Reservation>,
        arrived: Instant,
    ) -> Result<Vec<Answer>, ApiError> {
        let requests = job.requests(&self.model, self.max_model_len, prompt_param)?;
        let mut answers = Vec::with_capacity(requests.len());
        for (index, (request, place)) in requests.into_iter().zip(places).enumerate() {
            let events = self.engine.submit(place, request).map_err(|_| engine_stopped())?;
            answers.push(Answer::new(index as u32, events, arrived, self.metrics.clone()));
        }
        Ok(answers)
    }

    pub(crate) fn touch_prefixes(&self, digests: &[PrefixDigest]) {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner).touch(digests);
    }

    /// The engine reports after each step; a request that is cancelled when there is nothing else makes no step.
    pub(crate) fn refresh_gauges(&self) {
        set_gauges(&self.metrics, &self.engine.load().stats);
    }

    pub(crate) fn load_report(&self) -> LoadReport {
        let stats = self.engine.load().stats;
        LoadReport {
            model: self.model.name().to_owned(),
            version: self.model.version().to_owned(),
            ready: self.ready(),
            num_requests_waiting: stats.num_waiting as u32,
            num_requests_running: stats.num_running as u32,
            kv_cache_usage: kv_cache_usage(&stats) as f32,
            max_num_seqs: self.max_num_seqs as u32,
            max_model_len: self.max_model_len as u32,
            hot_prefixes: self.prefixes.lock().unwrap_or_else(PoisonError::into_inner).list(),
        }
    }
}

/// What the engine holds at this moment.
pub(crate) fn set_gauges(metrics: &WorkerMetrics, stats: &Stats) {
    metrics.num_requests_running.set(stats.num_running as i64);
    metrics.num_requests_waiting.set(stats.num_waiting as i64);
    metrics.kv_cache_usage.set(kv_cache_usage(stats));
}

fn kv_cache_usage(stats: &Stats) -> f64 {
    stats.num_blocks_used as f64 / stats.num_blocks.max(1) as f64
}

/// Seconds since 1970.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
