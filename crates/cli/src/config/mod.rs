//! The settings of all parts: one TOML file, environment variables over it, flags over those.
//!
//! Each part owns its section and its bounds. What is written is first held as a tree that remembers places
//! ([`tree`]), so that whatever is wrong is refused with the place where it was written.

mod environment;
mod file;
mod read;
mod show;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::tree::{Node, Origin, Value};

/// Every section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) model: ModelConfig,
    pub(crate) gateway: gateway::Config,
    pub(crate) worker: worker::Config,
    pub(crate) engine: engine::Config,
    pub(crate) scheduler: engine::SchedulerConfig,
    pub(crate) routing: routing::Config,
    pub(crate) response_cache: response_cache::Config,
    pub(crate) model_store: model_store::Config,
    pub(crate) log: telemetry::LogConfig,
}

/// Which model to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// A name from `tenk model list`, `hf:OWNER/REPO`, or a path.
    pub(crate) name: String,
    /// The name that requests use; the model's own where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) served_name: Option<String>,
    /// Where models are kept; the user's cache directory where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_dir: Option<PathBuf>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { name: "smollm2-135m-instruct".to_owned(), served_name: None, cache_dir: None }
    }
}

impl ModelConfig {
    fn validate(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("`model.name` is empty; `tenk model list` shows names".to_owned());
        }
        match &self.served_name {
            Some(name) if name.is_empty() || name.len() > 128 => {
                Err("`model.served_name` must have 1 to 128 characters".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// A setting from the command line.
#[derive(Debug)]
pub(crate) struct Flag {
    /// As users write it, such as `--listen`.
    pub(crate) name: &'static str,
    /// Section and key.
    pub(crate) path: [&'static str; 2],
    /// One value, or several for a list.
    pub(crate) values: FlagValues,
}

#[derive(Debug)]
pub(crate) enum FlagValues {
    One(String),
    Many(Vec<String>),
}

/// The settings in force, and where each was written.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    tree: Node,
}

impl Settings {
    /// Composes the layers. Bounds are not checked yet: a role checks those of the sections that it uses.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Vec<Flag>,
    ) -> Result<Self, ConfigError> {
        let mut tree = match file {
            Some(path) => file::parse(&path.display().to_string(), &read_file(path)?)?,
            None => Node::root(),
        };
        environment::apply(&mut tree, environment);
        for flag in flags {
            let origin = Origin::Flag(flag.name);
            let value = match flag.values {
                FlagValues::One(value) => Value::Text(value),
                FlagValues::Many(values) => Value::List(
                    values
                        .into_iter()
                        .map(|value| Node { value: Value::Text(value), origin: Some(origin.clone()) })
                        .collect(),
                ),
            };
            tree.set(&flag.path, value, origin);
        }
        Ok(Self { config: read::read(&tree)?, tree })
    }

    /// Whether the setting at `path` (`section.key`) is written anywhere.
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.tree.origin_of(path).is_some()
    }

    /// Checks the bounds of all sections.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sections(&SECTIONS)
    }

    /// Checks the bounds of these sections.
    pub(crate) fn validate_sections(&self, sections: &[&str]) -> Result<(), ConfigError> {
        sections.iter().try_for_each(|section| self.validate_section(section))
    }

    fn validate_section(&self, section: &str) -> Result<(), ConfigError> {
        let config = &self.config;
        let result = match section {
            "model" => config.model.validate(),
            "gateway" => config.gateway.validate().map_err(text),
            "worker" => config.worker.validate().map_err(text),
            "engine" => config.engine.validate().map_err(text),
            "scheduler" => config.scheduler.validate().map_err(text),
            "routing" => config.routing.validate().map_err(text),
            "response_cache" => config.response_cache.validate().map_err(text),
            "model_store" => config.model_store.validate().map_err(text),
            _ => config.log.validate().map_err(text),
        };
        result.map_err(|message| {
            // The parts name the key at fault first, between backticks, with or without its section.
            let key = message.split('`').nth(1).unwrap_or_default();
            let named = key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
            let path = format!("{section}.{}", named.unwrap_or(key));
            let message = match named {
                Some(_) => message,
                None => format!("[{section}] {message}"),
            };
            ConfigError { origin: self.tree.origin_of(&path).cloned(), problem: Problem::Other(message) }
        })
    }

    /// The settings as TOML, without secrets; a comment says where each came from that is not a default.
    pub(crate) fn show(&self) -> anyhow::Result<String> {
        show::show(&self.config, &self.tree)
    }
}

/// All sections, in the order in which they are checked.
pub(crate) const SECTIONS: [&str; 9] =
    ["model", "gateway", "worker", "engine", "scheduler", "routing", "response_cache", "model_store", "log"];

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        origin: None,
        problem: Problem::Other(format!(
            "cannot read the configuration file {}: {error}; give one that exists with --config, or none",
            path.display()
        )),
    })
}

/// A setting that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigError {
    origin: Option<Origin>,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// `table` is empty at the root, whose keys are sections.
    UnknownKey {
        table: String,
        key: String,
        known: &'static [&'static str],
    },
    /// `path` is empty until the error is located.
    Value {
        path: String,
        message: String,
    },
    Other(String),
}

impl ConfigError {
    /// Says where, unless an inner place is known already.
    fn at(mut self, origin: Option<&Origin>, path: &str) -> Self {
        if self.origin.is_some() || origin.is_none() {
            return self;
        }
        self.origin = origin.cloned();
        match &mut self.problem {
            Problem::UnknownKey { table: place, .. } | Problem::Value { path: place, .. } => {
                path.clone_into(place);
            }
            Problem::Other(_) => {}
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        match &self.problem {
            Problem::UnknownKey { table, key, known } => {
                let near = suggest::nearest(key, known.iter().copied());
                match (table.is_empty(), near) {
                    (true, Some(near)) => write!(f, "unknown section [{key}]; did you mean [{near}]?"),
                    (true, None) => write!(f, "unknown section [{key}]; sections are {}", known.join(", ")),
                    (false, Some(near)) => {
                        write!(f, "unknown key `{key}` in [{table}]; did you mean `{near}`?")
                    }
                    (false, None) => {
                        write!(f, "unknown key `{key}` in [{table}]; its keys are {}", known.join(", "))
                    }
                }
            }
            Problem::Value { path, message } if !path.is_empty() => write!(f, "`{path}`: {message}"),
            Problem::Value { message, .. } | Problem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ConfigError {}
