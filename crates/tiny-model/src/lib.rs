//! Writes a tiny model with random weights, for tests that need a model but no language.
//!
//! [`write()`] makes a complete GGUF: a llama of two layers, a tokenizer with one token a byte, a chat template. It
//! loads in milliseconds and answers nonsense, the same nonsense on every machine. [`Checkpoint`] makes any of the
//! families, as a Hugging Face folder or as a GGUF file of the same weights. Only tests use it.

mod checkpoint;

pub use checkpoint::{Checkpoint, Family};

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result, Tensor};

/// The special tokens after the 256 bytes: end of text, start and end of a turn.
pub const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// The model's shape. The defaults are the smallest that still have grouped heads and several blocks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Picks the weights.
    pub seed: u64,
    /// Layers.
    pub num_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Longest context.
    pub context_len: usize,
    /// How weights are stored.
    pub dtype: GgmlDType,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 1,
            num_layers: 2,
            hidden_size: 64,
            num_heads: 4,
            num_kv_heads: 2,
            context_len: 1024,
            dtype: GgmlDType::F32,
        }
    }
}

/// Writes the model to `path`.
pub fn write(path: &Path, shape: &Shape) -> Result<()> {
    let mut random = Random(shape.seed);
    let (hidden, inner) = (shape.hidden_size, shape.hidden_size * 2);
    let kv = hidden / shape.num_heads * shape.num_kv_heads;
    let vocab = 256 + SPECIALS.len();
    let mut tensors = Vec::new();
    let mut matrix = |name: String, rows: usize, columns: usize| -> Result<()> {
        let values: Vec<f32> =
            (0..rows * columns).map(|_| random.next() * (columns as f32).powf(-0.5)).collect();
        let tensor = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
        tensors.push((name, QTensor::quantize(&tensor, shape.dtype)?));
        Ok(())
    };
    matrix("token_embd.weight".into(), vocab, hidden)?;
    for layer in 0..shape.num_layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        matrix(name("attn_q"), hidden, hidden)?;
        matrix(name("attn_k"), kv, hidden)?;
        matrix(name("attn_v"), kv, hidden)?;
        matrix(name("attn_output"), hidden, hidden)?;
        matrix(name("ffn_gate"), inner, hidden)?;
        matrix(name("ffn_up"), inner, hidden)?;
        matrix(name("ffn_down"), hidden, inner)?;
    }
    let ones = Tensor::ones(hidden, candle_core::DType::F32, &Device::Cpu)?;
    let mut norm = |name: String| -> Result<()> {
        tensors.push((name, QTensor::quantize(&ones, GgmlDType::F32)?));
        Ok(())
    };
    norm("output_norm.weight".into())?;
    for layer in 0..shape.num_layers {
        norm(format!("blk.{layer}.attn_norm.weight"))?;
        norm(format!("blk.{layer}.ffn_norm.weight"))?;
    }
    let metadata = metadata(shape, inner);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut BufWriter::new(File::create(path)?), &metadata, &tensors)
}

fn metadata(shape: &Shape, inner: usize) -> Vec<(&'static str, Value)> {
    let number = |value: usize| Value::U32(value as u32);
    let mut metadata = vec![
        ("general.architecture", Value::String("llama".into())),
        ("general.name", Value::String("tiny".into())),
        ("llama.block_count", number(shape.num_layers)),
        ("llama.embedding_length", number(shape.hidden_size)),
        ("llama.feed_forward_length", number(inner)),
        ("llama.context_length", number(shape.context_len)),
        ("llama.attention.head_count", number(shape.num_heads)),
        ("llama.attention.head_count_kv", number(shape.num_kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.dimension_count", number(shape.hidden_size / shape.num_heads)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
    ];
    metadata.extend(tokenizer_metadata());
    metadata
}

/// One token a byte, then the specials.
fn tokens() -> Vec<String> {
    byte_characters().into_iter().map(String::from).chain(SPECIALS.map(String::from)).collect()
}

fn tokenizer_metadata() -> Vec<(&'static str, Value)> {
    let number = |value: usize| Value::U32(value as u32);
    let strings = |values: Vec<String>| Value::Array(values.into_iter().map(Value::String).collect());
    let types = (0..256).map(|_| 1).chain(SPECIALS.map(|_| 3)).map(Value::I32).collect();
    vec![
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("smollm".into())),
        ("tokenizer.ggml.tokens", strings(tokens())),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.merges", strings(Vec::new())),
        ("tokenizer.ggml.bos_token_id", number(257)),
        ("tokenizer.ggml.eos_token_id", number(258)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", Value::String(TEMPLATE.into())),
    ]
}

const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + \
    message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// GPT-2's printable stand-ins for the 256 bytes.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    (0..256_u32)
        .map(|byte| {
            let code = if printable(byte) { byte } else { next };
            next += u32::from(!printable(byte));
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        })
        .collect()
}

/// SplitMix64, as numbers of mean 0 and variance 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((bits ^ (bits >> 31)) >> 40) as f32 / (1 << 24) as f32;
        (unit - 0.5) * 12.0_f32.sqrt()
    }
}
