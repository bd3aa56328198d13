//! Why a controller cannot start or go on.

use std::path::PathBuf;

/// Why a controller cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; another process may hold the port, choose another with --listen"
    )]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The log of decisions cannot be used.
    #[error(
        "{path}: {source}; the controller needs a folder that it can write to, see `controller.state_dir`"
    )]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A record in the middle of the log is none of ours.
    #[error(
        "{path}: line {line} is no record: {source}; move the file away to begin anew, or restore it from a backup"
    )]
    Corrupt {
        /// The log.
        path: String,
        /// Where, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// Redis failed.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Another controller has taken over.
    #[error("another controller has taken over")]
    Fenced,
    /// The task that decides is gone, by a fault of ours.
    #[error("the task that decides broke off: {0}")]
    BrokeOff(#[source] tokio::task::JoinError),
    /// The log was lost, and its epoch with it.
    #[error(
        "gateways follow epoch {epoch}, which the log does not know; was it moved away? a later one is taken"
    )]
    Outrun {
        /// What they follow.
        epoch: u64,
    },
    /// Something cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Metrics cannot be registered.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
}
