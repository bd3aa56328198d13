//! The gateway's settings.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where the gateway listens, whom it serves and whom it asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Base addresses of workers, such as `http://127.0.0.1:8081`: ours, or any server of OpenAI's API.
    pub workers: Vec<String>,
    /// Sent to workers as bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_api_key: Option<String>,
    /// Who may ask. Empty: anyone, which only loopback allows.
    pub keys: Vec<KeyConfig>,
    /// Secret that tenants' cache salts are derived from; gateways that share workers must share it. Unset: random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt_secret: Option<String>,
    /// The controller that gives the route table during rollouts, such as `http://127.0.0.1:8090`. Unset: versions
    /// share users as they share workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Sent to the controller as bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_api_key: Option<String>,
    /// Connections at the same time; more wait to be accepted.
    pub connections_max: usize,
    /// How long a client may take to send a request, to take in a piece of its answer, and between two requests on
    /// one connection. Above a reverse proxy's time for idle connections, so that it is the proxy that closes them.
    pub client_timeout_s: u64,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies above 64 KiB together; further ones hear 429. Parsed, a body takes some times as much.
    pub large_bodies_bytes_max: usize,
    /// The largest answer that is not streamed.
    pub answer_bytes_max: usize,
    /// Requests that are with workers at the same time.
    pub in_flight_max: usize,
    /// Requests that wait for that.
    pub queue_max: usize,
    /// How long one may wait.
    pub queue_timeout_ms: u64,
    /// How long a worker may take to connect.
    pub connect_timeout_ms: u64,
    /// How long a request may take to its answer's first byte, the wait in line and all attempts included; an answer
    /// that is not streamed comes as a whole.
    pub first_byte_timeout_s: u64,
    /// How long a stream may be silent.
    pub idle_timeout_s: u64,
    /// The most attempts for one request, the first included.
    pub attempts_max: usize,
    /// How long it goes on taking requests after a signal to stop, unready, so that whoever balances in front of it
    /// can send them elsewhere. Answers then ask clients to close their connections.
    pub drain_delay_ms: u64,
    /// How long streams may go on after that.
    pub drain_timeout_s: u64,
}

/// One API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Who holds it; keys of one tenant share caches.
    pub tenant: String,
    /// SHA-256 of the key, 64 hexadecimal digits; `tenk key new` prints it.
    pub sha256: String,
    /// The least `priority` that its requests may ask for; what is lower goes first, and may push others back.
    #[serde(default)]
    pub priority_min: i32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: Vec::new(),
            worker_api_key: None,
            keys: Vec::new(),
            salt_secret: None,
            controller: None,
            controller_api_key: None,
            connections_max: 10_000,
            client_timeout_s: 75,
            body_bytes_max: 4 << 20,
            large_bodies_bytes_max: 128 << 20,
            answer_bytes_max: 16 << 20,
            in_flight_max: 512,
            queue_max: 1024,
            queue_timeout_ms: 30_000,
            connect_timeout_ms: 2_000,
            first_byte_timeout_s: 600,
            idle_timeout_s: 120,
            attempts_max: 4,
            drain_delay_ms: 1_000,
            drain_timeout_s: 30,
        }
    }
}

/// Secrets do not show.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("workers", &self.workers)
            .field("worker_api_key", &self.worker_api_key.as_ref().map(|_| "***"))
            .field("controller", &self.controller)
            .field("controller_api_key", &self.controller_api_key.as_ref().map(|_| "***"))
            .field("keys", &self.keys)
            .field("salt_secret", &self.salt_secret.as_ref().map(|_| "***"))
            .finish_non_exhaustive()
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Refuses what cannot work or is not safe.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        if !self.listen.ip().is_loopback() && self.keys.is_empty() {
            return refuse(format!(
                "`gateway.listen` is {}, which others can reach, but there are no `[[gateway.keys]]`; make one with \
                 `tenk key new --tenant NAME`, or listen on 127.0.0.1",
                self.listen
            ));
        }
        self.check_keys()?;
        for (index, worker) in self.workers.iter().enumerate() {
            check_address("worker", worker, "http://127.0.0.1:8081")?;
            // Names of hosts and schemes mean the same in any case, and an address the same with its last slash.
            let same = |other: &String| {
                other.trim_end_matches('/').eq_ignore_ascii_case(worker.trim_end_matches('/'))
            };
            if self.workers[..index].iter().any(same) {
                return refuse(format!(
                    "the worker address `{worker}` is there twice; name each worker once"
                ));
            }
        }
        if let Some(controller) = &self.controller {
            check_address("controller", controller, "http://127.0.0.1:8090")?;
        }
        for (setting, key) in
            [("worker_api_key", &self.worker_api_key), ("controller_api_key", &self.controller_api_key)]
        {
            if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
                return refuse(format!(
                    "`gateway.{setting}` must be of visible ASCII characters, without spaces"
                ));
            }
        }
        let bounds = [
            ("connections_max", self.connections_max, 1, 1 << 20),
            ("client_timeout_s", self.client_timeout_s as usize, 1, 86_400),
            ("body_bytes_max", self.body_bytes_max, 1024, 1 << 30),
            ("large_bodies_bytes_max", self.large_bodies_bytes_max, self.body_bytes_max, 1 << 40),
            ("answer_bytes_max", self.answer_bytes_max, 1024, 1 << 30),
            ("in_flight_max", self.in_flight_max, 1, 1 << 20),
            ("queue_max", self.queue_max, 0, 1 << 20),
            ("queue_timeout_ms", self.queue_timeout_ms as usize, 1, 3_600_000),
            ("connect_timeout_ms", self.connect_timeout_ms as usize, 1, 60_000),
            ("first_byte_timeout_s", self.first_byte_timeout_s as usize, 1, 86_400),
            ("idle_timeout_s", self.idle_timeout_s as usize, 1, 86_400),
            ("attempts_max", self.attempts_max, 1, 16),
            ("drain_delay_ms", self.drain_delay_ms as usize, 0, 600_000),
            ("drain_timeout_s", self.drain_timeout_s as usize, 0, 3600),
        ];
        match bounds.into_iter().find(|(_, value, min, max)| value < min || value > max) {
            Some((name, value, min, max)) => {
                refuse(format!("`gateway.{name}` is {value}, but must be between {min} and {max}"))
            }
            None => Ok(()),
        }
    }

    fn check_keys(&self) -> Result<(), ConfigError> {
        let refuse = |text: String| Err(ConfigError(text));
        for key in &self.keys {
            if key.tenant.is_empty() || key.tenant.len() > 64 {
                return refuse("a `tenant` in `[[gateway.keys]]` must have 1 to 64 characters".into());
            }
            if key.sha256.len() != 64 || hex::decode(&key.sha256).is_err() {
                return refuse(format!(
                    "the `sha256` of tenant `{}` must be 64 hexadecimal digits, as `tenk key new` prints them",
                    key.tenant
                ));
            }
            let same = |other: &&KeyConfig| other.sha256.eq_ignore_ascii_case(&key.sha256);
            if let Some(first) = self.keys.iter().find(same).filter(|first| first.tenant != key.tenant) {
                let (one, other) = (&first.tenant, &key.tenant);
                return refuse(format!(
                    "tenants `{one}` and `{other}` have the same key; make one of them a new one"
                ));
            }
        }
        Ok(())
    }
}

/// Whether an address of `whom` is one.
fn check_address(whom: &str, address: &str, example: &str) -> Result<(), ConfigError> {
    let refuse = |text: String| Err(ConfigError(text));
    if address.contains('@') {
        // Not shown, lest it be in a log, where a worker's address is at each change of its health.
        let setting = if whom == "worker" { "workers" } else { whom };
        return refuse(format!(
            "`gateway.{setting}` must hold no user name or password; `gateway.{whom}_api_key` is sent instead"
        ));
    }
    let uri = address.parse::<http::Uri>().unwrap_or_default();
    let port = |authority: &http::uri::Authority| match authority.as_str().rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().is_ok_and(|port| port > 0),
        _ => true,
    };
    if uri.scheme_str() != Some("http") || !uri.authority().is_some_and(port) || uri.query().is_some() {
        return refuse(format!("the {whom} address `{address}` must be like {example}"));
    }
    match address.trim_end_matches('/').strip_suffix("/v1") {
        Some(base) => refuse(format!(
            "the {whom} address `{address}` must be given without /v1, which is added: {base}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_these_and_are_valid() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        let shown = serde_json::to_value(&config).expect("serializes");
        let expected = serde_json::json!({
            "listen": "127.0.0.1:8080",
            "workers": [],
            "keys": [],
            "connections_max": 10_000,
            "client_timeout_s": 75,
            "body_bytes_max": 4 << 20,
            "large_bodies_bytes_max": 128 << 20,
            "answer_bytes_max": 16 << 20,
            "in_flight_max": 512,
            "queue_max": 1024,
            "queue_timeout_ms": 30_000,
            "connect_timeout_ms": 2_000,
            "first_byte_timeout_s": 600,
            "idle_timeout_s": 120,
            "attempts_max": 4,
            "drain_delay_ms": 1_000,
            "drain_timeout_s": 30,
        });
        assert_eq!(shown, expected);
        assert_eq!(serde_json::from_str::<Config>("{}").expect("all have defaults"), config);
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = || Some("a secret of some length".to_owned());
        let shown =
            format!("{:?}", Config { salt_secret: secret(), worker_api_key: secret(), ..Config::default() });
        assert!(!shown.contains("a secret") && shown.contains("***"), "{shown}");
    }

    #[test]
    fn a_worker_address_that_cannot_work_is_refused_with_what_would() {
        let refused = |worker: &str| {
            let config = Config { workers: vec![worker.into()], ..Config::default() };
            config.validate().err().map(|error| error.to_string()).unwrap_or_default()
        };
        for good in ["http://h", "http://h:65535/", "http://[::1]:8081", "http://[::1]", "http://h:1/prefix"]
        {
            assert_eq!(refused(good), "");
        }
        for bad in ["h:1", "https://h", "http://h:65536", "http://h:0", "http://h:", "http://h:1?x", ""] {
            assert!(refused(bad).contains("must be like http://127.0.0.1:8081"), "{bad}");
        }
        let base =
            "the worker address `http://h:1/v1/` must be given without /v1, which is added: http://h:1";
        assert_eq!(refused("http://h:1/v1/"), base);
        let secret = refused("http://me:secret@h:1");
        assert!(secret.contains("no user name or password") && !secret.contains("secret@"), "{secret}");
    }

    #[test]
    fn a_wrong_key_is_refused_and_a_value_out_of_range_named() {
        assert!(serde_json::from_str::<Config>(r#"{"in_flight":1}"#).is_err());
        let error = Config { idle_timeout_s: 0, ..Config::default() }.validate().expect_err("0 seconds");
        assert_eq!(error.to_string(), "`gateway.idle_timeout_s` is 0, but must be between 1 and 86400");
    }
}
