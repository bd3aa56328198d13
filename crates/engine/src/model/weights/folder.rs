//! A Hugging Face folder: which safetensors files belong to the model, and their tensors, read some rows at a time.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use super::TensorSummary;
use crate::EngineError;

/// The format's own bound on a header.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    files: Vec<SafetensorsFile>,
    /// Tensor to its file.
    file_of: HashMap<String, usize>,
}

#[derive(Debug)]
struct SafetensorsFile {
    path: PathBuf,
    file: File,
    /// Where the header ends and the tensors begin.
    data_offset: u64,
    metadata: Metadata,
}

impl Folder {
    /// Reads the headers of the model's files.
    pub(super) fn open(path: &Path) -> Result<Self, EngineError> {
        let mut files = Vec::new();
        let mut file_of = HashMap::new();
        for path in model_files(path)? {
            let file = SafetensorsFile::open(path)?;
            for name in file.metadata.offset_keys() {
                if let Some(other) = file_of.insert(name.clone(), files.len()) {
                    let other: &SafetensorsFile = &files[other];
                    let reason =
                        format!("`{name}` is in {} too; remove one of the files", other.path.display());
                    return Err(EngineError::load(&file.path, reason));
                }
            }
            files.push(file);
        }
        Ok(Self { path: path.to_owned(), files, file_of })
    }

    /// `config.json`.
    pub(super) fn config(&self) -> Result<Value, EngineError> {
        read_json(&self.path.join("config.json"))?
            .ok_or_else(|| EngineError::load(&self.path, "the folder holds no config.json"))
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        let (_, info) = self.info(name)?;
        Some(&info.shape)
    }

    /// Some rows, as they are stored, on the CPU.
    pub(super) fn load(&self, name: &str, rows: Range<usize>) -> Result<Tensor, EngineError> {
        let missing = || EngineError::load(&self.path, format!("it has no tensor `{name}`"));
        let (SafetensorsFile { path, file, data_offset, .. }, info) = self.info(name).ok_or_else(missing)?;
        let dtype = match info.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            // Numbers of 8 bits or less are meaningless without their scales, which are tensors of their own.
            other => {
                let reason =
                    format!("`{name}` is stored as {other}, but only F64, F32, F16 and BF16 are read here");
                return Err(EngineError::load(path, reason));
            }
        };
        let mut shape = info.shape.clone();
        let row_bytes = shape[1..].iter().product::<usize>() * dtype.size_in_bytes();
        shape[0] = rows.len();
        let mut bytes = vec![0; rows.len() * row_bytes];
        let start = data_offset + (info.data_offsets.0 + rows.start * row_bytes) as u64;
        file.read_exact_at(&mut bytes, start).map_err(|error| EngineError::load(path, error))?;
        Ok(Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?)
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = TensorSummary<'_>> {
        self.file_of.iter().filter_map(|(name, file)| {
            let info = self.files[*file].metadata.info(name)?;
            Some(TensorSummary {
                name,
                dtype: info.dtype.to_string().to_lowercase(),
                is_four_bits: false,
                num_elements: info.shape.iter().product(),
            })
        })
    }

    fn info(&self, name: &str) -> Option<(&SafetensorsFile, &TensorInfo)> {
        let file = &self.files[*self.file_of.get(name)?];
        Some((file, file.metadata.info(name)?))
    }
}

impl SafetensorsFile {
    fn open(path: PathBuf) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::load(&path, reason);
        let mut file = File::open(&path).map_err(|error| refuse(error.to_string()))?;
        let file_bytes = file.metadata()?.len();
        let mut header_bytes = [0; 8];
        file.read_exact(&mut header_bytes).map_err(|_| refuse("it is cut short".into()))?;
        let header_bytes = u64::from_le_bytes(header_bytes);
        if header_bytes > HEADER_BYTES_MAX || header_bytes > file_bytes.saturating_sub(8) {
            return Err(refuse("it is not a safetensors file, or is cut short in its header".into()));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| refuse(format!("its safetensors header is broken: {error}")))?;
        let data_offset = 8 + header_bytes;
        // The tensors lie one after the other without gaps; reading the header checked that.
        let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        match data_offset.checked_add(end) {
            Some(end) if end == file_bytes => Ok(Self { path, file, data_offset, metadata }),
            _ => Err(refuse(format!("it has {file_bytes} bytes, its tensors not: damaged or cut short"))),
        }
    }
}

/// `model.safetensors`, else the files that the index names, else every `.safetensors` there is. A folder may hold
/// the same weights twice, under other names.
fn model_files(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let whole = folder.join("model.safetensors");
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    if let Some(files) = indexed_files(folder)? {
        return Ok(files);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| EngineError::load(folder, error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    if files.is_empty() {
        let reason = "the folder holds no .safetensors; give a .gguf file or a model folder";
        return Err(EngineError::load(folder, reason));
    }
    Ok(files)
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

fn indexed_files(folder: &Path) -> Result<Option<Vec<PathBuf>>, EngineError> {
    let path = folder.join("model.safetensors.index.json");
    let Some(index) = read_json::<Index>(&path)? else { return Ok(None) };
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let files = names.iter().map(|name| {
        // An index is a stranger's word: it leads to no other folder.
        let is_plain = Path::new(name).file_name().is_some_and(|plain| plain == name.as_str());
        let file = folder.join(name);
        if is_plain && file.is_file() {
            Ok(file)
        } else {
            let name: String = name.chars().take(100).collect();
            Err(EngineError::load(&path, format!("it names the file `{name}`, which is not in the folder")))
        }
    });
    files.collect::<Result<_, _>>().map(Some)
}

/// `None` for a file that does not exist.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| EngineError::load(path, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(EngineError::load(path, error)),
    }
}
