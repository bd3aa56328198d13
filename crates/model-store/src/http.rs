//! The HTTP client: the system's certificates, proxies from the environment, and a bound on every wait.

use std::io;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Proxy, Timeout};

use crate::config::Config;
use crate::error::Error;

/// A client that gives up on a connection after `connect_timeout_ms`, and on a silent one after the configured stall.
pub(crate) fn agent(config: &Config, connect_timeout_ms: u64) -> Agent {
    let connect = Some(Duration::from_millis(connect_timeout_ms));
    let stall = Some(Duration::from_millis(config.stall_timeout_ms));
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(if config.proxy_from_env { Proxy::try_from_env() } else { None })
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .timeout_resolve(connect)
        .timeout_connect(connect)
        .timeout_recv_response(stall)
        .timeout_per_read(stall)
        .timeout_per_write(stall)
        .user_agent(concat!("tenk/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The same for a server that is spoken to rather than downloaded from.
pub fn client(config: &Config) -> Agent {
    agent(config, config.connect_timeout_ms)
}

/// Whether a connection broke that had come about, so that it is worth trying again at once. All else means that there
/// is none to be had, be it for the name, the route, the proxy or the certificate, each of which the system words in
/// its own way.
pub(crate) fn is_broken_off(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(timeout) => !matches!(timeout, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Protocol(_) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted
        ),
        _ => false,
    }
}

/// The error of an answer that trying again will not change.
pub(crate) fn status_error(url: &str, status: u16) -> Error {
    let hint = match status {
        401 | 403 => ": access is refused; a gated model wants an access token in HF_TOKEN",
        404 => {
            ": no such repository, revision or file, or a private one that wants an access token in HF_TOKEN"
        }
        407 => ": the proxy wants credentials",
        _ => "",
    };
    Error::Status { url: shown_url(url), status, hint }
}

/// `url` as it may be shown: without the query, which may be a signature, and without credentials.
pub(crate) fn shown_url(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => bare.to_owned(),
    }
}

/// `path` with each segment percent-encoded for a URL; slashes stay.
pub fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_neither_query_nor_credentials() {
        assert_eq!(shown_url("https://me:secret@host:8443/a/b?sign=1#x"), "https://host:8443/a/b");
        assert_eq!(shown_url("http://host"), "http://host");
        assert_eq!(shown_url("https://host/a@b?q"), "https://host/a@b");
    }

    #[test]
    fn a_name_that_is_not_found_or_a_certificate_that_is_refused_is_no_broken_connection() {
        let lookup = io::Error::other("failed to lookup address information");
        let certificate = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        for error in [lookup, certificate, io::ErrorKind::ConnectionRefused.into()] {
            assert!(!is_broken_off(&ureq::Error::Io(error)));
        }
        assert!(!is_broken_off(&ureq::Error::Timeout(Timeout::Connect)));
        assert!(is_broken_off(&ureq::Error::Timeout(Timeout::PerRead)));
        assert!(is_broken_off(&ureq::Error::Io(io::ErrorKind::ConnectionReset.into())));
    }

    #[test]
    fn a_path_is_encoded_but_for_its_slashes() {
        assert_eq!(encode_path("sub dir/Q8_0#1.gguf"), "sub%20dir/Q8_0%231.gguf");
        assert_eq!(encode_path("é"), "%C3%A9");
    }
}
