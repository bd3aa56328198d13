//! Why a worker does not do what it was asked, in words.

use protocol::{ApiError, ErrorCode};

/// Why a worker cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
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
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// Metrics cannot be registered.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// The file for the step log cannot be written.
    #[error("the step log {path} cannot be written: {source}")]
    StepLog {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A fault asked for it.
    #[error("the worker crashed, as a fault asked it to")]
    Crashed,
    /// The server broke off.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What a client hears when all places of a kind are taken.
pub(crate) fn overloaded(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Overloaded, format!("{what}; try again shortly, or another worker"))
}

/// What a client hears of an answer that a drain cut off.
pub(crate) fn cut_off() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "this worker shut down before the answer was complete; send the request again",
    )
}

/// What a client hears of an engine's failure: never more than that it happened.
pub(crate) fn engine_failed(failure: engine::Failure) -> ApiError {
    match failure {
        engine::Failure::Engine => ApiError {
            detail: Some(ApiError::ENGINE_FAILED),
            ..ApiError::new(ErrorCode::Internal, "the engine failed while it computed this answer")
        },
        engine::Failure::Stopped => engine_stopped(),
        engine::Failure::NotANumber => ApiError::new(
            ErrorCode::Internal,
            "the model gave an output that is not a number for this request",
        ),
    }
}

/// What is said of an engine that takes no more requests.
pub(crate) fn engine_stopped() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "this worker's engine has stopped; try another")
}

#[cfg(test)]
mod tests {
    use engine::Failure;

    use super::*;

    #[test]
    fn a_request_that_may_have_broken_the_engine_is_told_apart_from_one_that_was_merely_there() {
        let [failed, stopped] = [Failure::Engine, Failure::Stopped].map(engine_failed);
        assert_eq!(failed.code.http_status(), 500);
        let body = r#""type":"server_error","param":null,"code":"engine_failed"}}"#;
        assert!(failed.to_json().ends_with(body), "{}", failed.to_json());
        assert_eq!((stopped.code.http_status(), stopped.detail), (503, None));
    }
}
