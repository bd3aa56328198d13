//! What can go wrong in an engine.

/// An engine's error. The worker decides what of it a client sees.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A model file that cannot be read, or is not what it claims to be.
    #[error("the model at {path} cannot be loaded: {reason}")]
    Load {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model of a kind that is not implemented.
    #[error("the architecture `{found}` is not implemented; known are {}", crate::model::Architecture::NAMES.join(", "))]
    UnknownArchitecture {
        /// The model's own word.
        found: String,
    },
    /// Bounds that cannot work together.
    #[error("{0}")]
    Config(String),
    /// A device that was asked for and cannot be used.
    #[error("{0}")]
    Device(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The tokenizer cannot be built or failed.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::TokenizerError),
    /// The chat template cannot be read.
    #[error(transparent)]
    Template(#[from] crate::chat_template::TemplateError),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The engine thread could not start, or has ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl EngineError {
    pub(crate) fn load(path: &std::path::Path, reason: impl ToString) -> Self {
        // candle adds a backtrace on further lines where the environment asks for one.
        let reason = reason.to_string().lines().next().unwrap_or_default().to_owned();
        Self::Load { path: path.display().to_string(), reason }
    }
}
