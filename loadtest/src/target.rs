//! The addresses of the server under test.

use http::uri::Authority;
use http::{HeaderValue, Uri};

use crate::error::Error;

/// The endpoints of one server, as paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without `/v1` and without a slash at its end.
    pub(crate) base: String,
    /// What the header `Host` says.
    pub(crate) host: HeaderValue,
    authority: Authority,
    /// `POST /v1/chat/completions`.
    pub(crate) chat: Uri,
    /// `GET /v1/models`.
    pub(crate) models: Uri,
    /// `POST /tokenize`, which some servers offer.
    pub(crate) tokenize: Uri,
}

impl Target {
    /// Reads `http://HOST:PORT`, with a path before `/v1` if there is one. `/v1` itself may be given or left out.
    pub(crate) fn parse(given: &str) -> Result<Self, Error> {
        let refuse =
            |problem: &str| Error::Target { given: without_credentials(given), problem: problem.to_owned() };
        let base = given.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base).to_owned();
        let uri: Uri = base.parse().map_err(|_| refuse("is no address; http://HOST:PORT was expected"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(refuse(
                    "is https, which this tester does not speak; give a plain http:// address",
                ));
            }
            Some(_) => return Err(refuse("has another scheme than http; http://HOST:PORT was expected")),
            None => return Err(refuse("has no scheme; http://HOST:PORT was expected")),
        }
        let authority = uri.authority().cloned().ok_or_else(|| refuse("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("holds credentials; pass a key with --api-key instead"));
        }
        if uri.query().is_some() {
            return Err(refuse("has a query; http://HOST:PORT was expected"));
        }
        let below = uri.path().trim_end_matches('/');
        let endpoint =
            |path: &str| format!("{below}{path}").parse().map_err(|_| refuse("is no usable address"));
        let (chat, models, tokenize) =
            (endpoint("/v1/chat/completions")?, endpoint("/v1/models")?, endpoint("/tokenize")?);
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("is no usable address"))?;
        Ok(Self { chat, models, tokenize, host, authority, base })
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    pub(crate) fn socket(&self) -> (&str, u16) {
        let host = self.authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (host, self.authority.port_u16().unwrap_or(80))
    }

    /// The whole address of one of the endpoints, for people.
    pub(crate) fn address(&self, endpoint: &Uri) -> String {
        format!("http://{}{endpoint}", self.authority)
    }
}

fn without_credentials(given: &str) -> String {
    match (given.find("://"), given.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}…{}", &given[..scheme + 3], &given[at..]),
        _ => given.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_end_in_v1_or_a_slash() {
        let plain = Target::parse("http://127.0.0.1:8000").expect("an address");
        assert_eq!(plain.address(&plain.chat), "http://127.0.0.1:8000/v1/chat/completions");
        assert_eq!((plain.chat.path(), plain.socket()), ("/v1/chat/completions", ("127.0.0.1", 8000)));
        for given in ["http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/"] {
            assert_eq!(Target::parse(given).expect("an address"), plain);
        }
        let below = Target::parse("http://host/models/a/v1").expect("an address");
        assert_eq!(below.address(&below.tokenize), "http://host/models/a/tokenize");
        assert_eq!(below.socket(), ("host", 80));
        assert_eq!(Target::parse("http://[::1]:9").expect("an address").socket(), ("::1", 9));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_a_reason() {
        let refused = |given: &str| Target::parse(given).expect_err("refused").to_string();
        assert!(refused("https://host").contains("is https, which this tester does not speak"));
        assert!(refused("host:80").contains("no scheme"));
        assert!(refused("http://a b").contains("is no address"));
        assert!(refused("http://host?x=1").contains("query"));
        let with_secret = refused("http://me:secret@host");
        assert!(with_secret.contains("credentials") && !with_secret.contains("secret"), "{with_secret}");
    }
}
