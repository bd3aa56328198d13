//! The configuration: one TOML file, environment variables over it, flags over those. One section a part, and each
//! part owns its own.

mod environment;
mod explain;
mod file;
mod places;
mod show;
mod suggest;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use self::places::Places;
pub(crate) use self::suggest::nearest;

const SECTIONS: [&str; 10] = [
    "controller",
    "gateway",
    "worker",
    "model",
    "registry",
    "engine",
    "scheduler",
    "routing",
    "response_cache",
    "log",
];

/// With fewer, a tenant that knows one of its salts could try all secrets.
const SALT_SECRET_BYTES_MIN: usize = 16;

/// Every setting there is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) controller: controller::Config,
    pub(crate) gateway: gateway::Config,
    pub(crate) worker: worker::Config,
    pub(crate) model: ModelConfig,
    pub(crate) registry: registry::Config,
    pub(crate) engine: engine::Config,
    pub(crate) scheduler: engine::SchedulerConfig,
    pub(crate) routing: routing::Config,
    pub(crate) response_cache: response_cache::Config,
    pub(crate) log: telemetry::LogConfig,
    #[serde(skip)]
    places: Places,
}

/// Which model, and where models come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// A name, `hf:OWNER/REPO`, `registry:NAME@VERSION`, or a path.
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

/// Whose sections must be sound for a process to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything in one process
    Up,
    /// A gateway alone
    Gateway,
    /// A worker alone
    Worker,
    /// A controller alone
    Controller,
}

impl Config {
    /// Reads the file, if there is one, and the process's environment over it.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let mut places = Places::default();
        let mut table = path.map_or_else(|| Ok(toml::Table::new()), |path| file::read(path, &mut places))?;
        environment::apply(&mut table, &mut places, environment::variables())?;
        let mut config: Self = table.try_into().context("the configuration is wrong")?;
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(filter) = variable("TENK_LOG") {
            config.log.filter = filter.to_string_lossy().into_owned();
            places.set("log.filter", "TENK_LOG");
        }
        if let Some(folder) = variable("TENK_CACHE_DIR") {
            config.model.cache_dir = Some(folder.into());
            places.set("model.cache_dir", "TENK_CACHE_DIR");
        }
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            config.model.fetch.hub_endpoint = endpoint.to_string_lossy().into_owned();
            places.set("model.fetch.hub_endpoint", "HF_ENDPOINT");
        }
        Ok(Self { places, ..config })
    }

    /// Puts flags over it.
    pub(crate) fn with_flags(mut self, flags: impl FnOnce(&mut Self)) -> Result<Self> {
        let before = toml::Value::try_from(&self)?;
        flags(&mut self);
        let after = toml::Value::try_from(&self)?;
        // What a flag changed is no longer what the file or a variable said.
        self.places.retain(|setting| at(&before, setting) == at(&after, setting));
        Ok(self)
    }

    /// Whether the file or a variable set it.
    pub(crate) fn is_given(&self, setting: &str) -> bool {
        self.places.of(setting).is_some()
    }

    /// Asks each part that the role runs whether its section is sound.
    pub(crate) fn validate(&self, role: Role) -> Result<()> {
        self.log.validate().map_err(|error| self.refused("log.filter", error.to_string()))?;
        self.check_secrets(role)?;
        if matches!(role, Role::Up | Role::Controller) {
            self.ask("controller", self.controller.validate())?;
        }
        if matches!(role, Role::Up | Role::Gateway) {
            self.ask("gateway", self.gateway.validate())?;
            self.ask("routing", self.routing.validate())?;
            self.ask("response_cache", self.response_cache.validate())?;
        }
        match role {
            Role::Gateway | Role::Controller => return Ok(()),
            Role::Worker => self.ask("worker", self.worker.validate())?,
            Role::Up => {
                let refused = |error: worker::ConfigError| {
                    error.to_string().replace("worker.api_key", "gateway.worker_api_key")
                };
                self.ask("worker", self.embedded_worker().validate().map_err(refused))?;
            }
        }
        let served_name = self.model.served_name.as_ref();
        if served_name.is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control)) {
            let message = "`model.served_name` must have a character or more and none for control, as requests call the \
                           model by it";
            return Err(self.refused("model.served_name", message.into()));
        }
        let refused = |error| match error {
            model_store::Error::Config { key, reason } => format!("`{key}` {reason}"),
            other => other.to_string(),
        };
        self.ask("model.fetch", self.model.fetch.validate().map_err(refused))?;
        self.validate_registry()?;
        self.ask("engine", self.engine.validate())?;
        let (tokens, block_size) = (self.engine.kv_cache_tokens, self.scheduler.block_size);
        if tokens < block_size {
            let message = format!(
                "`engine.kv_cache_tokens` is {tokens}, but must hold a block, `scheduler.block_size` ({block_size})"
            );
            return Err(self.refused("engine.kv_cache_tokens", message));
        }
        let num_blocks = tokens / block_size.max(1);
        let scheduler = engine::SchedulerConfig { num_blocks, ..self.scheduler.clone() };
        self.ask("scheduler", scheduler.validate())
    }

    /// For commands that run no role.
    pub(crate) fn validate_registry(&self) -> Result<()> {
        self.ask("registry", self.registry.validate())
    }

    /// Refuses what `config show` prints in a secret's place, and a salt that can be guessed.
    fn check_secrets(&self, role: Role) -> Result<()> {
        let user_info = |url: &'_ str| Some(url.split_once("://")?.1.rsplit_once('@')?.0.to_owned());
        for (setting, secret) in [
            ("gateway.salt_secret", self.gateway.salt_secret.clone()),
            ("gateway.worker_api_key", self.gateway.worker_api_key.clone()),
            ("worker.api_key", self.worker.api_key.clone()),
            ("controller.api_key", self.controller.api_key.clone()),
            ("controller.gateway_api_key", self.controller.gateway_api_key.clone()),
            ("gateway.controller_api_key", self.gateway.controller_api_key.clone()),
            ("response_cache.redis_url", self.response_cache.redis_url.as_deref().and_then(user_info)),
        ] {
            if secret.is_some_and(|secret| secret.split(':').any(|part| part == show::MASK)) {
                let message = format!(
                    "`{setting}` holds ***, which `tenk config show` prints in a secret's place; write the secret \
                     itself, or leave the key out"
                );
                return Err(self.refused(setting, message));
            }
        }
        match &self.gateway.salt_secret {
            Some(secret)
                if matches!(role, Role::Up | Role::Gateway) && secret.len() < SALT_SECRET_BYTES_MIN =>
            {
                let message = format!(
                    "`gateway.salt_secret` has {} characters, but must have {SALT_SECRET_BYTES_MIN} or more, so that \
                     nobody can guess it; `openssl rand -hex 32` prints one",
                    secret.len()
                );
                Err(self.refused("gateway.salt_secret", message))
            }
            _ => Ok(()),
        }
    }

    /// A worker in a gateway's own process: on a free loopback port, whatever `[worker]` says, and it knows the key
    /// that the gateway sends.
    pub(crate) fn embedded_worker(&self) -> worker::Config {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let api_key = self.gateway.worker_api_key.clone();
        // Several would write to one file.
        worker::Config { listen, api_key, step_log: None, ..self.worker.clone() }
    }

    /// Every setting in force as a configuration file, secrets masked and commented out.
    pub(crate) fn show(&self) -> Result<String> {
        show::show(self)
    }

    /// A part's answer, with its settings' full names.
    fn ask<E: Display>(&self, section: &str, sound: Result<(), E>) -> Result<()> {
        let Err(error) = sound else { return Ok(()) };
        let message = error.to_string();
        let Some((before, setting, after)) = first_quoted(&message) else { return Err(anyhow!(message)) };
        let is_full = setting.split_once('.').is_some_and(|(first, _)| SECTIONS.contains(&first));
        if is_full || !before.is_empty() {
            return Err(self.refused(setting, message.clone()));
        }
        let setting = format!("{section}.{setting}");
        Err(self.refused(&setting, format!("`{setting}`{after}")))
    }

    fn refused(&self, setting: &str, message: String) -> anyhow::Error {
        match self.places.of(setting) {
            Some(place) => anyhow!("{place}: {message}"),
            None => anyhow!(message),
        }
    }
}

/// What stands before, in and after the first backquotes.
fn first_quoted(message: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = message.split_once('`')?;
    let (quoted, after) = rest.split_once('`')?;
    Some((before, quoted, after))
}

/// The value at a path such as `gateway.listen`.
fn at<'a>(config: &'a toml::Value, setting: &str) -> Option<&'a toml::Value> {
    setting.split('.').try_fold(config, |value, key| value.get(key))
}
