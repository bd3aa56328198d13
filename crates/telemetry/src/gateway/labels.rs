//! The closed sets of label values, and the bounds on the open ones.

use serde::{Deserialize, Serialize};

use crate::TelemetryError;

/// How many distinct values a label may have; whatever comes later is counted as `other`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelLimits {
    /// Model versions. Each has some 80 series.
    pub versions_max: usize,
    /// Workers. Each has some 6 series.
    pub workers_max: usize,
    /// Reasons, outcomes and kinds, each label by itself.
    pub values_max: usize,
}

impl Default for LabelLimits {
    fn default() -> Self {
        Self { versions_max: 64, workers_max: 512, values_max: 16 }
    }
}

impl LabelLimits {
    /// Refuses bounds of zero.
    pub fn validate(&self) -> Result<(), TelemetryError> {
        let fields = [
            ("versions_max", self.versions_max),
            ("workers_max", self.workers_max),
            ("values_max", self.values_max),
        ];
        match fields.iter().find(|(_, max)| *max == 0) {
            Some((field, _)) => Err(TelemetryError::Limit { field }),
            None => Ok(()),
        }
    }
}

/// Which endpoint a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `GET /v1/models` and below.
    Models,
    /// `POST /tokenize` and `/detokenize`
    Tokenize,
    /// Everything else.
    Other,
}

impl Endpoint {
    pub(super) const COUNT: usize = 5;

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Models => "models",
            Self::Tokenize => "tokenize",
            Self::Other => "other",
        }
    }
}

/// How a response-cache look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// Answered from this process' memory.
    HitMemory,
    /// Answered from Redis.
    HitRedis,
    /// Not there.
    Miss,
    /// Answered by an equal request that was in flight.
    Coalesced,
    /// The cache was not asked.
    Bypass,
}

impl CacheResult {
    /// In the order of their discriminants.
    pub(super) const ALL: [Self; 5] =
        [Self::HitMemory, Self::HitRedis, Self::Miss, Self::Coalesced, Self::Bypass];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HitMemory => "hit_memory",
            Self::HitRedis => "hit_redis",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Bypass => "bypass",
        }
    }
}

/// The statuses that a gateway sends; 499 stands for a client that went away. The last is for all others.
pub(super) const CODES: [(u16, &str); 16] = [
    (200, "200"),
    (204, "204"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (413, "413"),
    (422, "422"),
    (429, "429"),
    (499, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (0, crate::series::OTHER),
];

/// The place of a status in [`CODES`].
pub(super) fn code_index(code: u16) -> usize {
    CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len() - 1)
}
