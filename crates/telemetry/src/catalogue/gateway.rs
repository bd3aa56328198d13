//! What a gateway says about traffic, its queue, its workers and its response cache.

use super::MetricSpec;

const VERSION: &[&str] = &["model", "version"];

const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
    300.0,
];
/// The worker's own list, so that the two can be laid over each other.
const FIRST_TOKEN_SECONDS: &[f64] = super::worker::TIME_TO_FIRST_TOKEN.buckets;
/// Finer than vLLM's below 10 ms, where small models and simulated GPUs answer.
const BETWEEN_TOKENS_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.3, 0.5, 1.0, 2.5, 5.0, 10.0,
];
const OWN_SECONDS: &[f64] = &[
    0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
const QUEUE_WAIT_SECONDS: &[f64] =
    &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Answered requests.
pub const REQUESTS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_requests_total",
    "Requests answered, by model version, endpoint and HTTP status.",
    &["model", "version", "endpoint", "code"],
);
/// Requests being answered.
pub const REQUESTS_IN_FLIGHT: MetricSpec =
    MetricSpec::gauge("tenk_gateway_requests_in_flight", "Requests being answered, streams included.", &[]);
/// Arrival to last byte.
pub const REQUEST_DURATION: MetricSpec = MetricSpec::histogram(
    "tenk_gateway_request_duration_seconds",
    "Time from a request's arrival to the last byte of its answer.",
    VERSION,
    REQUEST_SECONDS,
);
/// Arrival to first token.
pub const TIME_TO_FIRST_TOKEN: MetricSpec = MetricSpec::histogram(
    "tenk_gateway_time_to_first_token_seconds",
    "Time from a request's arrival to the first token of its answer.",
    VERSION,
    FIRST_TOKEN_SECONDS,
);
/// Gap between tokens.
pub const INTER_TOKEN_LATENCY: MetricSpec = MetricSpec::histogram(
    "tenk_gateway_inter_token_latency_seconds",
    "Time between two tokens of one streamed answer.",
    VERSION,
    BETWEEN_TOKENS_SECONDS,
);
/// The gateway's own share of the time.
pub const OWN: MetricSpec = MetricSpec::histogram(
    "tenk_gateway_own_seconds",
    "The gateway's own time a request: its span less its wait for the worker.",
    &[],
    OWN_SECONDS,
);
/// Tokens in and out.
pub const TOKENS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_tokens_total",
    "Tokens of answered requests; kind is prompt or completion.",
    &["model", "version", "kind"],
);
/// Waiting requests.
pub const QUEUE_DEPTH: MetricSpec =
    MetricSpec::gauge("tenk_gateway_queue_depth", "Requests that wait for a worker.", &[]);
/// How long they waited.
pub const QUEUE_WAIT: MetricSpec = MetricSpec::histogram(
    "tenk_gateway_queue_wait_seconds",
    "Time a request waited for a worker.",
    &[],
    QUEUE_WAIT_SECONDS,
);
/// Requests turned away before any work.
pub const REJECTED: MetricSpec = MetricSpec::counter(
    "tenk_gateway_rejected_total",
    "Requests turned away before any work, by why.",
    &["reason"],
);
/// Second attempts.
pub const RETRIES: MetricSpec = MetricSpec::counter(
    "tenk_gateway_retries_total",
    "Requests sent again to another worker, by why.",
    &["reason"],
);
/// Requests that met a closed connection.
pub const RESENDS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_resends_total",
    "Requests sent again because a kept connection had been closed, not for a fault of the worker.",
    &[],
);
/// Attempts by worker.
pub const WORKER_REQUESTS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_worker_requests_total",
    "Requests sent to a worker, by outcome.",
    &["worker", "outcome"],
);
/// Load by worker.
pub const WORKER_IN_FLIGHT: MetricSpec = MetricSpec::gauge(
    "tenk_gateway_worker_in_flight",
    "Requests of this gateway that a worker is answering.",
    &["worker"],
);
/// Health by worker.
pub const WORKER_HEALTHY: MetricSpec = MetricSpec::gauge(
    "tenk_gateway_worker_healthy",
    "1 while a worker may be given requests, else 0.",
    &["worker"],
);
/// The denominator of routing's prefix hit ratio.
pub const PREFIX_BLOCKS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_prefix_blocks_total",
    "Prefix blocks of routed prompts, whether a worker knew them or not.",
    &[],
);
/// The numerator of routing's prefix hit ratio.
pub const PREFIX_MATCHED_BLOCKS: MetricSpec = MetricSpec::counter(
    "tenk_gateway_prefix_matched_blocks_total",
    "Prefix blocks of routed prompts that the chosen worker is thought to hold.",
    &[],
);
/// Look-ups by result.
pub const CACHE_REQUESTS: MetricSpec = MetricSpec::counter(
    "tenk_response_cache_requests_total",
    "Response-cache look-ups; result is hit_memory, hit_redis, miss, coalesced or bypass.",
    &["result"],
);
/// Failures by kind; each counts as a miss for the client.
pub const CACHE_ERRORS: MetricSpec = MetricSpec::counter(
    "tenk_response_cache_errors_total",
    "Response-cache failures, by kind; the request went on without the cache.",
    &["kind"],
);
/// Answers held.
pub const CACHE_ENTRIES: MetricSpec =
    MetricSpec::gauge("tenk_response_cache_entries", "Answers in the in-process tier.", &[]);
/// Memory held.
pub const CACHE_BYTES: MetricSpec =
    MetricSpec::gauge("tenk_response_cache_bytes", "Bytes held by the in-process tier.", &[]);

/// Whether rollouts are heard of.
pub const CONTROLLER_UP: MetricSpec = MetricSpec::gauge(
    "tenk_gateway_controller_up",
    "1 while the controller answers, else 0; without it the last route table stays.",
    &[],
);

/// The gateway's part of the catalogue.
pub const ALL: &[&MetricSpec] = &[
    &REQUESTS,
    &REQUESTS_IN_FLIGHT,
    &REQUEST_DURATION,
    &TIME_TO_FIRST_TOKEN,
    &INTER_TOKEN_LATENCY,
    &OWN,
    &TOKENS,
    &QUEUE_DEPTH,
    &QUEUE_WAIT,
    &REJECTED,
    &CONTROLLER_UP,
    &RETRIES,
    &RESENDS,
    &WORKER_REQUESTS,
    &WORKER_IN_FLIGHT,
    &WORKER_HEALTHY,
    &PREFIX_BLOCKS,
    &PREFIX_MATCHED_BLOCKS,
    &CACHE_REQUESTS,
    &CACHE_ERRORS,
    &CACHE_ENTRIES,
    &CACHE_BYTES,
];
