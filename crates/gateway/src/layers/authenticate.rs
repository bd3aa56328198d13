//! Who asks: the bearer token against the configured keys.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use protocol::{ErrorCode, headers};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::KeyConfig;
use crate::error::CallError;
use crate::state::State;

/// The tenant that a request's key belongs to. Empty where there are no keys.
#[derive(Clone, Debug)]
pub(crate) struct Tenant(pub(crate) Arc<str>);

/// The configured keys.
#[derive(Debug)]
pub(crate) struct Keys(Vec<([u8; 32], Arc<str>)>);

impl Keys {
    pub(crate) fn new(keys: &[KeyConfig]) -> Self {
        let decoded = keys.iter().filter_map(|key| {
            let mut hash = [0; 32];
            hex::decode_to_slice(&key.sha256, &mut hash).ok()?;
            Some((hash, Arc::from(key.tenant.as_str())))
        });
        Self(decoded.collect())
    }

    /// Compares with every key in constant time, so that time tells nothing about any of them.
    fn tenant(&self, token: &[u8]) -> Option<Arc<str>> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, tenant) in &self.0 {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(tenant);
            }
        }
        found.cloned()
    }
}

/// Refuses requests without a known key, and takes away the headers that only we may set.
pub(crate) async fn authenticate(
    Shared(state): Shared<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let tenant = if state.keys.0.is_empty() {
        Some(Arc::from(""))
    } else {
        bearer(request.headers()).and_then(|token| state.keys.tenant(token))
    };
    let Some(tenant) = tenant else {
        state.metrics.rejected("unauthenticated").inc();
        let message = "a valid API key is needed, as `Authorization: Bearer KEY`";
        return CallError::new(ErrorCode::Unauthenticated, message).into_response();
    };
    strip(request.headers_mut());
    request.extensions_mut().insert(Tenant(tenant));
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes)?;
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

fn strip(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with(headers::PREFIX) && !headers::FROM_CLIENTS.contains(&name)
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_tenant_and_nothing_else_does() {
        let sha256 = hex::encode(Sha256::digest(b"secret"));
        let keys = Keys::new(&[KeyConfig { tenant: "a".into(), sha256 }]);
        assert_eq!(keys.tenant(b"secret").as_deref(), Some("a"));
        assert_eq!(keys.tenant(b"secret "), None);
        assert_eq!(keys.tenant(b""), None);
    }

    #[test]
    fn clients_cannot_set_our_headers() {
        let mut headers = HeaderMap::new();
        for name in ["x-tenk-worker", "x-tenk-version", "x-tenk-session", "x-tenk-cache", "x-request-id"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-request-id", "x-tenk-cache", "x-tenk-session"]);
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(token("Bearer k"), Some(b"k".to_vec()));
        assert_eq!(token("bearer  k "), Some(b"k".to_vec()));
        assert_eq!(token("Basic k"), None);
        assert_eq!(token("Bear"), None);
    }
}
