//! A worker's life: bind, serve, drain, end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::profile::{Limits, StepLogHeader};
use engine::{Engine, LoadedModel, SchedulerConfig, Stats, StepReport};
use http_server::{Bodies, Compute, Connections};
use telemetry::{CacheConfigInfo, IntCounter, Registry, SimulationMetrics, WorkerMetrics};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, set_gauges, unix_s};
use crate::faults::Faults;
use crate::prefixes::HotPrefixes;
use crate::routes::router;
use crate::step_log::StepLog;
use crate::{Config, WorkerError};

/// How long connections may take for the last bytes of their answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The model that a worker serves and the bounds of its batch.
#[derive(Clone, Debug)]
pub struct WorkerModel {
    /// Weights and tokenizer, which workers of one process share.
    pub model: Arc<LoadedModel>,
    /// The bounds of its own batch and queue.
    pub scheduler: SchedulerConfig,
}

/// A worker that has its address and its engine, and is about to serve.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("App").field("model", &self.model.name()).finish_non_exhaustive()
    }
}

impl Worker {
    /// Listens, and starts the engine's thread.
    pub async fn bind(config: Config, model: WorkerModel) -> Result<Self, WorkerError> {
        config.validate()?;
        let listen_error = |source| WorkerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let WorkerModel { model, scheduler } = model;
        let registry = Registry::new();
        telemetry::register_process(&registry, env!("CARGO_PKG_VERSION"))?;
        let metrics = WorkerMetrics::new(&registry, model.name())?;
        let num_blocks = model.config().kv_cache_tokens / scheduler.block_size.max(1);
        metrics.set_cache_config(&CacheConfigInfo {
            block_size: scheduler.block_size,
            num_gpu_blocks: num_blocks,
            cache_dtype: model.config().kv_dtype.as_str().into(),
            enable_prefix_caching: scheduler.prefix_caching,
        })?;
        let SchedulerConfig { max_num_seqs, max_num_waiting, .. } = scheduler;
        let num_places = max_num_seqs + max_num_waiting;
        let max_model_len = model.max_model_len().min(num_blocks * scheduler.block_size);
        let prompt_bytes_max = max_model_len.saturating_mul(model.tokenizer().longest_token_bytes());
        let observer = Observer {
            simulation: model.is_simulated().then(|| metrics.simulation()).transpose()?,
            step_log: step_log(&config, &model, &scheduler)?,
            ..Observer::new(metrics.clone())
        };
        let observe = Box::new(move |report: &StepReport<'_>| observer.see(report));
        let (engine, _thread) = Engine::start(&model, scheduler, observe)?;
        let faults = engine.simulation().map(|simulation| Faults::new(Arc::clone(simulation)));
        let app = Arc::new(App {
            model,
            engine,
            metrics,
            registry,
            api_key: config.api_key.clone(),
            created: unix_s(),
            compute: Compute::new(),
            bodies: Bodies::new(
                config.body_bytes_max,
                config.large_bodies_bytes_max,
                Duration::from_secs(config.idle_timeout_s),
            ),
            tokenizations: Semaphore::new(config.tokenizations_max),
            max_num_seqs,
            num_places,
            max_model_len,
            prompt_bytes_max,
            prefixes: Mutex::new(HotPrefixes::new(config.hot_prefixes_max)),
            faults,
            draining: AtomicBool::new(false),
            answers: TaskTracker::new(),
            cut: CancellationToken::new(),
        });
        Ok(Self { config, listener, address, app })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves; then is unready at once, refuses new work, lets answers under way end for up
    /// to `drain_timeout_s`, cuts off what is left, and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), WorkerError> {
        let Self { config, listener, app, .. } = self;
        let idle_timeout = Duration::from_secs(config.idle_timeout_s);
        let mut connections =
            Connections::new(router(Arc::clone(&app)), config.connections_max, idle_timeout);
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            () = shutdown => {}
            () = app.crashed() => return Err(WorkerError::Crashed),
        }
        let drain = tokio::time::timeout(Duration::from_secs(config.drain_timeout_s), app.drain());
        // Who comes now is told to go elsewhere, which a closed port would not say.
        let drained = tokio::select! {
            never = connections.accept(&listener) => match never {},
            drained = drain => drained.is_ok(),
        };
        if !drained {
            tracing::warn!(answers = app.answers.len(), "answers are cut off at the drain time-out");
            app.cut.cancel();
        }
        drop(listener);
        connections.close(CLOSE_TIMEOUT).await;
        Ok(())
    }
}

/// Whose steps a log holds, and the log, if one is wanted.
fn step_log(
    config: &Config,
    model: &LoadedModel,
    scheduler: &SchedulerConfig,
) -> Result<Option<StepLog>, WorkerError> {
    let Some(path) = &config.step_log else { return Ok(None) };
    let header = StepLogHeader {
        device: format!("{} {}", std::env::consts::ARCH, model.device()),
        model: model.shape(),
        limits: Limits {
            kv_cache_tokens: model.config().kv_cache_tokens,
            max_num_seqs: scheduler.max_num_seqs,
            max_num_batched_tokens: scheduler.max_num_batched_tokens,
            max_model_len: model.max_model_len(),
        },
    };
    let log = StepLog::create(path, &header);
    log.map(Some).map_err(|source| WorkerError::StepLog { path: path.clone(), source })
}

/// Carries the engine's gauges and counters over after each step.
#[derive(Debug)]
struct Observer {
    metrics: WorkerMetrics,
    /// Counted so far, as [`Observer::counters`] has them.
    counted: [AtomicU64; 6],
    simulation: Option<SimulationMetrics>,
    step_log: Option<StepLog>,
}

impl Observer {
    fn new(metrics: WorkerMetrics) -> Self {
        let counted = [const { AtomicU64::new(0) }; 6];
        Self { metrics, counted, simulation: None, step_log: None }
    }

    /// What the engine counts since its start, and the series for it.
    fn counters(&self, stats: &Stats) -> [(u64, &IntCounter); 6] {
        let series = &self.metrics;
        [
            (stats.prefix_queries, &series.prefix_cache_queries),
            (stats.prefix_hits, &series.prefix_cache_hits),
            (stats.num_preemptions, &series.num_preemptions),
            (stats.num_drafts, &series.spec_decode_drafts),
            (stats.num_draft_tokens, &series.spec_decode_draft_tokens),
            (stats.num_accepted_tokens, &series.spec_decode_accepted_tokens),
        ]
    }

    fn see(&self, report: &StepReport<'_>) {
        let Self { metrics, counted, simulation, step_log } = self;
        set_gauges(metrics, &report.stats);
        for (before, (now, series)) in counted.iter().zip(self.counters(&report.stats)) {
            series.inc_by(now - before.swap(now, Ordering::Relaxed));
        }
        metrics.prompt_tokens.inc_by(report.num_prompt_tokens as u64);
        metrics.generation_tokens.inc_by(report.num_generated_tokens as u64);
        metrics.iteration_tokens.observe(report.num_tokens as f64);
        if let (Some(simulation), Some(pace)) = (simulation, report.pace) {
            simulation.step_lateness.observe(pace.lateness.as_secs_f64());
            simulation.step.observe(pace.taken.as_secs_f64());
            simulation.step_planned.observe(pace.planned.as_secs_f64());
        }
        if let Some(log) = step_log {
            log.add(report);
        }
    }
}
