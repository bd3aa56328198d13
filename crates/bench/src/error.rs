//! What can keep a measurement from being one.

use std::path::{Path, PathBuf};

/// A measurement that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that makes no sense.
    #[error("{0}")]
    Options(String),
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// The model cannot be written in the type that both sides run.
    #[error(transparent)]
    Quantize(#[from] quantize::QuantizeError),
    /// A load test could not be run, or a server not be started.
    #[error(transparent)]
    Load(loadtest::Error),
    /// No profile can be fitted.
    #[error(transparent)]
    Profile(#[from] engine::profile::ProfileError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something else did not go as it must.
    #[error("{0}")]
    Broken(String),
    /// The measurement was asked to end.
    #[error("interrupted: nothing is reported")]
    Interrupted,
}

impl Error {
    pub(crate) fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }

    /// For `map_err`.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

impl From<loadtest::Error> for Error {
    fn from(error: loadtest::Error) -> Self {
        match error {
            loadtest::Error::Interrupted => Self::Interrupted,
            other => Self::Load(other),
        }
    }
}
