//! What an engine says about itself, under vLLM's names and with vLLM's buckets.

use super::MetricSpec;

const MODEL: &[&str] = &["model_name"];

const FIRST_TOKEN_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
const BETWEEN_TOKENS_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];
const REQUEST_TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0,
    50_000.0, 100_000.0,
];
const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0];
const STEP_SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Requests in the batch.
pub const NUM_REQUESTS_RUNNING: MetricSpec =
    MetricSpec::gauge("vllm:num_requests_running", "Requests in the batch.", MODEL);
/// Requests that wait for a place in the batch.
pub const NUM_REQUESTS_WAITING: MetricSpec =
    MetricSpec::gauge("vllm:num_requests_waiting", "Requests that wait for a place in the batch.", MODEL);
/// Share of KV blocks in use.
pub const KV_CACHE_USAGE: MetricSpec =
    MetricSpec::gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", MODEL);
/// Always present, its adapter lists empty where no adapter is served.
pub const LORA_REQUESTS_INFO: MetricSpec = MetricSpec::gauge(
    "vllm:lora_requests_info",
    "LoRA adapters of running and waiting requests; the value is when it was written, in seconds since 1970.",
    &["model_name", "max_lora", "running_lora_adapters", "waiting_lora_adapters"],
);
/// The KV cache's shape, as labels.
pub const CACHE_CONFIG_INFO: MetricSpec = MetricSpec::gauge(
    "vllm:cache_config_info",
    "The KV cache's configuration, as labels; the value is 1.",
    &["model_name", "block_size", "num_gpu_blocks", "cache_dtype", "enable_prefix_caching"],
);
/// Prompt tokens computed or found in the prefix cache.
pub const PROMPT_TOKENS: MetricSpec =
    MetricSpec::counter("vllm:prompt_tokens_total", "Prompt tokens of requests that were prefilled.", MODEL);
/// Tokens sampled.
pub const GENERATION_TOKENS: MetricSpec =
    MetricSpec::counter("vllm:generation_tokens_total", "Tokens generated.", MODEL);
/// Ended requests by reason.
pub const REQUEST_SUCCESS: MetricSpec = MetricSpec::counter(
    "vllm:request_success_total",
    "Requests that ended, by why: stop, length, abort or error.",
    &["model_name", "finished_reason"],
);
/// Sequences thrown out of the batch for want of KV blocks.
pub const NUM_PREEMPTIONS: MetricSpec = MetricSpec::counter(
    "vllm:num_preemptions_total",
    "Times a running request lost its KV blocks to another and had to start again.",
    MODEL,
);
/// The denominator of the prefix cache's hit ratio.
pub const PREFIX_CACHE_QUERIES: MetricSpec = MetricSpec::counter(
    "vllm:prefix_cache_queries_total",
    "Prompt tokens looked up in the prefix cache.",
    MODEL,
);
/// The numerator of the prefix cache's hit ratio.
pub const PREFIX_CACHE_HITS: MetricSpec =
    MetricSpec::counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", MODEL);
/// How often guesses were checked.
pub const SPEC_DECODE_DRAFTS: MetricSpec = MetricSpec::counter(
    "vllm:spec_decode_num_drafts_total",
    "Times a request's guessed tokens were checked in a step.",
    MODEL,
);
/// The denominator of the acceptance rate.
pub const SPEC_DECODE_DRAFT_TOKENS: MetricSpec = MetricSpec::counter(
    "vllm:spec_decode_num_draft_tokens_total",
    "Guessed tokens that were checked.",
    MODEL,
);
/// The numerator of the acceptance rate.
pub const SPEC_DECODE_ACCEPTED_TOKENS: MetricSpec = MetricSpec::counter(
    "vllm:spec_decode_num_accepted_tokens_total",
    "Guessed tokens that came true and so took no step of their own.",
    MODEL,
);
/// Arrival to first token.
pub const TIME_TO_FIRST_TOKEN: MetricSpec = MetricSpec::histogram(
    "vllm:time_to_first_token_seconds",
    "Time from a request's arrival at the worker to its first token.",
    MODEL,
    FIRST_TOKEN_SECONDS,
);
/// Gap between tokens.
pub const INTER_TOKEN_LATENCY: MetricSpec = MetricSpec::histogram(
    "vllm:inter_token_latency_seconds",
    "Time between two tokens of one answer.",
    MODEL,
    BETWEEN_TOKENS_SECONDS,
);
/// Arrival to last token.
pub const E2E_REQUEST_LATENCY: MetricSpec = MetricSpec::histogram(
    "vllm:e2e_request_latency_seconds",
    "Time from a request's arrival at the worker to its last token.",
    MODEL,
    REQUEST_SECONDS,
);
/// Arrival to first scheduled.
pub const REQUEST_QUEUE_TIME: MetricSpec = MetricSpec::histogram(
    "vllm:request_queue_time_seconds",
    "Time a request waited for a place in the batch.",
    MODEL,
    REQUEST_SECONDS,
);
/// First scheduled to first token.
pub const REQUEST_PREFILL_TIME: MetricSpec = MetricSpec::histogram(
    "vllm:request_prefill_time_seconds",
    "Time from a request's first step to its first token.",
    MODEL,
    REQUEST_SECONDS,
);
/// First token to last.
pub const REQUEST_DECODE_TIME: MetricSpec = MetricSpec::histogram(
    "vllm:request_decode_time_seconds",
    "Time from a request's first token to its last.",
    MODEL,
    REQUEST_SECONDS,
);
/// Prompt lengths.
pub const REQUEST_PROMPT_TOKENS: MetricSpec = MetricSpec::histogram(
    "vllm:request_prompt_tokens",
    "Tokens of a request's prompt.",
    MODEL,
    REQUEST_TOKENS,
);
/// Answer lengths.
pub const REQUEST_GENERATION_TOKENS: MetricSpec = MetricSpec::histogram(
    "vllm:request_generation_tokens",
    "Tokens of a request's answer.",
    MODEL,
    REQUEST_TOKENS,
);
/// Batch sizes in tokens. A histogram in spite of its name, as in vLLM.
pub const ITERATION_TOKENS: MetricSpec =
    MetricSpec::histogram("vllm:iteration_tokens_total", "Tokens of one engine step.", MODEL, STEP_TOKENS);

/// How late simulated steps end. The first bounds are of the size of a timer's slack.
pub const SIMULATED_STEP_LATENESS: MetricSpec = MetricSpec::histogram(
    "tenk_simulated_step_lateness_seconds",
    "How long after its time a simulated step ended.",
    MODEL,
    &[0.000_05, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0],
);
/// What simulated steps took.
pub const SIMULATED_STEP: MetricSpec = MetricSpec::histogram(
    "tenk_simulated_step_seconds",
    "Time that a simulated step took; its mean should be that of tenk_simulated_step_planned_seconds.",
    MODEL,
    STEP_SECONDS,
);
/// What simulated steps should take.
pub const SIMULATED_STEP_PLANNED: MetricSpec = MetricSpec::histogram(
    "tenk_simulated_step_planned_seconds",
    "Time that a simulated step should take, by the profile and the faults in force.",
    MODEL,
    STEP_SECONDS,
);

/// The worker's part of the catalogue.
pub const ALL: &[&MetricSpec] = &[
    &NUM_REQUESTS_RUNNING,
    &NUM_REQUESTS_WAITING,
    &KV_CACHE_USAGE,
    &LORA_REQUESTS_INFO,
    &CACHE_CONFIG_INFO,
    &PROMPT_TOKENS,
    &GENERATION_TOKENS,
    &REQUEST_SUCCESS,
    &NUM_PREEMPTIONS,
    &PREFIX_CACHE_QUERIES,
    &PREFIX_CACHE_HITS,
    &SPEC_DECODE_DRAFTS,
    &SPEC_DECODE_DRAFT_TOKENS,
    &SPEC_DECODE_ACCEPTED_TOKENS,
    &TIME_TO_FIRST_TOKEN,
    &INTER_TOKEN_LATENCY,
    &E2E_REQUEST_LATENCY,
    &REQUEST_QUEUE_TIME,
    &REQUEST_PREFILL_TIME,
    &REQUEST_DECODE_TIME,
    &REQUEST_PROMPT_TOKENS,
    &REQUEST_GENERATION_TOKENS,
    &ITERATION_TOKENS,
    &SIMULATED_STEP_LATENESS,
    &SIMULATED_STEP,
    &SIMULATED_STEP_PLANNED,
];
