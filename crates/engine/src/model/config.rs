//! A model's shape, from GGUF metadata or from `config.json`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EngineError;
use crate::ops::KvDtype;
use crate::sampling::VOCAB_SIZE_MAX;

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
    /// Whether the output layer is the embedding; `None` where the metadata leaves that to the tensors.
    pub tied_embeddings: Option<bool>,
}

impl ModelConfig {
    /// From a GGUF file's metadata. The vocabulary's size is that of the token list.
    pub fn from_gguf(metadata: &HashMap<String, GgufValue>) -> Result<Self, EngineError> {
        let text = |key: &str| metadata.get(key).and_then(|value| value.to_string().ok());
        let name = text("general.architecture").ok_or_else(|| missing("general.architecture"))?;
        let architecture = Architecture::parse(name)?;
        let fields = GgufFields { metadata, architecture: name };
        let num_heads = fields.required("attention.head_count")?;
        let hidden_size = fields.required("embedding_length")?;
        let head_dim = fields.count("attention.key_length")?.unwrap_or(hidden_size / num_heads.max(1));
        for key in ["attention.value_length", "rope.dimension_count"] {
            if let Some(found) = fields.count(key)?.filter(|found| *found != head_dim) {
                let reason = format!(
                    "`{name}.{key}` is {found}, but only the width of a head, {head_dim}, is implemented"
                );
                return Err(EngineError::Config(reason));
            }
        }
        if fields.count("expert_count")?.unwrap_or(0) > 0 {
            return Err(EngineError::Config("mixtures of experts are not implemented".into()));
        }
        let tokens = metadata.get("tokenizer.ggml.tokens").and_then(|tokens| tokens.to_vec().ok());
        let vocab_size = match tokens {
            Some(tokens) => tokens.len(),
            None => fields.count("vocab_size")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?,
        };
        let rope_scaling = match text(&fields.key("rope.scaling.type")).map(String::as_str) {
            None | Some("none") => None,
            Some("linear") => {
                let factor = fields.float("rope.scaling.factor")?;
                let factor = factor.ok_or_else(|| missing(&fields.key("rope.scaling.factor")))?;
                Some(RopeScaling::Linear { factor })
            }
            Some(other) => return Err(unknown_scaling(other)),
        };
        let context_len = fields.required("context_length")?;
        let window = fields.count("attention.sliding_window")?.filter(|window| *window > 0);
        Self {
            architecture,
            num_layers: fields.required("block_count")?,
            hidden_size,
            intermediate_size: fields.required("feed_forward_length")?,
            num_heads,
            num_kv_heads: fields.count("attention.head_count_kv")?.unwrap_or(num_heads),
            head_dim,
            vocab_size,
            context_len: window.map_or(context_len, |window| window.min(context_len)),
            rope_theta: fields.float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling,
            rms_norm_eps: fields.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5),
            tied_embeddings: None,
        }
        .checked()
    }

    /// From a Hugging Face `config.json`.
    pub fn from_json(config: &Value) -> Result<Self, EngineError> {
        let name = config["model_type"].as_str().ok_or_else(|| missing("model_type"))?;
        let architecture = Architecture::parse(name)?;
        let required = |key: &str| count_of(config, key)?.ok_or_else(|| missing(key));
        let num_heads = required("num_attention_heads")?;
        let hidden_size = required("hidden_size")?;
        if config["use_sliding_window"] == true {
            return Err(EngineError::Config("sliding-window attention is not implemented".into()));
        }
        if config["quantization_config"].is_object() {
            let reason =
                "quantized safetensors are not implemented; give a .gguf file or the original folder";
            return Err(EngineError::Config(reason.into()));
        }
        if let Some(other) = config["hidden_act"].as_str().filter(|name| !["silu", "swish"].contains(name)) {
            let other: String = other.chars().take(64).collect();
            return Err(EngineError::Config(format!(
                "the activation `{other}` is not implemented; `silu` is"
            )));
        }
        let context_len = required("max_position_embeddings")?;
        // Mistral's first releases attend to a window only; within it there is no difference.
        let window = match architecture {
            Architecture::Mistral => count_of(config, "sliding_window")?,
            _ => None,
        };
        let rope_theta = match float_of(config, "rope_theta")? {
            None => float_of(&config["rope_parameters"], "rope_theta")?,
            given => given,
        };
        Self {
            architecture,
            num_layers: required("num_hidden_layers")?,
            hidden_size,
            intermediate_size: required("intermediate_size")?,
            num_heads,
            num_kv_heads: count_of(config, "num_key_value_heads")?.unwrap_or(num_heads),
            head_dim: count_of(config, "head_dim")?.unwrap_or(hidden_size / num_heads.max(1)),
            vocab_size: required("vocab_size")?,
            context_len: window.map_or(context_len, |window| window.min(context_len)),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            rope_scaling: rope_scaling_of(config)?,
            rms_norm_eps: float_of(config, "rms_norm_eps")?.unwrap_or(1e-6),
            tied_embeddings: config["tie_word_embeddings"].as_bool(),
        }
        .checked()
    }

    /// Bytes of keys and values for one token.
    pub fn kv_bytes_per_token(&self, dtype: KvDtype) -> usize {
        2 * self.num_layers * self.num_kv_heads * dtype.head_bytes(self.head_dim)
    }

    /// A hostile or broken file must fail here, not in an allocation or a division.
    fn checked(self) -> Result<Self, EngineError> {
        let within = |what: &str, value: usize, range: RangeInclusive<usize>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (least, most) = range.into_inner();
            Err(EngineError::Config(format!("the model has {value} {what}, but must have {least} to {most}")))
        };
        within("layers", self.num_layers, 1..=1024)?;
        within("numbers in its hidden state", self.hidden_size, 1..=1 << 17)?;
        within("numbers in its feed-forward", self.intermediate_size, 1..=1 << 20)?;
        within("heads", self.num_heads, 1..=1024)?;
        within("key and value heads", self.num_kv_heads, 1..=self.num_heads)?;
        within("numbers in a head", self.head_dim, 2..=1024)?;
        within("tokens in its vocabulary", self.vocab_size, 1..=VOCAB_SIZE_MAX)?;
        within("tokens of context", self.context_len, 1..=1 << 24)?;
        let demand = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(EngineError::Config(format!("{what}, in {self:?}"))) }
        };
        demand(
            self.num_heads.is_multiple_of(self.num_kv_heads),
            "the heads are no multiple of the key and value heads",
        )?;
        demand(self.head_dim.is_multiple_of(2), "the width of a head is odd")?;
        demand(self.rope_theta.is_finite() && self.rope_theta > 1.0, "the rotary base is not above 1")?;
        demand((0.0..1.0).contains(&self.rms_norm_eps), "the norm's epsilon is not between 0 and 1")?;
        demand(self.rope_scaling.is_none_or(RopeScaling::is_sound), "the rope scaling makes no sense")?;
        Ok(self)
    }
}

impl RopeScaling {
    fn is_sound(self) -> bool {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        match self {
            Self::Linear { factor } => positive(factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => {
                [factor, low_freq_factor, high_freq_factor, original_context_len].into_iter().all(positive)
                    && high_freq_factor > low_freq_factor
            }
        }
    }
}

fn rope_scaling_of(config: &Value) -> Result<Option<RopeScaling>, EngineError> {
    let scaling =
        [&config["rope_scaling"], &config["rope_parameters"]].into_iter().find(|value| value.is_object());
    let Some(scaling) = scaling else { return Ok(None) };
    let float = |key: &str| float_of(scaling, key)?.ok_or_else(|| missing(key));
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: float("factor")? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: float("factor")?,
            low_freq_factor: float("low_freq_factor")?,
            high_freq_factor: float("high_freq_factor")?,
            original_context_len: float("original_max_position_embeddings")?,
        })),
        other => Err(unknown_scaling(other)),
    }
}

/// The keys under an architecture's name.
struct GgufFields<'m> {
    metadata: &'m HashMap<String, GgufValue>,
    architecture: &'m str,
}

impl GgufFields<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn required(&self, key: &str) -> Result<usize, EngineError> {
        self.count(key)?.ok_or_else(|| missing(&self.key(key)))
    }

    /// Writers use any width of integer.
    fn count(&self, key: &str) -> Result<Option<usize>, EngineError> {
        let key = self.key(key);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let signed = match value {
            GgufValue::I8(value) => Some(i64::from(*value)),
            GgufValue::I16(value) => Some(i64::from(*value)),
            GgufValue::I32(value) => Some(i64::from(*value)),
            GgufValue::I64(value) => Some(*value),
            _ => None,
        };
        let unsigned = match value {
            GgufValue::Bool(_) => None,
            value => value.to_u64().ok().or_else(|| u64::try_from(signed?).ok()),
        };
        let count = unsigned.and_then(|value| usize::try_from(value).ok());
        count.map(Some).ok_or_else(|| malformed(&key, &format!("{value:?}"), "a whole number"))
    }

    fn float(&self, key: &str) -> Result<Option<f64>, EngineError> {
        let key = self.key(key);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let number = value.to_f32().map(f64::from).or_else(|_| value.to_f64());
        number.map(Some).map_err(|_| malformed(&key, &format!("{value:?}"), "a number"))
    }
}

fn count_of(config: &Value, key: &str) -> Result<Option<usize>, EngineError> {
    let value = &config[key];
    let count = value.as_u64().and_then(|value| usize::try_from(value).ok());
    if value.is_null() {
        return Ok(None);
    }
    count.map(Some).ok_or_else(|| malformed(key, &value.to_string(), "a whole number"))
}

fn float_of(config: &Value, key: &str) -> Result<Option<f64>, EngineError> {
    let value = &config[key];
    if value.is_null() {
        return Ok(None);
    }
    value.as_f64().map(Some).ok_or_else(|| malformed(key, &value.to_string(), "a number"))
}

fn missing(key: &str) -> EngineError {
    EngineError::Config(format!("the model's metadata has no `{key}`"))
}

fn malformed(key: &str, found: &str, expected: &str) -> EngineError {
    let found: String = found.chars().take(64).collect();
    EngineError::Config(format!("the model's `{key}` is {found}, but must be {expected}"))
}

fn unknown_scaling(name: &str) -> EngineError {
    let name: String = name.chars().take(64).collect();
    EngineError::Config(format!("the rope scaling `{name}` is not implemented; `linear` and `llama3` are"))
}

#[cfg(test)]
mod tests;
