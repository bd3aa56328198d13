//! The worker's settings.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a worker listens and what it accepts.
///
/// `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What gateways must send as bearer token; required off loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The largest request body.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies above 64 KiB together; further ones hear 429. Parsed, a body takes some times as much.
    pub large_bodies_bytes_max: usize,
    /// The most open connections; further ones wait to be accepted.
    pub connections_max: usize,
    /// How long a connection may take for its next request, a request for its body, and a gateway to take in a piece
    /// of an answer. Longer than gateways keep idle connections, so that none is closed just as it is used again, and
    /// than they bear with clients that stall.
    pub idle_timeout_s: u64,
    /// How long streams may go on after a signal to stop.
    pub drain_timeout_s: u64,
    /// How many recent prefixes the load report names.
    pub hot_prefixes_max: usize,
    /// Requests to `/tokenize` and `/detokenize` at the same time; further ones hear 429. They take turns with the
    /// tokenization of prompts, which they must not crowd out.
    pub tokenizations_max: usize,
    /// Write each step's runs and time to this file, up to 16 MiB, for `tenk profile fit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_log: Option<PathBuf>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("body_bytes_max", &self.body_bytes_max)
            .field("large_bodies_bytes_max", &self.large_bodies_bytes_max)
            .field("connections_max", &self.connections_max)
            .field("idle_timeout_s", &self.idle_timeout_s)
            .field("drain_timeout_s", &self.drain_timeout_s)
            .field("hot_prefixes_max", &self.hot_prefixes_max)
            .field("tokenizations_max", &self.tokenizations_max)
            .field("step_log", &self.step_log)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            api_key: None,
            body_bytes_max: 4 << 20,
            large_bodies_bytes_max: 64 << 20,
            connections_max: 4096,
            idle_timeout_s: 120,
            drain_timeout_s: 30,
            hot_prefixes_max: 256,
            tokenizations_max: 8,
            step_log: None,
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Refuses what cannot work or is not safe.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |text: &str| Err(ConfigError(text.to_owned()));
        match &self.api_key {
            None if !self.listen.ip().is_loopback() => {
                return refuse(
                    "`worker.listen` is not a loopback address, so `worker.api_key` (16 characters or more) must be \
                     set; gateways send it from `gateway.worker_api_key`",
                );
            }
            Some(key) if key.len() < 16 || !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return refuse(
                    "`worker.api_key` must have 16 characters or more, letters, digits and signs of ASCII without \
                     spaces, as it travels in a header",
                );
            }
            _ => {}
        }
        if !(1024..=1 << 30).contains(&self.body_bytes_max) {
            return refuse("`worker.body_bytes_max` must be between 1024 and 1073741824");
        }
        if !(self.body_bytes_max..=1 << 40).contains(&self.large_bodies_bytes_max) {
            return refuse(
                "`worker.large_bodies_bytes_max` must be between `worker.body_bytes_max` and 1 TiB",
            );
        }
        if !(1..=1 << 20).contains(&self.connections_max) {
            return refuse("`worker.connections_max` must be between 1 and 1048576");
        }
        if !(1..=3600).contains(&self.idle_timeout_s) {
            return refuse("`worker.idle_timeout_s` must be between 1 and 3600");
        }
        if self.drain_timeout_s > 3600 {
            return refuse("`worker.drain_timeout_s` must be at most 3600");
        }
        if self.hot_prefixes_max > 65_536 {
            return refuse("`worker.hot_prefixes_max` must be at most 65536");
        }
        if !(1..=4096).contains(&self.tokenizations_max) {
            return refuse("`worker.tokenizations_max` must be between 1 and 4096");
        }
        Ok(())
    }
}
