//! What a gateway tells its controller each second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Evidence;

/// One gateway's word: what it routes by, what it saw, and who could answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// A name of this process; a gateway that was started anew has another.
    pub gateway: String,
    /// Epoch and generation of the route table that it has; zeros where it has none.
    pub routes_by: (u64, u64),
    /// Whether every worker was heard of, so that a version without workers has none.
    pub complete: bool,
    /// Whether some worker has never said what it serves: a version that is missing may be that one's.
    pub any_unidentified: bool,
    /// Requests for answers since it started.
    pub requests: u64,
    /// Those of them that the response cache answered.
    pub cache_hits: u64,
    /// By model.
    pub models: BTreeMap<String, ModelReport>,
}

/// A gateway's word about one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelReport {
    /// Its versions' workers.
    pub versions: BTreeMap<String, VersionLoad>,
    /// What was seen since the step at hand began.
    pub evidence: Option<Evidence>,
    /// Bodies of sampled requests, where they were asked for.
    pub prompts: Vec<String>,
}

/// The workers of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionLoad {
    /// All that are known.
    pub workers: u32,
    /// Those that take requests.
    pub workers_up: u32,
    /// Requests that those can compute at the same time; 0 where they do not say.
    pub places: u32,
    /// This gateway's requests that are with them.
    pub in_flight: u32,
}
