//! What a server says when it does not do what it was asked.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::{ApiError, ErrorCode};
use subtle::ConstantTimeEq;

/// An [`ApiError`] on its way out: its status, its JSON, and when to come again where that helps.
#[derive(Debug)]
pub struct Failed(pub ApiError);

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.0.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.0.code, ErrorCode::Overloaded | ErrorCode::Unavailable) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Whether a request brings this key as bearer token. It takes as long whatever of it is wrong.
pub fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let sent = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    sent.strip_prefix(b"Bearer ").unwrap_or_default().ct_eq(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_as_bearer_token_is_the_key() {
        let has = |sent: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(header::AUTHORIZATION, HeaderValue::from_static(sent));
            }
            has_key(&headers, "secret")
        };
        assert!(has(Some("Bearer secret")));
        for wrong in [
            None,
            Some(""),
            Some("secret"),
            Some("Bearer secre"),
            Some("Bearer secret "),
            Some("Basic secret"),
        ] {
            assert!(!has(wrong), "{wrong:?}");
        }
    }
}
