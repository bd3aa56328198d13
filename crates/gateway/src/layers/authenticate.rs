//! Who asks: the bearer token against the configured keys.

use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::middleware::Next;
use axum::response::Response;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, header};
use protocol::{ErrorCode, headers};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::KeyConfig;
use crate::error::CallError;
use crate::state::State;

/// Whom a request's key belongs to. Nameless and without salt where there are no keys.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) name: Arc<str>,
    /// Sets the tenant's prefixes apart, in workers' caches and in digests.
    pub(crate) salt: Arc<str>,
    /// The least `priority`, which goes first, that its requests may ask for.
    pub(crate) priority_min: i32,
}

impl Tenant {
    fn new(name: &str, priority_min: i32, secret: &[u8]) -> Self {
        let salt = match Hmac::<Sha256>::new_from_slice(secret) {
            Ok(mac) => hex::encode(&mac.chain_update(name.as_bytes()).finalize().into_bytes()[..16]),
            // HMAC takes keys of any length; should it ever not, nobody may share.
            Err(_) => uuid::Uuid::new_v4().simple().to_string(),
        };
        Self { name: Arc::from(name), salt: Arc::from(salt), priority_min }
    }

    /// Anyone.
    pub(crate) fn nobody() -> Self {
        Self { name: Arc::from(""), salt: Arc::from(""), priority_min: i32::MIN }
    }
}

/// The configured keys.
#[derive(Debug)]
pub(crate) struct Keys(Vec<([u8; 32], Tenant)>);

impl Keys {
    /// `secret` is what the tenants' salts are derived from.
    pub(crate) fn new(keys: &[KeyConfig], secret: &[u8]) -> Self {
        let decoded = keys.iter().filter_map(|key| {
            let mut hash = [0; 32];
            hex::decode_to_slice(&key.sha256, &mut hash).ok()?;
            Some((hash, Tenant::new(&key.tenant, key.priority_min, secret)))
        });
        Self(decoded.collect())
    }

    /// Compares with every key in constant time, so that time tells nothing about any of them.
    fn tenant(&self, token: &[u8]) -> Option<Tenant> {
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
        Some(Tenant::nobody())
    } else {
        bearer(request.headers()).and_then(|token| state.keys.tenant(token))
    };
    let Some(tenant) = tenant else {
        state.metrics.rejected("unauthenticated").inc();
        let message = "a valid API key is needed, as `Authorization: Bearer KEY`";
        return CallError::new(ErrorCode::Unauthenticated, message).into_response();
    };
    strip(request.headers_mut());
    request.extensions_mut().insert(tenant);
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

    fn key(tenant: &str, key: &str) -> KeyConfig {
        KeyConfig { tenant: tenant.into(), sha256: hex::encode(Sha256::digest(key)), priority_min: 0 }
    }

    #[test]
    fn a_key_leads_to_its_tenant_and_nothing_else_does() {
        let keys = Keys::new(&[key("a", "secret")], b"s");
        let name = |token: &[u8]| keys.tenant(token).map(|tenant| tenant.name.to_string());
        assert_eq!(name(b"secret").as_deref(), Some("a"));
        assert_eq!(name(b"secret "), None);
        assert_eq!(name(b""), None);
    }

    #[test]
    fn keys_of_one_tenant_share_a_salt_that_others_and_other_secrets_do_not() {
        let configs = [key("a", "1"), key("a", "2"), key("b", "3")];
        let salt =
            |secret: &[u8], token: &[u8]| Keys::new(&configs, secret).tenant(token).expect("known").salt;
        assert_eq!(salt(b"s", b"1"), salt(b"s", b"2"));
        assert_ne!(salt(b"s", b"1"), salt(b"s", b"3"));
        assert_ne!(salt(b"s", b"1"), salt(b"t", b"1"));
    }

    #[test]
    fn clients_cannot_set_our_headers() {
        let mut headers = HeaderMap::new();
        for name in ["x-tenk-worker", "x-tenk-other", "x-tenk-session", "x-tenk-cache", "x-request-id"] {
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
