//! The handles of a worker's metrics, all of one model.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry};

use crate::TelemetryError;
use crate::catalogue::worker as specs;
use crate::series::{Family, register};

/// Reasons that an answer can end for, as vLLM names them; further ones are counted until there are eight.
const FINISHED_REASONS: [&str; 4] = ["stop", "length", "abort", "error"];
const FINISHED_REASONS_MAX: usize = 8;

/// A worker's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct WorkerMetrics(Arc<WorkerEngineSeries>);

impl Deref for WorkerMetrics {
    type Target = WorkerEngineSeries;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// One series a field; an update is an atomic addition.
#[derive(Debug)]
pub struct WorkerEngineSeries {
    registry: Registry,
    model: String,
    finished: Family<IntCounter>,
    /// Requests in the batch.
    pub num_requests_running: IntGauge,
    /// Requests that wait for a place in the batch.
    pub num_requests_waiting: IntGauge,
    /// Share of KV blocks in use, 0 to 1.
    pub kv_cache_usage: Gauge,
    /// Prompt tokens of requests that were prefilled.
    pub prompt_tokens: IntCounter,
    /// Tokens generated.
    pub generation_tokens: IntCounter,
    /// Preempted sequences.
    pub num_preemptions: IntCounter,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_cache_queries: IntCounter,
    /// Prompt tokens found in the prefix cache.
    pub prefix_cache_hits: IntCounter,
    /// Runs with guessed tokens.
    pub spec_decode_drafts: IntCounter,
    /// Guessed tokens that were checked.
    pub spec_decode_draft_tokens: IntCounter,
    /// Guessed tokens that came true.
    pub spec_decode_accepted_tokens: IntCounter,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: Histogram,
    /// Seconds between two tokens of one answer.
    pub inter_token_latency: Histogram,
    /// Seconds from arrival to the last token.
    pub e2e_request_latency: Histogram,
    /// Seconds from arrival to the first step.
    pub request_queue_time: Histogram,
    /// Seconds from the first step to the first token.
    pub request_prefill_time: Histogram,
    /// Seconds from the first token to the last.
    pub request_decode_time: Histogram,
    /// Tokens of a request's prompt.
    pub request_prompt_tokens: Histogram,
    /// Tokens of a request's answer.
    pub request_generation_tokens: Histogram,
    /// Tokens of one engine step.
    pub iteration_tokens: Histogram,
}

/// The KV cache's shape, which autoscalers and routers read from labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfigInfo {
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the cache, on whichever device it is.
    pub num_gpu_blocks: usize,
    /// The cached values' type, such as `f32` or `int8`.
    pub cache_dtype: String,
    /// Whether prefixes are shared.
    pub enable_prefix_caching: bool,
}

/// How well a simulated engine keeps to its time.
#[derive(Clone, Debug)]
pub struct SimulationMetrics {
    /// Seconds from when a step was to end until it did.
    pub step_lateness: Histogram,
    /// Seconds that a step took.
    pub step: Histogram,
    /// Seconds that it should have taken.
    pub step_planned: Histogram,
}

impl WorkerMetrics {
    /// Registers a worker's metrics for `model`, the served model's name.
    pub fn new(registry: &Registry, model: &str) -> Result<Self, TelemetryError> {
        let only = &[model];
        let finished = Family::new(registry, &specs::REQUEST_SUCCESS, only, FINISHED_REASONS_MAX)?;
        // Present from the start, so that a rate over them has a first point.
        for reason in FINISHED_REASONS {
            finished.get(reason);
        }
        let lora: IntGauge = register(registry, &specs::LORA_REQUESTS_INFO, &[model, "0", "", ""])?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        lora.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        Ok(Self(Arc::new(WorkerEngineSeries {
            registry: registry.clone(),
            model: model.to_owned(),
            finished,
            num_requests_running: register(registry, &specs::NUM_REQUESTS_RUNNING, only)?,
            num_requests_waiting: register(registry, &specs::NUM_REQUESTS_WAITING, only)?,
            kv_cache_usage: register(registry, &specs::KV_CACHE_USAGE, only)?,
            prompt_tokens: register(registry, &specs::PROMPT_TOKENS, only)?,
            generation_tokens: register(registry, &specs::GENERATION_TOKENS, only)?,
            num_preemptions: register(registry, &specs::NUM_PREEMPTIONS, only)?,
            prefix_cache_queries: register(registry, &specs::PREFIX_CACHE_QUERIES, only)?,
            prefix_cache_hits: register(registry, &specs::PREFIX_CACHE_HITS, only)?,
            spec_decode_drafts: register(registry, &specs::SPEC_DECODE_DRAFTS, only)?,
            spec_decode_draft_tokens: register(registry, &specs::SPEC_DECODE_DRAFT_TOKENS, only)?,
            spec_decode_accepted_tokens: register(registry, &specs::SPEC_DECODE_ACCEPTED_TOKENS, only)?,
            time_to_first_token: register(registry, &specs::TIME_TO_FIRST_TOKEN, only)?,
            inter_token_latency: register(registry, &specs::INTER_TOKEN_LATENCY, only)?,
            e2e_request_latency: register(registry, &specs::E2E_REQUEST_LATENCY, only)?,
            request_queue_time: register(registry, &specs::REQUEST_QUEUE_TIME, only)?,
            request_prefill_time: register(registry, &specs::REQUEST_PREFILL_TIME, only)?,
            request_decode_time: register(registry, &specs::REQUEST_DECODE_TIME, only)?,
            request_prompt_tokens: register(registry, &specs::REQUEST_PROMPT_TOKENS, only)?,
            request_generation_tokens: register(registry, &specs::REQUEST_GENERATION_TOKENS, only)?,
            iteration_tokens: register(registry, &specs::ITERATION_TOKENS, only)?,
        })))
    }
}

impl WorkerEngineSeries {
    /// The counter of requests that ended for `finished_reason`: `stop`, `length`, `abort`, `error`.
    pub fn request_success(&self, finished_reason: &str) -> IntCounter {
        self.finished.get(finished_reason)
    }

    /// Registers what only a simulated engine has. Called once.
    pub fn simulation(&self) -> Result<SimulationMetrics, TelemetryError> {
        let only = &[self.model.as_str()];
        Ok(SimulationMetrics {
            step_lateness: register(&self.registry, &specs::SIMULATED_STEP_LATENESS, only)?,
            step: register(&self.registry, &specs::SIMULATED_STEP, only)?,
            step_planned: register(&self.registry, &specs::SIMULATED_STEP_PLANNED, only)?,
        })
    }

    /// Shows the KV cache's shape. Called once, when the engine is up.
    pub fn set_cache_config(&self, info: &CacheConfigInfo) -> Result<(), TelemetryError> {
        let values = [
            self.model.as_str(),
            &info.block_size.to_string(),
            &info.num_gpu_blocks.to_string(),
            &info.cache_dtype,
            if info.enable_prefix_caching { "True" } else { "False" },
        ];
        let shown: IntGauge = register(&self.registry, &specs::CACHE_CONFIG_INFO, &values)?;
        shown.set(1);
        Ok(())
    }
}
