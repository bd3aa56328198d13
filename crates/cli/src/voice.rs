//! How a role speaks to whoever started it.

use telemetry::{LogConfig, LogFormat};

/// Plain lines on standard error, or events of the log where that is for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// To a person.
    Plain,
    /// To whatever collects the log.
    Log,
}

impl Voice {
    /// The one that suits the log.
    pub(crate) fn of(config: &LogConfig) -> Self {
        match config.format {
            LogFormat::Text => Self::Plain,
            LogFormat::Json => Self::Log,
        }
    }

    /// Tells what goes on.
    pub(crate) fn say(self, text: &str) {
        match self {
            Self::Plain => eprintln!("{text}"),
            Self::Log => tracing::info!("{text}"),
        }
    }

    /// Tells what is not as it was asked for.
    pub(crate) fn warn(self, text: &str) {
        match self {
            Self::Plain => eprintln!("warning: {text}"),
            Self::Log => tracing::warn!("{text}"),
        }
    }
}
