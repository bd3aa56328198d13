//! From a profile's name to a model that only takes its time.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use engine::profile::{self, Profile};
use engine::{LoadOptions, LoadedModel};
use registry::Reference;

use crate::config::Config;
use crate::registered::Label;

/// What computes answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    /// The model
    #[default]
    Model,
    /// Nothing: made-up words come in the time that a device would take, by its profile
    Simulated,
}

/// The profiles that were asked for, or the default one; none where the model itself is to answer.
pub(crate) fn profiles(engine: EngineKind, names: &[String], models: &[String]) -> Result<Vec<Profile>> {
    if engine == EngineKind::Model {
        if !names.is_empty() {
            bail!("--profile says whose time a simulation takes; add --engine simulated");
        }
        return Ok(Vec::new());
    }
    if !models.iter().all(|name| Reference::is_meant(name)) {
        bail!(
            "a simulated engine runs no model; leave --model out, and name a device and a model with --profile (of \
             registry:NAME@VERSION it takes the name and the version)"
        );
    }
    if names.is_empty() {
        return Ok(vec![profile::shipped(profile::DEFAULT_NAME)?]);
    }
    let found: Vec<Profile> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    for (at, profile) in found.iter().enumerate() {
        if found[..at].iter().any(|other| other.name == profile.name) {
            bail!("two profiles are called `{}`; change the name in one of the files", profile.name);
        }
    }
    Ok(found)
}

/// A shipped profile by its name, or one in a file.
pub(crate) fn find(name: &str) -> Result<Profile> {
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(profile::shipped(name)?);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Profile::parse(&text).with_context(|| format!("{name} is no profile"))
}

/// The engine's bounds as the profile has them, where nothing else was said.
pub(crate) fn set_limits(config: &mut Config, profile: &Profile) {
    let limits = profile.limits;
    if !config.is_given("engine.kv_cache_tokens") {
        config.engine.kv_cache_tokens = limits.kv_cache_tokens;
    }
    if !config.is_given("scheduler.max_num_seqs") {
        config.scheduler.max_num_seqs = limits.max_num_seqs;
    }
    if !config.is_given("scheduler.max_num_batched_tokens") {
        config.scheduler.max_num_batched_tokens = limits.max_num_batched_tokens;
    }
}

/// A model under the profile's name and digest, the version's that it stands for, or the name that requests are to use.
pub(crate) fn load(config: &Config, profile: Profile, label: Option<Label>) -> Result<Arc<LoadedModel>> {
    let own = || Label { name: profile.name.clone(), version: profile.digest() };
    let Label { name, version } = label.unwrap_or_else(own);
    let name = config.model.served_name.clone().unwrap_or(name);
    let options = LoadOptions { name, version, config: config.engine.clone() };
    Ok(Arc::new(LoadedModel::simulated(profile, options)?))
}
