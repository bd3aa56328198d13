//! Random weights of any family, under Hugging Face's names, written as a folder or as GGUF.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value as GgufValue};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Result, Tensor};
use serde_json::{Value, json};

use crate::{Random, SPECIALS, TEMPLATE, tokenizer_metadata, tokens};

/// What to make. The defaults are a llama with grouped heads.
#[derive(Clone, Debug)]
pub struct Family {
    /// `llama`, `mistral`, `qwen2` or `qwen3`.
    pub architecture: &'static str,
    /// Picks the weights.
    pub seed: u64,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head; need not be the residual stream's share.
    pub head_dim: usize,
    /// Whether the output layer is the embedding.
    pub tied: bool,
    /// Whether the attention's four matrices have biases, beyond what the family always has.
    pub attention_bias: bool,
}

impl Default for Family {
    fn default() -> Self {
        Self {
            architecture: "llama",
            seed: 1,
            hidden_size: 64,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            tied: false,
            attention_bias: false,
        }
    }
}

/// A model in memory, for tests to write, compare with and break.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// `config.json`.
    pub config: Value,
    /// Tensors in f32.
    pub tensors: BTreeMap<String, Tensor>,
}

const NUM_LAYERS: usize = 2;

impl Checkpoint {
    /// Random weights; norms and biases too, so that one in the wrong place shows.
    pub fn random(family: &Family) -> Result<Self> {
        let &Family { hidden_size: hidden, num_heads, num_kv_heads, head_dim, .. } = family;
        let mut random = Random(family.seed);
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize], mean: f32, deviation: f32| -> Result<()> {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| mean + deviation * random.next()).collect();
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
            Ok(())
        };
        let deviation = |columns: usize| (columns as f32).powf(-0.5);
        let vocab = tokens().len();
        add("model.embed_tokens.weight".into(), &[vocab, hidden], 0.0, deviation(hidden))?;
        if !family.tied {
            add("lm_head.weight".into(), &[vocab, hidden], 0.0, deviation(hidden))?;
        }
        add("model.norm.weight".into(), &[hidden], 1.0, 0.2)?;
        let (query, kv, inner) = (num_heads * head_dim, num_kv_heads * head_dim, 2 * hidden);
        let qkv_bias = family.attention_bias || family.architecture == "qwen2";
        for layer in 0..NUM_LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            for (part, rows, columns, bias) in [
                ("self_attn.q_proj", query, hidden, qkv_bias),
                ("self_attn.k_proj", kv, hidden, qkv_bias),
                ("self_attn.v_proj", kv, hidden, qkv_bias),
                ("self_attn.o_proj", hidden, query, family.attention_bias),
                ("mlp.gate_proj", inner, hidden, false),
                ("mlp.up_proj", inner, hidden, false),
                ("mlp.down_proj", hidden, inner, false),
            ] {
                add(format!("{}.weight", name(part)), &[rows, columns], 0.0, deviation(columns))?;
                if bias {
                    add(format!("{}.bias", name(part)), &[rows], 0.0, 0.3)?;
                }
            }
            add(name("input_layernorm.weight"), &[hidden], 1.0, 0.2)?;
            add(name("post_attention_layernorm.weight"), &[hidden], 1.0, 0.2)?;
            if family.architecture == "qwen3" {
                add(name("self_attn.q_norm.weight"), &[head_dim], 1.0, 0.2)?;
                add(name("self_attn.k_norm.weight"), &[head_dim], 1.0, 0.2)?;
            }
        }
        Ok(Self { config: config(family, vocab), tensors })
    }

    /// Numbers in all tensors.
    pub fn num_parameters(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }

    /// Writes a Hugging Face folder with the weights in `dtype`, in one file or in several with their index.
    pub fn write_folder(&self, folder: &Path, dtype: DType, num_files: usize) -> Result<()> {
        let per_file = self.tensors.len().div_ceil(num_files);
        let tensors: Vec<(&String, &Tensor)> = self.tensors.iter().collect();
        let mut weight_map = HashMap::new();
        for (index, part) in tensors.chunks(per_file).enumerate() {
            let file = match num_files {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{num_files:05}.safetensors", index + 1),
            };
            let part: HashMap<String, Tensor> = part
                .iter()
                .map(|(name, tensor)| Ok(((*name).clone(), tensor.to_dtype(dtype)?)))
                .collect::<Result<_>>()?;
            candle_core::safetensors::save(&part, folder.join(&file))?;
            weight_map.extend(part.into_keys().map(|name| (name, file.clone())));
        }
        if num_files > 1 {
            let index = json!({ "metadata": {}, "weight_map": weight_map });
            fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
        }
        fs::write(folder.join("config.json"), self.config.to_string())?;
        fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string())?;
        fs::write(folder.join("tokenizer_config.json"), tokenizer_config().to_string())?;
        Ok(())
    }

    /// Writes the same weights as GGUF: matrices in `dtype`, everything else in f32. As llama.cpp's converter has it,
    /// a mistral becomes a llama, and a llama's query and key rows have the halves of each head interleaved.
    pub fn write_gguf(&self, path: &Path, dtype: GgmlDType) -> Result<()> {
        let mut tensors = Vec::new();
        for (name, tensor) in &self.tensors {
            let dtype = if tensor.rank() == 1 { GgmlDType::F32 } else { dtype };
            tensors.push((gguf_name(name), QTensor::quantize(&self.interleaved(name, tensor)?, dtype)?));
        }
        let tensors: Vec<(&str, &QTensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut metadata = self.gguf_metadata();
        metadata.extend(tokenizer_metadata().into_iter().map(|(key, value)| (key.to_owned(), value)));
        let metadata: Vec<(&str, &GgufValue)> =
            metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        gguf_file::write(&mut BufWriter::new(File::create(path)?), &metadata, &tensors)
    }

    fn interleaved(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let heads = match () {
            () if self.gguf_architecture() != "llama" => return Ok(tensor.clone()),
            () if name.contains("q_proj") => self.number("num_attention_heads"),
            () if name.contains("k_proj") => self.number("num_key_value_heads"),
            () => return Ok(tensor.clone()),
        };
        let columns = tensor.elem_count() / tensor.dim(0)?;
        let halves = tensor.reshape((heads, 2, tensor.dim(0)? / heads / 2, columns))?;
        halves.transpose(1, 2)?.contiguous()?.reshape(tensor.shape())
    }

    fn gguf_metadata(&self) -> Vec<(String, GgufValue)> {
        let architecture = self.gguf_architecture();
        let number = |key: &str| GgufValue::U32(self.number(key) as u32);
        let float = |key: &str| GgufValue::F32(self.config[key].as_f64().unwrap_or_default() as f32);
        let mut metadata = vec![
            ("general.architecture".to_owned(), GgufValue::String(architecture.into())),
            ("general.name".to_owned(), GgufValue::String("tiny".into())),
        ];
        let fields = [
            ("block_count", number("num_hidden_layers")),
            ("embedding_length", number("hidden_size")),
            ("feed_forward_length", number("intermediate_size")),
            ("context_length", number("max_position_embeddings")),
            ("attention.head_count", number("num_attention_heads")),
            ("attention.head_count_kv", number("num_key_value_heads")),
            ("attention.key_length", number("head_dim")),
            ("attention.value_length", number("head_dim")),
            ("attention.layer_norm_rms_epsilon", float("rms_norm_eps")),
            ("rope.dimension_count", number("head_dim")),
            ("rope.freq_base", float("rope_theta")),
        ];
        metadata.extend(fields.map(|(key, value)| (format!("{architecture}.{key}"), value)));
        metadata
    }

    fn gguf_architecture(&self) -> &str {
        match self.config["model_type"].as_str().unwrap_or_default() {
            "mistral" => "llama",
            other => other,
        }
    }

    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_default() as usize
    }
}

/// As the family's own repositories have it, with all that candle's models ask for.
fn config(family: &Family, vocab_size: usize) -> Value {
    let window = if family.architecture == "mistral" { 128 } else { 512 };
    json!({
        "model_type": family.architecture,
        "hidden_size": family.hidden_size,
        "intermediate_size": 2 * family.hidden_size,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": family.num_heads,
        "num_key_value_heads": family.num_kv_heads,
        "head_dim": family.head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": if family.architecture == "qwen3" { 1e6 } else { 1e4 },
        "tie_word_embeddings": family.tied,
        "attention_bias": family.attention_bias,
        "hidden_act": "silu",
        "sliding_window": window,
        "use_sliding_window": false,
        "max_window_layers": NUM_LAYERS,
    })
}

fn tokenizer_json() -> Value {
    let tokens = tokens();
    let special = |(index, content): (usize, &&str)| {
        json!({
            "id": 256 + index, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let vocab: BTreeMap<&String, usize> = tokens[..256].iter().zip(0..).collect();
    json!({
        "version": "1.0",
        "added_tokens": SPECIALS.iter().enumerate().map(special).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    })
}

fn tokenizer_config() -> Value {
    json!({ "bos_token": SPECIALS[1], "eos_token": SPECIALS[2], "chat_template": TEMPLATE })
}

fn gguf_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ]
    .into_iter()
    .fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}
