//! The configuration: one TOML file, environment variables over it, flags over those. One section a part, and each
//! part owns its own.

mod environment;
mod file;
mod show;
mod suggest;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::args::CommonArgs;

/// Every setting there is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) gateway: gateway::Config,
    pub(crate) worker: worker::Config,
    pub(crate) model: ModelConfig,
    pub(crate) engine: engine::Config,
    pub(crate) scheduler: engine::SchedulerConfig,
    pub(crate) routing: routing::Config,
    pub(crate) response_cache: response_cache::Config,
    pub(crate) log: telemetry::LogConfig,
}

/// Which model, and where models come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// A name, `hf:OWNER/REPO`, or a path.
    pub(crate) name: String,
    /// What requests call it; its own name unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) served_name: Option<String>,
    /// Where models are kept; the user's cache folder unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// How they are fetched.
    pub(crate) fetch: model_store::Config,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            name: "smollm2-135m-instruct".into(),
            served_name: None,
            cache_dir: None,
            fetch: model_store::Config::default(),
        }
    }
}

/// Whose sections must be sound for this process to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Up,
    Gateway,
    Worker,
}

impl Config {
    /// Reads the file that the flags name and the process's environment.
    pub(crate) fn load(common: &CommonArgs) -> Result<Self> {
        let mut table = match &common.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
                file::parse(&path.display().to_string(), &text)?
            }
            None => toml::Table::new(),
        };
        environment::apply(&mut table, std::env::vars())?;
        let mut config: Self = table.try_into().context("the configuration is wrong")?;
        if let Ok(filter) = std::env::var("TENK_LOG") {
            config.log.filter = filter;
        }
        if let Some(folder) = std::env::var_os("TENK_CACHE_DIR") {
            config.model.cache_dir = Some(folder.into());
        }
        if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
            config.model.fetch.hub_endpoint = endpoint;
        }
        if let Some(format) = &common.log_format {
            config.log.format = serde_json::from_value(format.as_str().into())
                .with_context(|| format!("--log-format is `{format}`, but must be text or json"))?;
        }
        Ok(config)
    }

    /// Asks each part that the role runs whether its section is sound.
    pub(crate) fn validate(&self, role: Role) -> Result<()> {
        self.log.validate().context("[log]")?;
        if role != Role::Worker {
            self.gateway.validate()?;
            self.routing.validate().context("[routing]")?;
            self.response_cache.validate().context("[response_cache]")?;
        }
        if role == Role::Gateway {
            return Ok(());
        }
        if role == Role::Worker {
            self.worker.validate()?;
        } else {
            // Here the workers are on loopback, whatever their section says.
            let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            worker::Config { listen, ..self.worker.clone() }.validate()?;
        }
        self.model.fetch.validate().context("[model.fetch]")?;
        self.engine.validate()?;
        let num_blocks = self.engine.kv_cache_tokens / self.scheduler.block_size.max(1);
        let scheduler = engine::SchedulerConfig { num_blocks, ..self.scheduler.clone() };
        scheduler.validate().context("[scheduler]")
    }

    /// Every setting in force as a configuration file, secrets masked.
    pub(crate) fn show(&self) -> Result<String> {
        show::show(self)
    }
}
