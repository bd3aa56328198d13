//! One GGUF file: its header checked before anything is allocated by what it says, its tensors read some rows at a time.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::quantized::QTensor;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use candle_core::{Device, Error, Tensor};

use super::{TensorSummary, dtype_name, four_bits};
use crate::EngineError;

/// More than the lists of any vocabulary. An element of any type takes 32 bytes once it is read.
const ARRAY_ELEMENTS_MAX: u64 = 1 << 24;
/// Lists of lists occur in no model; this is how deep they may be.
const ARRAY_DEPTH_MAX: usize = 4;
const ALIGNMENT_MAX: u32 = 1 << 20;
/// The format's own bound on a key.
const KEY_BYTES_MAX: u64 = (1 << 16) - 1;

#[derive(Debug)]
pub(super) struct GgufFile {
    pub(super) content: Box<Content>,
    file: File,
}

impl GgufFile {
    /// Reads the header. Every tensor lies within the file.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let file = File::open(path).map_err(|error| EngineError::load(path, error.to_string()))?;
        let (content, reader) = read_gguf_header(file).map_err(|reason| EngineError::load(path, reason))?;
        Ok(Self { content: Box::new(content), file: reader.into_inner() })
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.content.tensor_infos.get(name).map(|info| info.shape.dims())
    }

    /// Whether a tensor holds four bits a weight.
    pub(super) fn is_four_bits(&self, name: &str) -> bool {
        self.content.tensor_infos.get(name).is_some_and(|info| four_bits::is_four_bits(info.ggml_dtype))
    }

    /// Some rows, dequantized to f32, on the CPU.
    pub(super) fn load(&self, name: &str, rows: Range<usize>) -> candle_core::Result<Tensor> {
        self.read(name, rows)?.dequantize(&Device::Cpu)
    }

    /// Some rows, as they are stored. No read depends on one before, so threads share the file.
    pub(super) fn read(&self, name: &str, rows: Range<usize>) -> candle_core::Result<QTensor> {
        let info = self.content.tensor_infos.get(name).ok_or_else(|| Error::msg("it is not in the file"))?;
        let mut dims = info.shape.dims().to_vec();
        dims[0] = rows.len();
        let row_len: usize = dims[1..].iter().product();
        let bytes_of = |rows| rows * row_len / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
        let mut bytes = vec![0; bytes_of(rows.len())];
        let start = self.content.tensor_data_offset + info.offset + bytes_of(rows.start) as u64;
        self.file.read_exact_at(&mut bytes, start)?;
        qtensor_from_ggml(info.ggml_dtype, &bytes, dims, &Device::Cpu)
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = TensorSummary<'_>> {
        self.content.tensor_infos.iter().map(|(name, info)| TensorSummary {
            name,
            dtype: dtype_name(info.ggml_dtype).to_owned(),
            is_four_bits: four_bits::is_four_bits(info.ggml_dtype),
            num_elements: info.shape.elem_count(),
        })
    }
}

/// Reads a header, whose tensors all lie within the file, or says why it is refused.
pub fn read_gguf_header(file: File) -> Result<(Content, BufReader<File>), String> {
    let file_bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let mut reader = BufReader::new(file);
    let walk = Walk { reader: &mut reader, left: file_bytes, version: 0, elements_left: ARRAY_ELEMENTS_MAX };
    let num_tensors = walk.header()?;
    reader.rewind().map_err(|error| error.to_string())?;
    let content = Content::read(&mut reader)
        .map_err(|error| format!("its GGUF header is broken or cut short: {error}"))?;
    if content.tensor_infos.len() as u64 != num_tensors {
        let names = content.tensor_infos.len();
        return Err(format!("its {num_tensors} tensors have {names} names: some are there twice"));
    }
    for (name, info) in &content.tensor_infos {
        let end = end_of(info).and_then(|end| end.checked_add(content.tensor_data_offset));
        let end =
            end.ok_or_else(|| format!("the shape {:?} of `{name}` makes no sense", info.shape.dims()))?;
        if end > file_bytes {
            return Err(format!("it has {file_bytes} bytes but `{name}` ends at {end}: it is cut short"));
        }
    }
    Ok((content, reader))
}

/// Where a tensor's bytes end, counted from the first tensor's; `None` where that overflows or rows are no whole blocks.
fn end_of(info: &TensorInfo) -> Option<u64> {
    let dims = info.shape.dims();
    let elements = dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))?;
    let block = info.ggml_dtype.block_size();
    let (blocks, rest) = (elements / block, dims.last().unwrap_or(&1) % block);
    let bytes = blocks.checked_mul(info.ggml_dtype.type_size()).filter(|_| rest == 0)?;
    info.offset.checked_add(bytes as u64)
}

/// Goes over the metadata without keeping it. candle's reader bounds lengths by the file's size, but divides by the
/// alignment that the file gives, and takes 32 bytes for each byte of a list.
struct Walk<'r> {
    reader: &'r mut BufReader<File>,
    left: u64,
    version: u32,
    elements_left: u64,
}

/// Numbers of the types in the file.
const TYPE_U32: u32 = 4;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

impl Walk<'_> {
    /// How many tensors there are.
    fn header(mut self) -> Result<u64, String> {
        if self.left < 4 || self.bytes()? != *b"GGUF" {
            return Err("it is not a GGUF file; give a .gguf file or a model folder".into());
        }
        self.version = self.u32()?;
        if !(1..=3).contains(&self.version) {
            return Err(format!("its GGUF version is {}, but only 1 to 3 are known", self.version));
        }
        let num_tensors = self.length()?;
        let num_entries = self.length()?;
        for _ in 0..num_entries {
            let is_alignment = self.key()? == ALIGNMENT;
            let kind = self.u32()?;
            if is_alignment {
                self.alignment(kind)?;
            } else {
                self.value(kind, 0)?;
            }
        }
        Ok(num_tensors)
    }

    /// Without the zeros at its end, which candle's reader takes off too.
    fn key(&mut self) -> Result<Vec<u8>, String> {
        let len = self.length()?;
        if len > KEY_BYTES_MAX {
            return Err(format!("its metadata has a key of {len} bytes, more than {KEY_BYTES_MAX}"));
        }
        let mut key = vec![0; len as usize];
        self.reader.read_exact(&mut key).map_err(|_| cut_short())?;
        self.left = self.left.saturating_sub(len);
        key.truncate(key.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        Ok(key)
    }

    fn alignment(&mut self, kind: u32) -> Result<(), String> {
        let value = if kind == TYPE_U32 { self.u32()? } else { 0 };
        if value.is_power_of_two() && value <= ALIGNMENT_MAX {
            Ok(())
        } else {
            Err(format!("its `general.alignment` is no u32 that is a power of two up to {ALIGNMENT_MAX}"))
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<(), String> {
        if let Some(width) = width_of(kind) {
            return self.skip(width);
        }
        match kind {
            TYPE_STRING => {
                let len = self.length()?;
                self.skip(len)
            }
            TYPE_ARRAY if depth < ARRAY_DEPTH_MAX => {
                let kind = self.u32()?;
                let len = self.length()?;
                self.elements_left = self
                    .elements_left
                    .checked_sub(len)
                    .ok_or_else(|| format!("its metadata lists more than {ARRAY_ELEMENTS_MAX} values"))?;
                match width_of(kind) {
                    Some(width) => self.skip(len * width),
                    None => (0..len).try_for_each(|_| self.value(kind, depth + 1)),
                }
            }
            _ => Err(format!("its metadata holds a value of type {kind}, which is not known or too deep")),
        }
    }

    /// Counts and lengths have 32 bits in the first version, 64 since.
    fn length(&mut self) -> Result<u64, String> {
        if self.version == 1 { self.u32().map(u64::from) } else { self.bytes().map(u64::from_le_bytes) }
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|_| cut_short())?;
        self.left = self.left.saturating_sub(N as u64);
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(count).ok_or_else(cut_short)?;
        self.reader.seek_relative(count as i64).map_err(|error| error.to_string())
    }
}

const ALIGNMENT: &[u8] = b"general.alignment";

fn width_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn cut_short() -> String {
    "its GGUF header is cut short".into()
}
