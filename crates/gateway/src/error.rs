//! The one place where errors become HTTP.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use protocol::{ApiError, ErrorCode};

/// Why a gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting of `[gateway]` makes no sense.
    #[error(transparent)]
    Config(#[from] crate::ConfigError),
    /// A setting of `[routing]` makes no sense.
    #[error("`routing`: {0}")]
    Routing(#[from] routing::RouteError),
    /// A setting of `[response_cache]` makes no sense.
    #[error("`response_cache`: {0}")]
    ResponseCache(#[from] response_cache::Error),
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
    /// Metrics cannot be registered.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(crate) enum CallError {
    /// The gateway says so.
    Own(ApiError),
    /// A worker says so, in words that the client may see.
    Relayed {
        /// A status of 4xx.
        status: StatusCode,
        /// OpenAI's error JSON.
        body: Bytes,
    },
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self::Own(error)
    }
}

impl CallError {
    pub(crate) fn new(code: ErrorCode, message: &str) -> Self {
        Self::Own(ApiError::new(code, message))
    }

    pub(crate) fn into_response(self) -> Response {
        match self {
            Self::Own(error) => {
                let status = StatusCode::from_u16(error.code.http_status());
                let retry = matches!(error.code, ErrorCode::Overloaded | ErrorCode::Unavailable);
                json_response(
                    status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                    error.to_json().into(),
                    retry,
                )
            }
            Self::Relayed { status, body } => json_response(status, body, false),
        }
    }
}

fn json_response(status: StatusCode, body: Bytes, retry: bool) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
