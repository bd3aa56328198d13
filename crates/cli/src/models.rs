//! From a model's name to a model in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use engine::{LoadOptions, LoadedModel};
use model_store::{ModelRef, PullOptions, ResolvedModel, TerminalProgress};

use crate::config::Config;

/// Where models lie.
pub(crate) fn cache_root(config: &Config) -> Result<PathBuf> {
    match &config.model.cache_dir {
        Some(folder) => Ok(folder.clone()),
        None => Ok(model_store::default_cache_root()?),
    }
}

/// Finds a model, fetching it if it is not there.
pub(crate) fn pull(config: &Config, name: &str) -> Result<ResolvedModel> {
    let options = PullOptions {
        config: config.model.fetch.clone(),
        hub_token: std::env::var("HF_TOKEN").ok(),
        ..PullOptions::new(cache_root(config)?)
    };
    Ok(model_store::pull(&ModelRef::parse(name)?, &options, &TerminalProgress::stderr())?)
}

/// Pulls and loads a model. Blocking, and takes seconds.
pub(crate) fn load(config: &Config, name: &str, served_name: Option<&str>) -> Result<Arc<LoadedModel>> {
    let resolved = pull(config, name)?;
    let served_name = served_name.unwrap_or(&resolved.name).to_owned();
    let started = Instant::now();
    eprintln!("loading {served_name} ({})", megabytes(resolved.size_bytes));
    let version = model_store::version_of(&resolved.path)?;
    let options = LoadOptions { name: served_name.clone(), version, config: config.engine.clone() };
    let model = LoadedModel::load(&resolved.path, options)
        .with_context(|| format!("`{served_name}` cannot be served; choose another with --model"))?;
    eprintln!(
        "loaded {served_name} version {} in {:.1} s, context {} tokens",
        model.version(),
        started.elapsed().as_secs_f64(),
        model.max_model_len()
    );
    Ok(Arc::new(model))
}

/// Bytes for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
