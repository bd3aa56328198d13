//! Models that are named by a version in the registry, `registry:NAME@SELECTOR`.

use anyhow::Result;
use model_store::{ModelRef, Progress, ResolvedModel, Silent};
use registry::{Cache, Error, Reference, Registry, Selector, Source, Version};

use crate::config::Config;
use crate::models::cache_root;

/// What a version is called where there is nothing to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The model's name.
    pub(crate) name: String,
    /// The version's number.
    pub(crate) version: String,
}

/// The registry that is configured.
pub(crate) fn open(config: &Config) -> Result<Registry> {
    config.validate_registry()?;
    let cache = Cache { root: cache_root(config)?, fetch: config.model.fetch.clone() };
    Ok(Registry::open_in(&config.registry, cache)?)
}

/// A reference's version, its file with the checksum that was registered. Blocking, and may take minutes.
pub(crate) fn fetch(config: &Config, reference: &str, progress: &dyn Progress) -> Result<ResolvedModel> {
    let registry = open(config)?;
    let version = version(&registry, reference)?;
    let path = registry.fetch(&version, progress)?;
    let model = model_store::resolve(&cache_root(config)?, &ModelRef::Path(path))?;
    Ok(model.registered(version.name, version.version.to_string()))
}

/// The same for a version whose file is on this machine. Blocking, as its checksum may have to be taken.
pub(crate) fn find(config: &Config, reference: &str) -> Result<ResolvedModel> {
    let registry = open(config)?;
    let version = version(&registry, reference)?;
    if matches!(version.source, Source::Remote(_)) && registry.local_path(&version).is_none() {
        return Err(model_store::Error::NotInstalled { reference: reference.to_owned() }.into());
    }
    fetch(config, reference, &Silent)
}

/// A reference's name and version, for an engine that loads nothing. Blocking.
pub(crate) fn label(config: &Config, reference: &str) -> Result<Label> {
    let version = version(&open(config)?, reference)?;
    Ok(Label { name: version.name, version: version.version.to_string() })
}

/// The version that an alias of a model means, or nothing where the registry has no such model or alias. Blocking.
pub(crate) fn version_of(registry: &Registry, model: &str, alias: &str) -> Result<Option<String>, Error> {
    let found = alias.parse().and_then(|selector: Selector| registry.get(model, &selector));
    match found {
        Ok(version) => Ok(Some(version.version.to_string())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a registry that works has not got what was asked for: models and versions may come from elsewhere, and have
/// names that it would not take.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(
        error,
        Error::BadName { .. }
            | Error::BadReference { .. }
            | Error::UnknownModel { .. }
            | Error::UnknownVersion { .. }
            | Error::UnknownAlias { .. }
    )
}

fn version(registry: &Registry, reference: &str) -> Result<Version> {
    let Reference { name, selector } = reference.parse()?;
    Ok(registry.get(&name, &selector)?)
}
