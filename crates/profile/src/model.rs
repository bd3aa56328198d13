//! The two things that a step's time follows from: what a device can do at best, and what a model asks of it.

use serde::{Deserialize, Serialize};

use crate::StepShape;

/// One or more equal devices that hold a model together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// How many share the model.
    pub count: u32,
    /// One device's dense peak in the type that the model is computed in, 10¹² operations a second.
    pub peak_tflops: f64,
    /// One device's peak memory bandwidth, 10⁹ bytes a second.
    pub peak_gb_s: f64,
    /// Where the peaks are from.
    pub source: String,
}

/// A decoder-only transformer's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name and number type.
    pub name: String,
    /// Weights that each token is multiplied with.
    pub body_parameters: u64,
    /// Weights of the output layer, which only a sequence's last token of a step needs.
    pub head_parameters: u64,
    /// Weights read in a step, bytes; the embedding is only looked up and does not count.
    pub weight_bytes: u64,
    /// Blocks of attention and feed-forward.
    pub num_layers: u32,
    /// Query heads.
    pub num_heads: u32,
    /// Key and value heads.
    pub num_kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Bytes of one number in the KV-cache, scales left out.
    pub kv_value_bytes: u32,
}

impl Model {
    /// Keys and values of one token, bytes.
    pub fn kv_bytes_per_token(&self) -> u64 {
        2 * self.product(self.num_kv_heads) * u64::from(self.kv_value_bytes)
    }

    /// Arithmetic of a step, operations: two a weight and token; four a layer, head, dimension and attended pair (a
    /// product with the key, another with the value).
    pub fn operations(&self, shape: &StepShape) -> f64 {
        let body = 2.0 * self.body_parameters as f64 * shape.num_tokens as f64;
        let head = 2.0 * self.head_parameters as f64 * shape.num_sequences as f64;
        let attention = 4.0 * self.product(self.num_heads) as f64 * shape.attention_pairs as f64;
        body + head + attention
    }

    /// Memory traffic of a step, bytes: all weights once, keys and values of the contexts read, those of the new
    /// tokens written.
    pub fn traffic_bytes(&self, shape: &StepShape) -> f64 {
        let kv_tokens = shape.kv_tokens_read + shape.num_tokens;
        self.weight_bytes as f64 + self.kv_bytes_per_token() as f64 * kv_tokens as f64
    }

    fn product(&self, num_heads: u32) -> u64 {
        u64::from(self.num_layers) * u64::from(num_heads) * u64::from(self.head_dim)
    }
}
