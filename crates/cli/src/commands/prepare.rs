//! From what a user calls a model to a model in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use engine::{LoadOptions, LoadedModel};
use model_store::{ModelRef, PullOptions, ResolvedModel, TerminalProgress, catalogue};

use crate::config::{Config, suggest};

/// Where models are kept.
pub(super) fn cache_root(config: &Config) -> anyhow::Result<PathBuf> {
    match &config.model.cache_dir {
        Some(path) => Ok(path.clone()),
        None => Ok(model_store::default_cache_root()?),
    }
}

/// Finds a model on disk or fetches it, with progress on standard error.
pub(super) fn pull(config: &Config, model: &str) -> anyhow::Result<ResolvedModel> {
    let options = PullOptions {
        config: config.model_store.clone(),
        hub_token: std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()),
        ..PullOptions::new(cache_root(config)?)
    };
    let reference = ModelRef::parse(model).map_err(with_nearest)?;
    model_store::pull(&reference, &options, &TerminalProgress::stderr()).map_err(with_nearest)
}

/// Finds a model on disk.
pub(super) fn resolve(config: &Config, model: &str) -> anyhow::Result<ResolvedModel> {
    let reference = ModelRef::parse(model).map_err(with_nearest)?;
    model_store::resolve(&cache_root(config)?, &reference).map_err(with_nearest)
}

/// Adds the nearest known name where a name is unknown.
fn with_nearest(error: model_store::Error) -> anyhow::Error {
    let near = match &error {
        model_store::Error::UnknownModel { name, .. } => {
            suggest::nearest(name, catalogue::CATALOGUE.iter().map(|entry| entry.name))
        }
        _ => None,
    };
    match near {
        Some(near) => anyhow::anyhow!("{error}; did you mean `{near}`?"),
        None => error.into(),
    }
}

/// The name that requests use for a model, unless another was chosen.
pub(super) fn served_name(reference: &ModelRef, resolved: &ResolvedModel) -> String {
    match reference {
        ModelRef::Path(path) => stem(path).unwrap_or_else(|| resolved.name.to_lowercase()),
        ModelRef::Name(_) | ModelRef::Hub(_) => resolved.name.clone(),
    }
}

fn stem(path: &Path) -> Option<String> {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    Some(name?.to_str()?.to_lowercase())
}

/// Fetches a model if need be and loads it, telling on standard error how far it is.
pub(super) async fn load(
    config: &Config,
    model: &str,
    served_as: Option<String>,
) -> anyhow::Result<Arc<LoadedModel>> {
    let (config, model) = (config.clone(), model.to_owned());
    tokio::task::spawn_blocking(move || load_blocking(&config, &model, served_as))
        .await
        .context("loading the model broke off")?
}

fn load_blocking(
    config: &Config,
    model: &str,
    served_as: Option<String>,
) -> anyhow::Result<Arc<LoadedModel>> {
    let resolved = pull(config, model)?;
    let name = match served_as {
        Some(name) => name,
        None => served_name(&ModelRef::parse(model)?, &resolved),
    };
    let started = Instant::now();
    eprintln!("loading {name} from {} ({})", resolved.path.display(), megabytes(resolved.size_bytes));
    let version = model_store::version_of(&resolved.path)?;
    let options = LoadOptions { name: name.clone(), version: version.clone(), config: config.engine.clone() };
    let model = LoadedModel::load(&resolved.path, options).with_context(|| {
        format!("model `{name}` cannot be served; if its file is damaged, delete it and run `tenk model pull` again")
    })?;
    eprintln!("loaded {name}, version {version}, in {:.1} s", started.elapsed().as_secs_f64());
    Ok(Arc::new(model))
}

/// Bytes for people.
pub(super) fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 1000.0 { format!("{megabytes:.1} MB") } else { format!("{:.2} GB", megabytes / 1000.0) }
}

#[cfg(test)]
mod tests {
    use model_store::ModelFormat;

    use super::*;

    #[test]
    fn a_model_is_served_under_its_name_or_its_files_in_lower_case() {
        let resolved = |name: &str| ResolvedModel {
            name: name.to_owned(),
            path: PathBuf::from("/cache/file.gguf"),
            format: ModelFormat::Gguf,
            size_bytes: 1,
        };
        let name = ModelRef::parse("smollm2-135m-instruct").unwrap();
        assert_eq!(served_name(&name, &resolved("smollm2-135m-instruct")), "smollm2-135m-instruct");
        let path = ModelRef::parse("./My.Model.Q8_0.gguf").unwrap();
        assert_eq!(served_name(&path, &resolved("My.Model.Q8_0")), "my.model.q8_0");
        let hub = ModelRef::parse("hf:Owner/Repo").unwrap();
        assert_eq!(served_name(&hub, &resolved("Owner/Repo")), "Owner/Repo");
    }

    #[test]
    fn sizes_are_told_in_megabytes_and_gigabytes() {
        assert_eq!(megabytes(98_362_432), "98.4 MB");
        assert_eq!(megabytes(7_250_000_000), "7.25 GB");
    }
}
