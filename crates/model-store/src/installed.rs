//! What is on disk. Nothing here uses the network.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, CATALOGUE};
use crate::checksum::checksum;
use crate::download::file_name;
use crate::error::Error;
use crate::layout::{MANIFEST, model_dir, models_dir};
use crate::reference::{ModelRef, is_plain, is_safe_file_name};

const GGUF_MAGIC: [u8; 4] = *b"GGUF";
const VERSION_HEX_DIGITS: usize = 12;
const MODELS_MAX: usize = 10_000;

/// How a model's files are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// One `.gguf` file with weights, tokenizer and metadata.
    Gguf,
    /// A directory with `config.json`, `tokenizer.json` and `*.safetensors`.
    Safetensors,
}

/// A model that is on disk, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedModel {
    /// What to call it: the catalogue's name, `OWNER/REPO`, or the file's name without its ending.
    pub name: String,
    /// The `.gguf` file, or the directory.
    pub path: PathBuf,
    /// How to read it.
    pub format: ModelFormat,
    /// The size of its files, in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of its one file, where it has just been checked.
    pub(crate) sha256: Option<String>,
    /// What a registry calls this version of it.
    pub(crate) version: Option<String>,
}

impl ResolvedModel {
    /// The same files under the name and version that a registry has them under.
    #[must_use]
    pub fn registered(self, name: String, version: String) -> Self {
        Self { name, version: Some(version), ..self }
    }

    /// The registry's version, or else the first 12 hex digits of its checksum, which is not taken again where it is
    /// known.
    ///
    /// # Errors
    /// As [`crate::checksum`].
    pub fn version(&self) -> Result<String, Error> {
        if let Some(version) = &self.version {
            return Ok(version.clone());
        }
        let mut sum = self.sha256.clone().map_or_else(|| checksum(&self.path), Ok)?;
        sum.truncate(VERSION_HEX_DIGITS);
        Ok(sum)
    }
}

/// A row of [`list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// What to write to get it; [`ModelRef::parse`] reads it.
    pub reference: String,
    /// What it is, in a line; empty where only its files are known.
    pub description: String,
    /// Its size, in bytes, on disk or as it will be.
    pub size_bytes: u64,
    /// Where it is, if it is there.
    pub installed: Option<ResolvedModel>,
}

/// What a pull from the hub leaves in the directory as its last act.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The reference that was pulled.
    pub(crate) reference: String,
    /// The commit that it stood for.
    pub(crate) commit: String,
    pub(crate) format: ModelFormat,
    pub(crate) files: Vec<ManifestFile>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManifestFile {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

/// Finds a model on disk.
///
/// # Errors
/// [`Error::NotInstalled`] for one that [`crate::pull`] could fetch, [`Error::UnknownModel`] for a name that nobody
/// knows, [`Error::NotAModel`] for a path or directory that holds no model.
pub fn resolve(root: &Path, reference: &ModelRef) -> Result<ResolvedModel, Error> {
    if let Some(model) = find(root, reference)? {
        return Ok(model);
    }
    match reference {
        ModelRef::Name(name) if catalogue::find(name).is_none() => {
            Err(Error::UnknownModel { name: name.clone(), known: catalogue::names() })
        }
        _ => Err(Error::NotInstalled { reference: reference.to_string() }),
    }
}

/// The model, if all of it is there.
pub(crate) fn find(root: &Path, reference: &ModelRef) -> Result<Option<ResolvedModel>, Error> {
    let Some(dir) = model_dir(root, reference) else {
        return match reference {
            ModelRef::Path(path) => inspect(path).map(Some),
            _ => Ok(None),
        };
    };
    let name = match reference {
        ModelRef::Name(name) => name.clone(),
        ModelRef::Hub(hub) => hub.repository(),
        ModelRef::Path(path) => file_name(path),
    };
    let files: Vec<(String, u64)>;
    let format;
    match reference {
        ModelRef::Name(name) => match catalogue::find(name) {
            Some(entry) => {
                files = entry.files.iter().map(|file| (file.name.to_owned(), file.size_bytes)).collect();
                format = entry.format;
            }
            None if dir.is_dir() => {
                return inspect(&dir).map(|model| Some(ResolvedModel { name: name.clone(), ..model }));
            }
            None => return Ok(None),
        },
        // Without its manifest a directory may lack files that only the hub knows of.
        _ => match read_manifest(&dir) {
            Some(manifest) => {
                files = manifest.files.iter().map(|file| (file.name.clone(), file.size_bytes)).collect();
                format = manifest.format;
            }
            None => return Ok(None),
        },
    }
    Ok(find_files(&dir, name, format, &files))
}

/// The model of these files and sizes, if they are all there.
pub(crate) fn find_files(
    dir: &Path,
    name: String,
    format: ModelFormat,
    files: &[(String, u64)],
) -> Option<ResolvedModel> {
    for (file, size_bytes) in files {
        if fs::metadata(dir.join(file)).ok()?.len() != *size_bytes {
            return None;
        }
    }
    let path = match format {
        ModelFormat::Gguf => dir.join(&files.first()?.0),
        ModelFormat::Safetensors => dir.to_owned(),
    };
    let size_bytes = files.iter().map(|(_, size)| size).sum();
    Some(ResolvedModel { name, path, format, size_bytes, sha256: None, version: None })
}

/// Every installed model, and what else the catalogue has: the catalogue first, in its order, then the others by name.
///
/// # Errors
/// [`Error::Io`] where the cache cannot be listed. A cache that does not exist yet is empty.
pub fn list(root: &Path) -> Result<Vec<ListedModel>, Error> {
    let mut rows = Vec::new();
    for entry in CATALOGUE {
        rows.push(ListedModel {
            reference: entry.name.to_owned(),
            description: format!("{} ({})", entry.description, entry.license),
            size_bytes: entry.size_bytes(),
            installed: find(root, &ModelRef::Name(entry.name.to_owned()))?,
        });
    }
    let models = models_dir(root);
    if !models.exists() {
        return Ok(rows);
    }
    let mut references = BTreeSet::new();
    for entry in fs::read_dir(&models).map_err(Error::io("list", &models))?.take(MODELS_MAX) {
        let entry = entry.map_err(Error::io("list", &models))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(manifest) = read_manifest(&entry.path()) {
            references.insert(manifest.reference);
        } else if is_plain(&name) && catalogue::find(&name).is_none() {
            references.insert(name);
        }
    }
    for reference in references {
        let named = match ModelRef::parse(&reference) {
            Ok(named @ ModelRef::Hub(_)) => named,
            // A file of this name in the current directory must not stand in for the cache's.
            _ => ModelRef::Name(reference.clone()),
        };
        // A directory without a model is no news here; to resolve it says what is wrong.
        if let Ok(Some(model)) = find(root, &named) {
            rows.push(ListedModel {
                reference,
                description: String::new(),
                size_bytes: model.size_bytes,
                installed: Some(model),
            });
        }
    }
    Ok(rows)
}

fn read_manifest(dir: &Path) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    manifest.files.iter().all(|file| is_safe_file_name(&file.name)).then_some(manifest)
}

/// Tells what model lies at `path`.
fn inspect(path: &Path) -> Result<ResolvedModel, Error> {
    let refuse = |reason: &str| Error::NotAModel { path: path.to_owned(), reason: reason.to_owned() };
    let metadata = fs::metadata(path).map_err(|error| refuse(&error.to_string().to_lowercase()))?;
    if !metadata.is_dir() {
        // Opening a pipe would wait for somebody to write into it.
        if !metadata.is_file() {
            return Err(refuse("it is neither a file nor a directory"));
        }
        if !is_gguf(path).map_err(|error| refuse(&error.to_string().to_lowercase()))? {
            return Err(refuse("it does not begin as a GGUF file does"));
        }
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        return Ok(ResolvedModel {
            name,
            path: path.to_owned(),
            format: ModelFormat::Gguf,
            size_bytes: metadata.len(),
            sha256: None,
            version: None,
        });
    }
    let mut ggufs = Vec::new();
    let (mut has_weights, mut has_config, mut size_bytes) = (false, false, 0);
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let entry = entry.map_err(Error::io("list", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = entry.path();
        if name.starts_with('.') || !file.is_file() {
            continue;
        }
        size_bytes += fs::metadata(&file).map_or(0, |metadata| metadata.len());
        has_config |= name == "config.json";
        has_weights |= name.ends_with(".safetensors");
        if name.ends_with(".gguf") {
            ggufs.push(file);
        }
    }
    match (&ggufs[..], has_config && has_weights) {
        ([gguf], false) => inspect(gguf),
        ([], true) => Ok(ResolvedModel {
            // `.` and `..` have no name of their own.
            name: file_name(&fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())),
            path: path.to_owned(),
            format: ModelFormat::Safetensors,
            size_bytes,
            sha256: None,
            version: None,
        }),
        ([], false) => Err(refuse("it has neither a .gguf file nor both config.json and *.safetensors")),
        _ => Err(refuse("it has several models; name the file")),
    }
}

fn is_gguf(path: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(GGUF_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start == GGUF_MAGIC)
}

#[cfg(test)]
mod tests;
