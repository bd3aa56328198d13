//! What can go wrong between a version's name and its file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::reference::Selector;

const NAMES_SHOWN_MAX: usize = 20;

/// Why a version could not be registered, found or trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be one.
    #[error("`{name}` is no valid {what}; expected {expected}")]
    BadName {
        /// What it was to be.
        what: &'static str,
        /// What was given.
        name: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A reference that cannot be read.
    #[error(
        "`{text}` names no version: {reason}; write registry:NAME@NUMBER, registry:NAME@ALIAS, or registry:NAME for \
         the alias `stable`"
    )]
    BadReference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name without versions.
    #[error(
        "no model `{name}` is registered{known}; `tenk model register {name} SOURCE` makes its first version"
    )]
    UnknownModel {
        /// What was given.
        name: String,
        /// What is there, beginning with `; `, or nothing.
        known: String,
    },
    /// A number that the name does not have.
    #[error("`{name}` has no version {version}; {known}")]
    UnknownVersion {
        /// The model.
        name: String,
        /// What was given.
        version: u64,
        /// What it has.
        known: String,
    },
    /// An alias that the name does not have.
    #[error("`{name}` has no alias `{alias}`; {known}; `tenk model alias {name} {alias} VERSION` sets it")]
    UnknownAlias {
        /// The model.
        name: String,
        /// What was given.
        alias: String,
        /// What it has.
        known: String,
    },
    /// A metric that is no number.
    #[error("the metric `{key}` is {value}, but must be a finite number")]
    BadMetric {
        /// Its name.
        key: String,
        /// Its value.
        value: f64,
    },
    /// Something that cannot be registered.
    #[error("`{source_text}` cannot be registered: {reason}")]
    BadSource {
        /// What was given.
        source_text: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A version without a file.
    #[error(
        "version {version} of `{name}` is simulated and has no file; serve it with --engine simulated, or name another \
         version"
    )]
    Simulated {
        /// The model.
        name: String,
        /// Its version.
        version: u64,
    },
    /// A version whose bytes nobody vouches for.
    #[error("version {version} of `{name}` cannot be fetched from {source_text}: {reason}")]
    CannotFetch {
        /// The model.
        name: String,
        /// Its version.
        version: u64,
        /// Where it is said to be.
        source_text: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A file that is not the one that was registered.
    #[error(
        "version {version} of `{name}` is not what was registered: {} has SHA-256 {actual}, registered was {expected}; \
         bring the file back, or register what is there as a new version",
        path.display()
    )]
    Changed {
        /// The model.
        name: String,
        /// Its version.
        version: u64,
        /// The file.
        path: PathBuf,
        /// As registered, in hex.
        expected: String,
        /// As computed, in hex.
        actual: String,
    },
    /// A file that holds no registry, or a part of one. It is left as it is.
    #[error(
        "{} is no registry that can be read: {reason}; it was left as it is: bring it back from a copy, or move it away \
         to begin anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process held the file's lock for too long.
    #[error("another process has been writing to {} for {timeout_s} s; wait for it or end it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long we waited.
        timeout_s: u64,
    },
    /// MLflow cannot be spoken to.
    #[error("MLflow at {url} does not answer: {reason}; start it, or correct `url` in [registry]")]
    Unreachable {
        /// Its address.
        url: String,
        /// The client's reason.
        reason: String,
    },
    /// MLflow said no.
    #[error("MLflow at {url} refused to {action}: {status} {reason}")]
    Refused {
        /// Its address.
        url: String,
        /// What was asked of it.
        action: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        reason: String,
    },
    /// MLflow gave an answer that cannot be understood.
    #[error("MLflow at {url} gave an answer that cannot be understood: {reason}; is it MLflow 3?")]
    BadAnswer {
        /// Its address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The models' cache or a download.
    #[error(transparent)]
    Store(#[from] model_store::Error),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A configuration value out of range.
    #[error("`{key}` {reason}")]
    Config {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
}

impl Error {
    /// For `map_err` on calls to the file system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What there is instead of what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Every model.
    pub(crate) names: Vec<String>,
    /// The model's versions, in order.
    pub(crate) numbers: Vec<u64>,
    /// The model's aliases.
    pub(crate) aliases: BTreeMap<String, u64>,
}

impl Known {
    /// Why a version was not found.
    pub(crate) fn missing(&self, name: &str, selector: &Selector) -> Error {
        let name = name.to_owned();
        if self.numbers.is_empty() {
            let shown: Vec<&str> = self.names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect();
            let known =
                if shown.is_empty() { String::new() } else { format!("; known are {}", shown.join(", ")) };
            return Error::UnknownModel { name, known };
        }
        let known = match self.numbers[..] {
            [only] => format!("it has version {only}"),
            [first, .., last] => format!("it has versions {first} to {last}"),
            [] => String::new(),
        };
        let aliases: Vec<String> =
            self.aliases.iter().map(|(alias, version)| format!("{alias} (version {version})")).collect();
        let known = match aliases.is_empty() {
            true => format!("{known} and no aliases"),
            false => format!("{known} and the aliases {}", aliases.join(", ")),
        };
        match selector {
            Selector::Number(version) => Error::UnknownVersion { name, version: *version, known },
            Selector::Alias(alias) => Error::UnknownAlias { name, alias: alias.clone(), known },
        }
    }
}
