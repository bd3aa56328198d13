//! Requantizes a GGUF file: the same model in another block type.
//!
//! Matrices take the wanted type; norms and other vectors stay in F32, where they cost nothing and matter most. A
//! matrix whose rows are no multiple of the type's block (256 for K-quants, 32 for the others) falls back to Q8_0, or
//! to F16 where even that does not fit, and the report says so.
//!
//! Quality is never better than the source's: Q8_0 made from a 4-bit file is a 4-bit model that takes more memory.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use engine::model::{DTYPES, read_gguf_header};

/// What the blocks' layout has been since GGUF exists; readers look for it beside quantized tensors.
const QUANTIZATION_VERSION: u32 = 2;

/// Why a file could not be quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The name of no type that can be written.
    #[error("`{name}` is no type to quantize to; expected one of {known}")]
    UnknownDtype {
        /// What was given.
        name: String,
        /// All names.
        known: String,
    },
    /// The input is something else than a GGUF file.
    #[error("cannot quantize {}: {reason}; expected a whole .gguf file", path.display())]
    NotGguf {
        /// The input.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The output would replace something.
    #[error("{} exists; choose another name, or replace it with --force", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// The output would replace the input.
    #[error("{} is the input itself; choose another name for the output", path.display())]
    OutputIsInput {
        /// The output.
        path: PathBuf,
    },
    /// A tensor could not be read or converted.
    #[error("tensor `{name}`: {source}")]
    Tensor {
        /// Its name in the file.
        name: String,
        /// What went wrong.
        source: candle_core::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// How to quantize.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuantizeOptions {
    /// Whether an output that exists is replaced.
    pub force: bool,
}

/// What became of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorReport {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions, rows first.
    pub shape: Vec<usize>,
    /// Its type in the input.
    pub from: GgmlDType,
    /// Its type in the output.
    pub to: GgmlDType,
    /// The wanted type, where the tensor's rows are no multiple of its block and it took another.
    pub fell_back_from: Option<GgmlDType>,
    /// Its size in the output, in bytes.
    pub size_bytes: u64,
}

/// How far a quantization is.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeProgress<'a> {
    /// The tensor that was done last.
    pub tensor: &'a TensorReport,
    /// How many are done.
    pub tensors_done: usize,
    /// How many there are.
    pub tensors_total: usize,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeReport {
    /// Every tensor, in the order of the file.
    pub tensors: Vec<TensorReport>,
    /// The input's size, in bytes.
    pub input_bytes: u64,
    /// The output's size, in bytes.
    pub output_bytes: u64,
}

impl QuantizeReport {
    /// The tensors that could not take the wanted type.
    pub fn fallbacks(&self) -> impl Iterator<Item = &TensorReport> {
        self.tensors.iter().filter(|tensor| tensor.fell_back_from.is_some())
    }
}

/// The type of that name, in whatever case.
///
/// # Errors
/// [`QuantizeError::UnknownDtype`] lists the names.
pub fn parse_dtype(name: &str) -> Result<GgmlDType, QuantizeError> {
    let wanted = name.to_ascii_lowercase();
    DTYPES.iter().find(|(known, _)| *known == wanted).map(|(_, dtype)| *dtype).ok_or_else(|| {
        let known: Vec<&str> = DTYPES.iter().map(|(known, _)| *known).collect();
        QuantizeError::UnknownDtype { name: name.chars().take(50).collect(), known: known.join(", ") }
    })
}

/// Writes `input` to `output` with its matrices in the type `to`.
///
/// `progress` hears of each tensor once it is done. The output appears under its name when it is whole. It takes the
/// output's size of memory, as candle's writer takes all tensors at once, and one tensor in F32.
///
/// # Errors
/// Every variant of [`QuantizeError`] but `UnknownDtype`.
pub fn quantize(
    input: &Path,
    output: &Path,
    to: GgmlDType,
    options: &QuantizeOptions,
    mut progress: impl FnMut(QuantizeProgress<'_>),
) -> Result<QuantizeReport, QuantizeError> {
    refuse_output(input, output, options.force)?;
    let (content, mut reader, input_bytes) = open(input)?;
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort_by_key(|name| content.tensor_infos.get(*name).map(|info| info.offset));

    let mut tensors = Vec::with_capacity(names.len());
    let mut reports = Vec::with_capacity(names.len());
    for name in names {
        let failed = |source| QuantizeError::Tensor { name: name.clone(), source };
        let source = content.tensor(&mut reader, name, &Device::Cpu).map_err(failed)?;
        let from = source.dtype();
        let (taken, fell_back_from) = target_dtype(name, source.shape().dims(), from, to);
        let tensor = if taken == from {
            source
        } else {
            let floats = source.dequantize(&Device::Cpu).map_err(failed)?;
            QTensor::quantize(&floats, taken).map_err(failed)?
        };
        let report = TensorReport {
            name: name.clone(),
            shape: tensor.shape().dims().to_vec(),
            from,
            to: taken,
            fell_back_from,
            size_bytes: tensor.storage_size_in_bytes() as u64,
        };
        progress(QuantizeProgress {
            tensor: &report,
            tensors_done: reports.len() + 1,
            tensors_total: content.tensor_infos.len(),
        });
        reports.push(report);
        tensors.push((name.as_str(), tensor));
    }
    let metadata = metadata_for(&content, to);
    let output_bytes = write(output, &metadata, &tensors)?;
    Ok(QuantizeReport { tensors: reports, input_bytes, output_bytes })
}

fn refuse_output(input: &Path, output: &Path, force: bool) -> Result<(), QuantizeError> {
    if !output.exists() {
        return Ok(());
    }
    let is_input = match (fs::canonicalize(input), fs::canonicalize(output)) {
        (Ok(input), Ok(output)) => input == output,
        _ => false,
    };
    if is_input {
        return Err(QuantizeError::OutputIsInput { path: output.to_owned() });
    }
    if force { Ok(()) } else { Err(QuantizeError::OutputExists { path: output.to_owned() }) }
}

fn open(input: &Path) -> Result<(Content, BufReader<File>, u64), QuantizeError> {
    let refuse = |reason: String| QuantizeError::NotGguf { path: input.to_owned(), reason };
    if input.is_dir() {
        return Err(refuse("it is a directory, and safetensors are not read here".to_owned()));
    }
    let file = File::open(input).map_err(io_error("open", input))?;
    let input_bytes = file.metadata().map_err(io_error("look at", input))?.len();
    let (content, reader) = read_gguf_header(file).map_err(refuse)?;
    Ok((content, reader, input_bytes))
}

/// The type that a tensor takes, and the wanted one where it cannot have it.
fn target_dtype(
    name: &str,
    shape: &[usize],
    from: GgmlDType,
    wanted: GgmlDType,
) -> (GgmlDType, Option<GgmlDType>) {
    let [.., row_width] = *shape else { return (from, None) };
    if shape.len() == 1 {
        return (GgmlDType::F32, None);
    }
    // A router picks experts by small differences, and is small itself.
    if !name.ends_with(".weight") || name.ends_with("ffn_gate_inp.weight") {
        return (from, None);
    }
    let fits = |dtype: GgmlDType| row_width.is_multiple_of(dtype.block_size());
    if fits(wanted) {
        (wanted, None)
    } else if fits(GgmlDType::Q8_0) {
        (GgmlDType::Q8_0, Some(wanted))
    } else {
        (GgmlDType::F16, Some(wanted))
    }
}

/// The input's metadata with what the new type changes, in the order of the keys, so that equal inputs give equal files.
fn metadata_for(content: &Content, to: GgmlDType) -> Vec<(String, Value)> {
    let mut metadata = content.metadata.clone();
    // candle writes at the default alignment; another one, declared, would have readers look in the wrong place.
    metadata.remove("general.alignment");
    metadata.insert("general.file_type".to_owned(), Value::U32(file_type(to)));
    if to.block_size() > 1 {
        metadata.insert("general.quantization_version".to_owned(), Value::U32(QUANTIZATION_VERSION));
    }
    let mut metadata: Vec<(String, Value)> = metadata.into_iter().collect();
    metadata.sort_by(|(a, _), (b, _)| a.cmp(b));
    metadata
}

/// GGUF's `general.file_type`: "mostly" this type.
fn file_type(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q8_0 | GgmlDType::Q8_1 | GgmlDType::Q8K => 7,
        GgmlDType::Q5_0 => 8,
        GgmlDType::Q5_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 14,
        GgmlDType::Q5K => 16,
        GgmlDType::Q6K => 18,
        GgmlDType::BF16 => 32,
    }
}

/// Writes the file beside its place, moves it there when it is whole, and returns its size.
fn write(
    output: &Path,
    metadata: &[(String, Value)],
    tensors: &[(&str, QTensor)],
) -> Result<u64, QuantizeError> {
    let part = output.with_added_extension(format!("{}.part", std::process::id()));
    let written = write_part(&part, metadata, tensors).and_then(|size_bytes| {
        fs::rename(&part, output).map_err(io_error("rename", &part))?;
        Ok(size_bytes)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(
    part: &Path,
    metadata: &[(String, Value)],
    tensors: &[(&str, QTensor)],
) -> Result<u64, QuantizeError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(part)
        .map_err(io_error("create", part))?;
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut writer = BufWriter::new(file);
    gguf_file::write(&mut writer, &metadata, &tensors).map_err(|error| QuantizeError::Io {
        action: "write",
        path: part.to_owned(),
        reason: error.to_string(),
    })?;
    writer.flush().map_err(io_error("write", part))?;
    let file = writer.get_ref();
    file.sync_all().map_err(io_error("write out", part))?;
    Ok(file.metadata().map_err(io_error("look at", part))?.len())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> QuantizeError {
    let path = path.to_owned();
    move |error| QuantizeError::Io { action, path, reason: error.to_string() }
}

#[cfg(test)]
mod tests;
