//! `GET /internal/load`: what a worker tells the gateway about itself.

use serde::{Deserialize, Serialize};

use crate::PrefixDigest;

/// A worker's state at one moment. A gateway reads it at each probe; a worker that is not ours has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The served model's name.
    pub model: String,
    /// The model's version: a prefix of its file's SHA-256 until a registry names it.
    pub version: String,
    /// False from the moment it drains, or after its engine failed.
    pub ready: bool,
    /// Requests that wait for a place in the batch.
    pub num_requests_waiting: u32,
    /// Requests in the batch.
    pub num_requests_running: u32,
    /// Share of KV blocks in use by live requests, 0 to 1.
    pub kv_cache_usage: f32,
    /// Places in the batch.
    pub max_num_seqs: u32,
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: u32,
    /// The most recently used prefixes, newest first, bounded by the worker.
    pub hot_prefixes: Vec<PrefixDigest>,
}
