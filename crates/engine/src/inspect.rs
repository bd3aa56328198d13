//! What a model file says of itself, without loading its weights.

use std::path::Path;

use serde::Serialize;

use crate::EngineError;
use crate::chat_template::ChatTemplate;
use crate::model::{Weights, WeightsKind};
use crate::ops::KvDtype;
use crate::tokenizer::Tokenizer;

/// A model's shape and what it costs to hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// The family.
    pub architecture: &'static str,
    /// Numbers in all weights, biases and norms, counted in the file.
    pub parameters: usize,
    /// The type of most of them, in the file.
    pub quantization: String,
    /// Blocks of attention and feed-forward.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The longest context it was trained for, in tokens.
    pub context_len: usize,
    /// Bytes of the weights in a CPU's memory, as integers with a scale of 16 bits for every 32, and for those of 4 bits
    /// a minimum.
    pub weights_bytes: usize,
    /// How many of the parameters are kept in 4 bits there; the others have 8.
    pub num_four_bits: usize,
    /// Bytes of keys and values for 1,000 tokens in f16.
    pub kv_bytes_per_1000_tokens: usize,
    /// The same in int8, scales included.
    pub kv_int8_bytes_per_1000_tokens: usize,
    /// The template that turns messages into text; none means ChatML.
    pub chat_template: Option<String>,
}

/// Reads headers and metadata of a `.gguf` file or a Hugging Face folder.
pub fn inspect(path: &Path) -> Result<Inspection, EngineError> {
    let weights = Weights::open(path)?;
    let config = weights.config()?;
    let parameters = weights.num_parameters(&config);
    let num_four_bits = weights.num_four_bits(&config);
    let num_eight_bits = parameters - num_four_bits;
    let chat_template = match weights.gguf() {
        Some(content) => {
            let tokenizer = Tokenizer::from_gguf(&content.metadata)?;
            ChatTemplate::from_gguf(&content.metadata, &tokenizer)?
        }
        None => ChatTemplate::from_dir(path, &Tokenizer::from_dir(path)?)?,
    };
    Ok(Inspection {
        format: match weights.kind() {
            WeightsKind::Gguf => "gguf",
            WeightsKind::Safetensors => "safetensors",
        },
        architecture: config.architecture.as_str(),
        parameters,
        quantization: weights.quantization(),
        num_layers: config.num_layers,
        hidden_size: config.hidden_size,
        num_heads: config.num_heads,
        num_kv_heads: config.num_kv_heads,
        vocab_size: config.vocab_size,
        context_len: config.context_len,
        weights_bytes: num_eight_bits + num_eight_bits / 32 * 2 + num_four_bits / 2 + num_four_bits / 32 * 4,
        num_four_bits,
        kv_bytes_per_1000_tokens: 1000 * config.kv_bytes_per_token(KvDtype::F16),
        kv_int8_bytes_per_1000_tokens: 1000 * config.kv_bytes_per_token(KvDtype::Int8),
        chat_template: chat_template.source().map(str::to_owned),
    })
}
