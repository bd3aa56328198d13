//! Finds a model's tensors in a GGUF file or a folder of safetensors, under Hugging Face's names, as f32.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, gguf_file};
use candle_core::safetensors::BufferedSafetensors;
use candle_core::{DType, Device, Tensor};

use crate::EngineError;
use crate::model::{Architecture, ModelConfig};

/// An opened model file.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    path: PathBuf,
    /// GGUF stores query and key rows of llama with the two halves of each head interleaved.
    deinterleave_heads: Option<ModelConfig>,
}

enum Source {
    Gguf { content: Box<gguf_file::Content>, reader: BufReader<File> },
    Safetensors { files: Vec<BufferedSafetensors>, file_of: HashMap<String, usize> },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gguf { .. } => formatter.write_str("Gguf"),
            Self::Safetensors { .. } => formatter.write_str("Safetensors"),
        }
    }
}

/// The two formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightsKind {
    /// One file with everything in it.
    Gguf,
    /// A folder with `config.json`, `tokenizer.json` and one or more `.safetensors`.
    Safetensors,
}

impl Weights {
    /// Opens a `.gguf` file or a folder. Nothing but headers is read from GGUF; safetensors are read whole.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let source = if path.is_dir() { open_folder(path)? } else { open_gguf(path)? };
        Ok(Self { source, path: path.to_owned(), deinterleave_heads: None })
    }

    /// Which format it is.
    pub fn kind(&self) -> WeightsKind {
        match self.source {
            Source::Gguf { .. } => WeightsKind::Gguf,
            Source::Safetensors { .. } => WeightsKind::Safetensors,
        }
    }

    /// The GGUF header, if that is the format.
    pub fn gguf(&self) -> Option<&gguf_file::Content> {
        match &self.source {
            Source::Gguf { content, .. } => Some(content),
            Source::Safetensors { .. } => None,
        }
    }

    /// The model's shape.
    pub fn config(&self) -> Result<ModelConfig, EngineError> {
        let config = match &self.source {
            Source::Gguf { content, .. } => ModelConfig::from_gguf(&content.metadata),
            Source::Safetensors { .. } => {
                let text = std::fs::read(self.path.join("config.json"))?;
                let json =
                    serde_json::from_slice(&text).map_err(|error| EngineError::load(&self.path, error))?;
                ModelConfig::from_json(&json)
            }
        };
        config.map_err(|error| match error {
            EngineError::Config(reason) => EngineError::load(&self.path, reason),
            other => other,
        })
    }

    /// Tells how the heads are laid out, so that [`Self::get`] gives them in one way.
    pub fn set_layout(&mut self, config: &ModelConfig) {
        let llama = matches!(config.architecture, Architecture::Llama | Architecture::Mistral);
        self.deinterleave_heads = (llama && self.kind() == WeightsKind::Gguf).then(|| config.clone());
    }

    /// The type of most weights' numbers, for people.
    pub fn quantization(&self) -> String {
        let mut counts: HashMap<String, usize> = HashMap::new();
        match &self.source {
            Source::Gguf { content, .. } => {
                for tensor in content.tensor_infos.values() {
                    *counts.entry(dtype_name(tensor.ggml_dtype)).or_default() += tensor.shape.elem_count();
                }
            }
            Source::Safetensors { files, .. } => {
                for (_, view) in files.iter().flat_map(BufferedSafetensors::tensors) {
                    *counts.entry(format!("{:?}", view.dtype())).or_default() +=
                        view.shape().iter().product::<usize>();
                }
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| "none".into(), |(name, _)| name)
    }

    /// Whether a tensor of this Hugging Face name is there.
    pub fn contains(&self, name: &str) -> bool {
        match &self.source {
            Source::Gguf { content, .. } => content.tensor_infos.contains_key(&gguf_name(name)),
            Source::Safetensors { file_of, .. } => file_of.contains_key(name),
        }
    }

    /// A tensor as f32 on `device`; its shape must be the expected one.
    pub fn get(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, EngineError> {
        self.find(name, shape, device)?
            .ok_or_else(|| EngineError::load(&self.path, format!("it has no tensor `{name}`")))
    }

    /// The same for a tensor that may be absent.
    pub fn find(
        &mut self,
        name: &str,
        shape: &[usize],
        device: &Device,
    ) -> Result<Option<Tensor>, EngineError> {
        if !self.contains(name) {
            return Ok(None);
        }
        let tensor = match &mut self.source {
            Source::Gguf { content, reader } => {
                content.tensor(reader, &gguf_name(name), &Device::Cpu)?.dequantize(&Device::Cpu)?
            }
            Source::Safetensors { files, file_of } => files[file_of[name]].load(name, &Device::Cpu)?,
        };
        if tensor.dims() != shape {
            let reason = format!("`{name}` has shape {:?}, but its metadata says {shape:?}", tensor.dims());
            return Err(EngineError::load(&self.path, reason));
        }
        let tensor = self.halves_apart(name, tensor.to_dtype(DType::F32)?)?;
        Ok(Some(tensor.to_device(device)?))
    }

    /// Gives query and key rows of each head as first halves, then second halves, which one rotary kernel wants.
    fn halves_apart(&self, name: &str, tensor: Tensor) -> Result<Tensor, EngineError> {
        let Some(config) = &self.deinterleave_heads else { return Ok(tensor) };
        let heads = if name.contains("q_proj") {
            config.num_heads
        } else if name.contains("k_proj") {
            config.num_kv_heads
        } else {
            return Ok(tensor);
        };
        let shape = tensor.shape().clone();
        let columns = shape.elem_count() / (heads * config.head_dim);
        let pairs = tensor.reshape((heads, config.head_dim / 2, 2, columns))?;
        Ok(pairs.transpose(1, 2)?.contiguous()?.reshape(shape)?)
    }
}

fn open_gguf(path: &Path) -> Result<Source, EngineError> {
    let mut reader = BufReader::new(File::open(path).map_err(|error| EngineError::load(path, error))?);
    let content = gguf_file::Content::read(&mut reader).map_err(|error| {
        EngineError::load(path, format!("it is not a GGUF file, or is cut short: {error}"))
    })?;
    let file_bytes = std::fs::metadata(path)?.len();
    let end = content.tensor_infos.values().map(|info| {
        let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
        content.tensor_data_offset + info.offset + (blocks * info.ggml_dtype.type_size()) as u64
    });
    match end.max() {
        Some(end) if end > file_bytes => Err(EngineError::load(
            path,
            format!("it has {file_bytes} bytes but its tensors end at {end}: it is cut short"),
        )),
        _ => Ok(Source::Gguf { content: Box::new(content), reader }),
    }
}

fn open_folder(path: &Path) -> Result<Source, EngineError> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(|error| EngineError::load(path, error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(EngineError::load(
            path,
            "the folder holds no .safetensors; give a .gguf file or a model folder",
        ));
    }
    let mut files = Vec::new();
    let mut file_of = HashMap::new();
    for name in &names {
        let file =
            BufferedSafetensors::new(std::fs::read(name)?).map_err(|error| EngineError::load(name, error))?;
        file_of.extend(file.tensors().into_iter().map(|(tensor, _)| (tensor, files.len())));
        files.push(file);
    }
    Ok(Source::Safetensors { files, file_of })
}

/// From Hugging Face's tensor names to GGUF's.
fn gguf_name(name: &str) -> String {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, "weight"));
    match stem {
        "model.embed_tokens" => return format!("token_embd.{suffix}"),
        "model.norm" => return format!("output_norm.{suffix}"),
        "lm_head" => return format!("output.{suffix}"),
        "rope_freqs" => return format!("rope_freqs.{suffix}"),
        _ => {}
    }
    let Some((layer, part)) = stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) else {
        return name.to_owned();
    };
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        other => other,
    };
    format!("blk.{layer}.{part}.{suffix}")
}

fn dtype_name(dtype: GgmlDType) -> String {
    let name = format!("{dtype:?}").to_lowercase();
    // `q4k` is written `q4_k` everywhere else; `q80` does not occur, candle says `Q8_0`.
    if name.ends_with('k') && !name.contains('_') { name.replace('k', "_k") } else { name }
}
