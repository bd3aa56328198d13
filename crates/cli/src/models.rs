//! From a model's name to a model in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use engine::{EngineError, LoadOptions, LoadedModel};
use model_store::{Error, ModelRef, Progress, PullOptions, ResolvedModel, Silent, TerminalProgress};
use registry::Reference;

use crate::config::{Config, nearest};
use crate::registered;
use crate::voice::Voice;

/// Where models lie.
pub(crate) fn cache_root(config: &Config) -> Result<PathBuf> {
    match &config.model.cache_dir {
        Some(folder) => Ok(folder.clone()),
        None => Ok(model_store::default_cache_root()?),
    }
}

/// Finds a model that is there.
pub(crate) fn find(config: &Config, name: &str) -> Result<ResolvedModel> {
    let root = cache_root(config)?;
    if Reference::is_meant(name) {
        return registered::find(config, name);
    }
    let found = ModelRef::parse(name).and_then(|reference| model_store::resolve(&root, &reference));
    found.map_err(|error| with_nearest(error, &root))
}

/// Finds a model, fetching it if it is not there. Blocking, and may take minutes.
pub(crate) fn pull(config: &Config, name: &str, voice: Voice) -> Result<ResolvedModel> {
    let root = cache_root(config)?;
    let options = PullOptions {
        config: config.model.fetch.clone(),
        hub_token: std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        ..PullOptions::new(&root)
    };
    let terminal = TerminalProgress::stderr();
    let progress: &dyn Progress = match voice {
        Voice::Plain => &terminal,
        Voice::Log => &Silent,
    };
    if Reference::is_meant(name) {
        return registered::fetch(config, name, progress);
    }
    let pulled =
        ModelRef::parse(name).and_then(|reference| model_store::pull(&reference, &options, progress));
    pulled.map_err(|error| with_nearest(error, &root))
}

/// Adds the name that was probably meant.
fn with_nearest(error: Error, root: &Path) -> anyhow::Error {
    let Error::UnknownModel { name, .. } = &error else { return error.into() };
    let known = model_store::list(root).unwrap_or_default();
    let known: Vec<&str> = known.iter().map(|model| model.reference.as_str()).collect();
    match nearest(name, &known) {
        Some(right) => anyhow!(
            "model `{name}` is unknown; did you mean `{right}`? A path or hf:OWNER/REPO will do, too, and \
             `tenk model list` shows all names"
        ),
        None => error.into(),
    }
}

/// Loads a model. Blocking, and takes seconds.
pub(crate) fn load(
    config: &Config,
    model: &ResolvedModel,
    served_name: &str,
    voice: Voice,
) -> Result<Arc<LoadedModel>> {
    let started = Instant::now();
    voice.say(&format!("loading {served_name} ({})", megabytes(model.size_bytes)));
    let version = model.version()?;
    let options = LoadOptions { name: served_name.to_owned(), version, config: config.engine.clone() };
    let loaded = LoadedModel::load(&model.path, options).map_err(|error| match error {
        // No other model would do better.
        EngineError::Device(_) => error.into(),
        error => {
            let advice = format!("`{served_name}` cannot be served, choose another with --model");
            anyhow::Error::from(error).context(advice)
        }
    })?;
    let loaded = loaded.with_clock(unix_s);
    voice.say(&format!(
        "loaded {served_name} version {} in {:.1} s, context {} tokens",
        loaded.version(),
        started.elapsed().as_secs_f64(),
        loaded.max_model_len()
    ));
    Ok(Arc::new(loaded))
}

/// Seconds since 1970.
fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

/// Bytes for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
