//! Finds a model's tensors in a GGUF file or a folder of safetensors, under Hugging Face's names, as f32 or as matrices of
//! few bits.

mod dtype;
mod folder;
mod four_bits;
mod gguf;
mod heads;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use kernels::{GROUP, Matrix, UnfinishedMatrix};

pub use self::dtype::{DTYPES, dtype_name};
use self::folder::Folder;
use self::gguf::GgufFile;
pub use self::gguf::read_gguf_header;
use self::heads::Interleaved;
use crate::EngineError;
use crate::model::{Architecture, ModelConfig};
use crate::ops::with_slices;

/// Rows of a matrix that are read at once, or the next number of whole heads. No block reaches beyond its row.
const ROWS_AT_ONCE: usize = 64;

/// An opened model file. Only headers are in memory; each tensor is read when it is asked for.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    path: PathBuf,
    /// GGUF stores query and key rows of llama with the two halves of each head interleaved.
    interleaved: Option<Interleaved>,
}

#[derive(Debug)]
enum Source {
    Gguf(GgufFile),
    Safetensors(Folder),
}

/// What a header says of a tensor.
struct TensorSummary<'w> {
    name: &'w str,
    dtype: String,
    is_four_bits: bool,
    num_elements: usize,
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
    /// Opens a `.gguf` file or a folder and reads the headers.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let source = if path.is_dir() {
            Source::Safetensors(Folder::open(path)?)
        } else {
            Source::Gguf(GgufFile::open(path)?)
        };
        Ok(Self { source, path: path.to_owned(), interleaved: None })
    }

    /// Which format it is.
    pub fn kind(&self) -> WeightsKind {
        match self.source {
            Source::Gguf(_) => WeightsKind::Gguf,
            Source::Safetensors(_) => WeightsKind::Safetensors,
        }
    }

    /// The GGUF header, if that is the format.
    pub fn gguf(&self) -> Option<&gguf_file::Content> {
        match &self.source {
            Source::Gguf(file) => Some(&file.content),
            Source::Safetensors(_) => None,
        }
    }

    /// The model's shape.
    pub fn config(&self) -> Result<ModelConfig, EngineError> {
        let config = match &self.source {
            Source::Gguf(file) => ModelConfig::from_gguf(&file.content.metadata),
            Source::Safetensors(folder) => ModelConfig::from_json(&folder.config()?),
        };
        config.map_err(|error| match error {
            EngineError::Config(reason) => EngineError::load(&self.path, reason),
            other => other,
        })
    }

    /// Tells how the heads are laid out, so that they are given in one way.
    pub fn set_layout(&mut self, config: &ModelConfig) {
        let llama = matches!(config.architecture, Architecture::Llama | Architecture::Mistral);
        let is_interleaved = llama && self.kind() == WeightsKind::Gguf;
        self.interleaved = is_interleaved.then_some(Interleaved { head_dim: config.head_dim });
    }

    /// Whether the output layer is the embedding: the metadata's word, else whether there is an output layer.
    pub fn tied_embeddings(&self, config: &ModelConfig) -> bool {
        config.tied_embeddings.unwrap_or_else(|| !self.contains("lm_head.weight"))
    }

    /// Numbers in all weights, biases and norms; an output layer that is the embedding counts once, rotary tables
    /// not at all.
    pub fn num_parameters(&self, config: &ModelConfig) -> usize {
        self.counted(config).map(|tensor| tensor.num_elements).sum()
    }

    /// Those of them that the file holds in four bits; a matrix with a scale beyond 16 bits is loaded in 8 all the same.
    pub fn num_four_bits(&self, config: &ModelConfig) -> usize {
        self.counted(config).filter(|tensor| tensor.is_four_bits).map(|tensor| tensor.num_elements).sum()
    }

    fn counted(&self, config: &ModelConfig) -> impl Iterator<Item = TensorSummary<'_>> {
        let output = self.name_of("lm_head.weight");
        let tied = self.tied_embeddings(config);
        let counts = move |name: &str| {
            !(name == "rope_freqs.weight" || name.ends_with(".rotary_emb.inv_freq") || tied && name == output)
        };
        self.tensors().filter(move |tensor| counts(tensor.name))
    }

    /// The type of most weights' numbers, for people.
    pub fn quantization(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for tensor in self.tensors() {
            *counts.entry(tensor.dtype).or_default() += tensor.num_elements;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| "none".into(), |(name, _)| name)
    }

    /// Whether a tensor of this Hugging Face name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// A tensor as f32 on `device`; its shape must be the expected one.
    pub fn get(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, EngineError> {
        self.find(name, shape, device)?.ok_or_else(|| self.missing(name))
    }

    /// The same for a tensor that may be absent.
    pub fn find(&self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>, EngineError> {
        let Some(own_name) = self.expect(name, shape)? else { return Ok(None) };
        let tensor = self.read(&own_name, 0..shape[0], self.interleaved(name))?;
        Ok(Some(tensor.to_device(device)?))
    }

    /// A matrix that the file holds in four bits, as it is there; `None` if it is absent or has more.
    pub fn find_four_bits(
        &self,
        name: &str,
        (outputs, inputs): (usize, usize),
    ) -> Result<Option<Matrix>, EngineError> {
        let Some(own_name) = self.expect(name, &[outputs, inputs])? else { return Ok(None) };
        let file = match &self.source {
            Source::Gguf(file) if file.is_four_bits(&own_name) => file,
            _ => return Ok(None),
        };
        let heads = self.interleaved(name);
        let mut matrix = UnfinishedMatrix::of_4_bits(outputs, inputs);
        for rows in pieces(outputs, heads) {
            let groups = file.read(&own_name, rows).and_then(|rows| four_bits::blocks(&rows));
            let Some(mut groups) = groups.map_err(|error| unreadable(&self.path, &own_name, &error))? else {
                return Ok(None);
            };
            if let Some(heads) = heads {
                groups = heads.rows_apart(&groups, inputs / GROUP);
            }
            matrix.push_groups(&groups);
        }
        Ok(Some(matrix.finish()))
    }

    /// A matrix in 8 bits. Few of a large one's rows are in memory as f32 at a time: fresh memory is slow.
    pub fn int8(&self, name: &str, (outputs, inputs): (usize, usize)) -> Result<Matrix, EngineError> {
        let own_name = self.expect(name, &[outputs, inputs])?.ok_or_else(|| self.missing(name))?;
        let heads = self.interleaved(name);
        let mut matrix = UnfinishedMatrix::of_8_bits(outputs, inputs);
        for rows in pieces(outputs, heads) {
            let rows = self.read(&own_name, rows, heads)?;
            with_slices([&rows], |[rows]| matrix.push(rows))?;
        }
        Ok(matrix.finish())
    }

    /// Some rows, all of them numbers, as f32 on the CPU; of interleaved heads whole ones.
    fn read(
        &self,
        own_name: &str,
        rows: Range<usize>,
        heads: Option<Interleaved>,
    ) -> Result<Tensor, EngineError> {
        let tensor = match &self.source {
            Source::Gguf(file) => {
                file.load(own_name, rows).map_err(|error| unreadable(&self.path, own_name, &error))?
            }
            Source::Safetensors(folder) => folder.load(own_name, rows)?,
        };
        let tensor = tensor.to_dtype(DType::F32)?;
        if !with_slices([&tensor], |[weights]| all_numbers(weights))? {
            let reason = format!("`{own_name}` holds something that is no number");
            return Err(EngineError::load(&self.path, reason));
        }
        Ok(heads.map(|heads| heads.apart(&tensor)).transpose()?.unwrap_or(tensor))
    }

    /// What the file calls a tensor, if it is there; its shape must be the expected one.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<Option<String>, EngineError> {
        let Some(found) = self.shape(name) else { return Ok(None) };
        let own_name = self.name_of(name);
        // Before it is read: a shape that is expected is one that fits in memory.
        if found != shape {
            let reason = format!("`{own_name}` has shape {found:?}, but the metadata asks for {shape:?}");
            return Err(EngineError::load(&self.path, reason));
        }
        Ok(Some(own_name))
    }

    /// Refuses a file without this tensor.
    pub fn require(&self, name: &str) -> Result<(), EngineError> {
        if self.contains(name) { Ok(()) } else { Err(self.missing(name)) }
    }

    fn missing(&self, name: &str) -> EngineError {
        EngineError::load(&self.path, format!("it has no tensor `{}`", self.name_of(name)))
    }

    /// What the file calls a tensor of this Hugging Face name.
    fn name_of(&self, name: &str) -> String {
        match self.source {
            Source::Gguf(_) => gguf_name(name),
            Source::Safetensors(_) => name.to_owned(),
        }
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.source {
            Source::Gguf(file) => file.shape(&gguf_name(name)),
            Source::Safetensors(folder) => folder.shape(name),
        }
    }

    fn tensors(&self) -> Box<dyn Iterator<Item = TensorSummary<'_>> + '_> {
        match &self.source {
            Source::Gguf(file) => Box::new(file.tensors()),
            Source::Safetensors(folder) => Box::new(folder.tensors()),
        }
    }

    /// How the heads of this tensor's rows lie, if the file has their halves interleaved.
    fn interleaved(&self, name: &str) -> Option<Interleaved> {
        self.interleaved.filter(|_| name.contains("q_proj") || name.contains("k_proj"))
    }
}

/// Rows that are read at once.
fn pieces(outputs: usize, heads: Option<Interleaved>) -> impl Iterator<Item = Range<usize>> {
    let step = heads.map_or(ROWS_AT_ONCE, |heads| ROWS_AT_ONCE.next_multiple_of(heads.head_dim));
    (0..outputs).step_by(step).map(move |first| first..(first + step).min(outputs))
}

/// Looks at all of them, for a loop without a way out is a vector instruction.
fn all_numbers(weights: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !weights.iter().fold(false, |any, weight| any | (weight.to_bits() & EXPONENT == EXPONENT))
}

fn unreadable(path: &Path, own_name: &str, error: &candle_core::Error) -> EngineError {
    EngineError::load(path, format!("`{own_name}`: {error}"))
}

/// From Hugging Face's tensor names to GGUF's.
fn gguf_name(name: &str) -> String {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, "weight"));
    match stem {
        "model.embed_tokens" => return format!("token_embd.{suffix}"),
        "model.norm" => return format!("output_norm.{suffix}"),
        "lm_head" => return format!("output.{suffix}"),
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
