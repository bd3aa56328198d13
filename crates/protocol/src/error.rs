//! One small set of error codes; each has one HTTP status and one OpenAI error type.

use serde::{Deserialize, Serialize};

/// What went wrong, as far as a client can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is malformed or asks for what cannot be done; sending it again will not help.
    InvalidRequest,
    /// No key, or an unknown one.
    Unauthenticated,
    /// The model or the path does not exist.
    NotFound,
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The body is larger than the server accepts.
    PayloadTooLarge,
    /// Every place to wait is taken; come back after `Retry-After`.
    Overloaded,
    /// A fault of ours.
    Internal,
    /// A worker answered what cannot be understood, or broke off.
    BadGateway,
    /// No worker is up, or the server is shutting down.
    Unavailable,
    /// The deadline passed before an answer was there.
    Timeout,
}

impl ErrorCode {
    /// The HTTP status that carries this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::PayloadTooLarge => 413,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// OpenAI's `type` field.
    pub const fn openai_type(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::NotFound | Self::MethodNotAllowed | Self::PayloadTooLarge => {
                "invalid_request_error"
            }
            Self::Unauthenticated => "authentication_error",
            Self::Overloaded => "rate_limit_error",
            Self::Internal | Self::BadGateway => "server_error",
            Self::Unavailable => "service_unavailable_error",
            Self::Timeout => "timeout_error",
        }
    }

    /// The bounded value for metric labels and OpenAI's `code` field where no narrower one is set.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "invalid_api_key",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::BadGateway => "bad_gateway",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }
}

/// An error that a client may see. It never holds an internal path, address or backtrace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The class, which decides the status.
    pub code: ErrorCode,
    /// What was wrong, what was expected, what to do.
    pub message: String,
    /// The request field at fault, as a path such as `messages[0].content`.
    pub param: Option<String>,
    /// A narrower `code` than the class, where clients know one (`model_not_found`, `context_length_exceeded`,
    /// [`Self::ENGINE_FAILED`]).
    pub detail: Option<&'static str>,
}

impl ApiError {
    /// The `code`, with status 500, of a request that was in the step that an engine broke down in. It may be the
    /// cause, so whoever tries it elsewhere should do so once at most. Requests that merely waited there hear 503.
    pub const ENGINE_FAILED: &str = "engine_failed";

    /// An error of `code` that blames no field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, detail: None }
    }

    /// A 400 that blames `param`.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::new(ErrorCode::InvalidRequest, message) }
    }

    /// A 404 in the form that OpenAI's clients know for an absent model.
    pub fn model_not_found(model: &str) -> Self {
        let shown: String = model.chars().take(200).collect();
        Self {
            param: Some("model".into()),
            detail: Some("model_not_found"),
            ..Self::new(
                ErrorCode::NotFound,
                format!("the model `{shown}` does not exist here; GET /v1/models lists what does"),
            )
        }
    }

    /// The body `{"error": {…}}`.
    pub fn to_body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorFields {
                message: self.message.clone(),
                r#type: self.code.openai_type().to_owned(),
                param: self.param.clone(),
                code: Some(self.detail.unwrap_or(self.code.as_str()).to_owned()),
            },
        }
    }

    /// [`Self::to_body`] as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.to_body()).unwrap_or_default()
    }
}

/// OpenAI's error object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The single member of the body.
    pub error: ErrorFields,
}

/// The fields of OpenAI's error object. `param` and `code` are present even when null, as OpenAI sends them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFields {
    /// For people.
    pub message: String,
    /// The class, for programs.
    pub r#type: String,
    /// The request field at fault.
    pub param: Option<String>,
    /// The narrow code.
    pub code: Option<String>,
}
