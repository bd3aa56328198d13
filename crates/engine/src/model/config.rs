//! A model's shape, from GGUF metadata or from `config.json`.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EngineError;

/// The families that [`crate::model::Transformer`] computes. They differ in biases and norms, not in structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM, TinyLlama and the many of their form.
    Llama,
    /// Llama's form with a sliding window in its first releases.
    Mistral,
    /// Biases on query, key and value.
    Qwen2,
    /// Norms on each query and key head.
    Qwen3,
}

impl Architecture {
    /// The names in metadata.
    pub const NAMES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

    /// From GGUF's `general.architecture` or `config.json`'s `model_type`.
    pub fn parse(name: &str) -> Result<Self, EngineError> {
        match name {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            _ => Err(EngineError::UnknownArchitecture { found: name.chars().take(64).collect() }),
        }
    }

    /// The name in metadata.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// How rotary frequencies are stretched for contexts longer than the model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions are divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by a factor, high ones kept, those between blended.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Where low frequencies begin, in rotations over the original context.
        low_freq_factor: f64,
        /// Where high frequencies begin.
        high_freq_factor: f64,
        /// The context of the first training.
        original_context_len: f64,
    },
}

/// Everything about a model's shape that the forward pass needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Blocks of attention and feed-forward.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward.
    pub intermediate_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; a divisor of `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The longest context the model was trained for.
    pub context_len: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Their stretching.
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square before its root is taken.
    pub rms_norm_eps: f64,
}

impl ModelConfig {
    /// From a GGUF file's metadata. The vocabulary's size is that of the token list.
    pub fn from_gguf(metadata: &HashMap<String, GgufValue>) -> Result<Self, EngineError> {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_string().ok());
        let name = text("general.architecture").ok_or_else(|| missing("general.architecture"))?;
        let architecture = Architecture::parse(name)?;
        let get = |key: &str| metadata.get(&format!("{name}.{key}"));
        let count = |key: &str| get(key).and_then(unsigned);
        let float = |key: &str| get(key).and_then(|value| value.to_f32().ok()).map(f64::from);
        let required = |key: &'static str| count(key).ok_or_else(|| missing(key));
        let num_heads = required("attention.head_count")?;
        let hidden_size = required("embedding_length")?;
        let vocab_size = metadata
            .get("tokenizer.ggml.tokens")
            .and_then(|tokens| tokens.to_vec().ok())
            .map(Vec::len)
            .or_else(|| count("vocab_size"))
            .ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let rope_scaling = match get("rope.scaling.type")
            .and_then(|kind| kind.to_string().ok())
            .map(String::as_str)
        {
            None | Some("none") => None,
            Some("linear") => float("rope.scaling.factor").map(|factor| RopeScaling::Linear { factor }),
            Some(other) => {
                return Err(EngineError::Config(format!("the rope scaling `{other}` is not implemented")));
            }
        };
        Self {
            architecture,
            num_layers: required("block_count")?,
            hidden_size,
            intermediate_size: required("feed_forward_length")?,
            num_heads,
            num_kv_heads: count("attention.head_count_kv").unwrap_or(num_heads),
            head_dim: count("attention.key_length").unwrap_or(hidden_size / num_heads.max(1)),
            vocab_size,
            context_len: required("context_length")?,
            rope_theta: float("rope.freq_base").unwrap_or(10_000.0),
            rope_scaling,
            rms_norm_eps: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        }
        .checked()
    }

    /// From a Hugging Face `config.json`.
    pub fn from_json(config: &Value) -> Result<Self, EngineError> {
        let name = config["model_type"].as_str().ok_or_else(|| missing("model_type"))?;
        let architecture = Architecture::parse(name)?;
        let count = |key: &str| config[key].as_u64().and_then(|value| usize::try_from(value).ok());
        let required = |key: &'static str| count(key).ok_or_else(|| missing(key));
        let num_heads = required("num_attention_heads")?;
        let hidden_size = required("hidden_size")?;
        if config["use_sliding_window"] == true {
            return Err(EngineError::Config("sliding-window attention is not implemented".into()));
        }
        let context_len = required("max_position_embeddings")?;
        // Mistral's first releases attend to a window only; within it there is no difference.
        let window = count("sliding_window").filter(|_| architecture == Architecture::Mistral);
        Self {
            architecture,
            num_layers: required("num_hidden_layers")?,
            hidden_size,
            intermediate_size: required("intermediate_size")?,
            num_heads,
            num_kv_heads: count("num_key_value_heads").unwrap_or(num_heads),
            head_dim: count("head_dim").unwrap_or(hidden_size / num_heads.max(1)),
            vocab_size: required("vocab_size")?,
            context_len: window.map_or(context_len, |window| window.min(context_len)),
            rope_theta: config["rope_theta"]
                .as_f64()
                .or(config["rope_parameters"]["rope_theta"].as_f64())
                .unwrap_or(10_000.0),
            rope_scaling: rope_scaling_of(config)?,
            rms_norm_eps: config["rms_norm_eps"].as_f64().unwrap_or(1e-6),
        }
        .checked()
    }

    /// Bytes of keys and values for one token, at `element_bytes` a number.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim * element_bytes
    }

    /// Numbers in all weights, from the shape; the output layer counted only if it is not the embedding.
    pub fn num_parameters(&self, tied_embeddings: bool) -> usize {
        let attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads);
        let feed_forward = 3 * self.hidden_size * self.intermediate_size;
        let embeddings = self.vocab_size * self.hidden_size * if tied_embeddings { 1 } else { 2 };
        self.num_layers * (attention + feed_forward + 2 * self.hidden_size) + embeddings + self.hidden_size
    }

    /// A hostile or broken file must fail here, not in an allocation or a division.
    fn checked(self) -> Result<Self, EngineError> {
        let sound = (1..=1024).contains(&self.num_layers)
            && (1..=1 << 17).contains(&self.hidden_size)
            && (1..=1 << 20).contains(&self.intermediate_size)
            && (1..=1024).contains(&self.num_heads)
            && (1..=self.num_heads).contains(&self.num_kv_heads)
            && self.num_heads.is_multiple_of(self.num_kv_heads)
            && (2..=1024).contains(&self.head_dim)
            && self.head_dim.is_multiple_of(2)
            && (1..=1 << 22).contains(&self.vocab_size)
            && (1..=1 << 24).contains(&self.context_len)
            && self.rope_theta > 1.0
            && self.rms_norm_eps >= 0.0;
        if sound {
            Ok(self)
        } else {
            Err(EngineError::Config(format!("the model's shape makes no sense: {self:?}")))
        }
    }
}

fn rope_scaling_of(config: &Value) -> Result<Option<RopeScaling>, EngineError> {
    let scaling =
        [&config["rope_scaling"], &config["rope_parameters"]].into_iter().find(|value| value.is_object());
    let Some(scaling) = scaling else { return Ok(None) };
    let float = |key: &'static str| scaling[key].as_f64().ok_or_else(|| missing(key));
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: float("factor")? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: float("factor")?,
            low_freq_factor: float("low_freq_factor")?,
            high_freq_factor: float("high_freq_factor")?,
            original_context_len: float("original_max_position_embeddings")?,
        })),
        other => Err(EngineError::Config(format!("the rope scaling `{other}` is not implemented"))),
    }
}

/// GGUF writers use any width of integer.
fn unsigned(value: &GgufValue) -> Option<usize> {
    value
        .to_u64()
        .ok()
        .or_else(|| value.to_u32().ok().map(u64::from))
        .or_else(|| value.to_i32().ok().and_then(|value| u64::try_from(value).ok()))
        .and_then(|value| usize::try_from(value).ok())
}

fn missing(key: &str) -> EngineError {
    EngineError::Config(format!("the model's metadata has no `{key}`"))
}
