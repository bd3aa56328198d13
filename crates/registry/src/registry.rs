//! The one face of both backends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use model_store::{Progress, Silent, default_cache_root};

use crate::config::Config;
use crate::embedded::Embedded;
use crate::error::Error;
use crate::mlflow::Mlflow;
use crate::name::{check_alias, check_name};
use crate::reference::Selector;
use crate::version::{Measured, NewVersion, Source, Version, check_notes};

const FILE: &str = "registry.json";

/// Where models are kept, and how they get there.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The cache's root; see [`model_store::default_cache_root`].
    pub root: PathBuf,
    /// Time-outs, retries and limits of a download.
    pub fetch: model_store::Config,
}

/// Model versions, in a file or on an MLflow server.
#[derive(Debug)]
pub struct Registry {
    backend: Backend,
    cache: Cache,
}

#[derive(Debug)]
enum Backend {
    Embedded(Embedded),
    Mlflow(Box<Mlflow>),
}

/// Calls the same method of whichever backend it is.
macro_rules! ask {
    ($registry:expr, $method:ident($($argument:expr),*)) => {
        match &$registry.backend {
            Backend::Embedded(embedded) => embedded.$method($($argument),*),
            Backend::Mlflow(mlflow) => mlflow.$method($($argument),*),
        }
    };
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// The version.
    pub version: Version,
    /// Whether it was not there before. If it was, a file with the same bytes had been registered under the name.
    pub is_new: bool,
}

impl Registry {
    /// With the models' cache where it is by default. Touches neither disk nor network.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that makes no sense, [`Error::Store`] where there is no place for a cache.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let cache = Cache { root: default_cache_root()?, fetch: model_store::Config::default() };
        Self::open_in(config, cache)
    }

    /// With another cache for models; the file is in it, too, unless `config` says where.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that makes no sense.
    pub fn open_in(config: &Config, cache: Cache) -> Result<Self, Error> {
        config.validate()?;
        let backend = match &config.url {
            Some(url) => Backend::Mlflow(Box::new(Mlflow::new(url, config.timeout_s, &cache.fetch))),
            None => {
                let path = config.path.clone().unwrap_or_else(|| cache.root.join(FILE));
                Backend::Embedded(Embedded::new(path, config.timeout_s))
            }
        };
        Ok(Self { backend, cache })
    }

    /// Where it is, for people: a file's path or a server's address.
    pub fn place(&self) -> String {
        match &self.backend {
            Backend::Embedded(embedded) => embedded.path().display().to_string(),
            Backend::Mlflow(mlflow) => mlflow.url().to_owned(),
        }
    }

    /// Makes the next version of a name, or gives the one that has the same checksum. Reads the whole file, and uploads
    /// it where the registry is a server.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::BadMetric`] or [`Error::BadSource`] for what cannot be registered; the file's and
    /// the backend's errors.
    pub fn register(&self, new: &NewVersion) -> Result<Version, Error> {
        self.register_with(new, &Silent).map(|registered| registered.version)
    }

    /// The same, telling whether it is new and how an upload goes.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub fn register_with(&self, new: &NewVersion, progress: &dyn Progress) -> Result<Registered, Error> {
        new.check()?;
        let source = absolute(&new.source)?;
        let measured = measure(&source)?;
        let new = NewVersion { source, ..new.clone() };
        let registered = match &self.backend {
            Backend::Embedded(embedded) => embedded.register(&new, &measured)?,
            Backend::Mlflow(mlflow) => mlflow.register(&new, &measured, progress)?,
        };
        let Version { name, version, .. } = &registered.version;
        tracing::debug!(name, version, is_new = registered.is_new, "a version was registered");
        Ok(registered)
    }

    /// Every name that has versions, in order.
    ///
    /// # Errors
    /// The backend's.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        ask!(self, names())
    }

    /// All versions of a name in the order of their numbers; none for a name that is not there.
    ///
    /// # Errors
    /// [`Error::BadName`], and the backend's.
    pub fn versions(&self, name: &str) -> Result<Vec<Version>, Error> {
        check_name(name)?;
        ask!(self, versions(name))
    }

    /// One version.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::UnknownVersion`] or [`Error::UnknownAlias`], each with what there is, and the
    /// backend's.
    pub fn get(&self, name: &str, selector: &Selector) -> Result<Version, Error> {
        check_name(name)?;
        ask!(self, get(name, selector))
    }

    /// Makes an alias mean this version from now on.
    ///
    /// # Errors
    /// [`Error::BadName`] for an alias that cannot be one; [`Error::UnknownModel`] or [`Error::UnknownVersion`]; the
    /// backend's.
    pub fn set_alias(&self, name: &str, alias: &str, version: u64) -> Result<(), Error> {
        check_name(name)?;
        check_alias(alias)?;
        ask!(self, set_alias(name, alias, version))
    }

    /// Takes an alias away, and says whether it was there.
    ///
    /// # Errors
    /// [`Error::BadName`], and the backend's.
    pub fn remove_alias(&self, name: &str, alias: &str) -> Result<bool, Error> {
        check_name(name)?;
        check_alias(alias)?;
        ask!(self, remove_alias(name, alias))
    }

    /// The aliases of a name, and the version that each means; none for a name that is not there.
    ///
    /// # Errors
    /// [`Error::BadName`], and the backend's.
    pub fn aliases(&self, name: &str) -> Result<BTreeMap<String, u64>, Error> {
        check_name(name)?;
        ask!(self, aliases(name))
    }

    /// Adds metrics and tags to a version, over those of the same names.
    ///
    /// # Errors
    /// [`Error::BadName`] or [`Error::BadMetric`]; [`Error::UnknownModel`] or [`Error::UnknownVersion`]; the backend's.
    pub fn annotate(
        &self,
        name: &str,
        version: u64,
        metrics: &BTreeMap<String, f64>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Version, Error> {
        check_name(name)?;
        check_notes(metrics, tags)?;
        ask!(self, annotate(name, version, metrics, tags))
    }

    /// A version's file on this machine, with the checksum that was registered: a path as it is, anything else fetched
    /// into the models' cache unless it is there.
    ///
    /// A file whose size and time are those that its checksum was last computed for is not read again; see
    /// [`model_store::checksum`].
    ///
    /// # Errors
    /// [`Error::Changed`] for a file that is not the one that was registered, [`Error::Simulated`] for a version without
    /// one, [`Error::CannotFetch`] for one that nobody vouches for, and those of the download.
    pub fn fetch(&self, version: &Version, progress: &dyn Progress) -> Result<PathBuf, Error> {
        match &version.source {
            Source::Simulated => {
                Err(Error::Simulated { name: version.name.clone(), version: version.version })
            }
            Source::Path(path) => {
                verify(version, path)?;
                Ok(path.clone())
            }
            Source::Remote(address) => match &self.backend {
                Backend::Mlflow(mlflow) => mlflow.fetch(version, address, &self.cache, progress),
                Backend::Embedded(_) => Err(cannot_fetch(
                    version,
                    "a registry in a file knows no servers; register a file".into(),
                )),
            },
        }
    }

    /// A version's file, if it is on this machine; it may have been changed. Uses no network.
    pub fn local_path(&self, version: &Version) -> Option<PathBuf> {
        let path = match &version.source {
            Source::Simulated => None,
            Source::Path(path) => Some(path.clone()),
            Source::Remote(address) => crate::mlflow::cached_path(version, address, &self.cache).ok(),
        };
        path.filter(|path| path.exists())
    }
}

/// Refuses a file that is not the one that was registered.
fn verify(version: &Version, path: &Path) -> Result<(), Error> {
    let Some(expected) = &version.checksum else {
        let reason = "it was registered without a checksum; register it with `tenk model register`";
        return Err(cannot_fetch(version, reason.into()));
    };
    let actual = model_store::checksum(path)?;
    if actual == *expected {
        return Ok(());
    }
    Err(Error::Changed {
        name: version.name.clone(),
        version: version.version,
        path: path.to_owned(),
        expected: expected.clone(),
        actual,
    })
}

pub(crate) fn cannot_fetch(version: &Version, reason: String) -> Error {
    Error::CannotFetch {
        name: version.name.clone(),
        version: version.version,
        source_text: version.source.to_string(),
        reason,
    }
}

/// The same source, from wherever it is looked at.
fn absolute(source: &Source) -> Result<Source, Error> {
    let refuse =
        |reason: &str| Error::BadSource { source_text: source.to_string(), reason: reason.to_owned() };
    match source {
        Source::Simulated => Ok(Source::Simulated),
        Source::Remote(_) => Err(refuse("give a file or a folder of this machine")),
        Source::Path(path) => {
            let path = fs::canonicalize(path).map_err(Error::io("open", path))?;
            // It is kept as text.
            if path.to_str().is_none() {
                return Err(refuse("its path is no UTF-8; rename it"));
            }
            Ok(Source::Path(path))
        }
    }
}

fn measure(source: &Source) -> Result<Measured, Error> {
    let Source::Path(path) = source else { return Ok(Measured { checksum: None, size_bytes: 0 }) };
    let checksum = Some(model_store::checksum(path)?);
    Ok(Measured { checksum, size_bytes: size_bytes(path).map_err(Error::io("look at", path))? })
}

fn size_bytes(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        let metadata = fs::metadata(entry.path())?;
        bytes += if metadata.is_file() && !is_hidden { metadata.len() } else { 0 };
    }
    Ok(bytes)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
