//! `GET /v1/models`.

use serde::{Deserialize, Serialize};

/// The list of served models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// One card a model.
    pub data: Vec<ModelCard>,
}

/// One served model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name that requests use.
    pub id: String,
    /// Always `model`.
    #[serde(default)]
    pub object: String,
    /// Seconds since 1970 when the server loaded it.
    #[serde(default)]
    pub created: u64,
    /// Who serves it.
    #[serde(default)]
    pub owned_by: String,
    /// The longest prompt and answer together, in tokens (vLLM's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
}

impl ModelList {
    /// Wraps the cards.
    pub fn new(data: Vec<ModelCard>) -> Self {
        Self { object: "list".into(), data }
    }
}

impl ModelCard {
    /// A card for a model that this server holds.
    pub fn new(id: impl Into<String>, created: u64, max_model_len: Option<u32>) -> Self {
        Self { id: id.into(), object: "model".into(), created, owned_by: "tenk".into(), max_model_len }
    }
}
