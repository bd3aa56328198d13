//! The controller's settings.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the controller listens, where it keeps what it decided, and whom it tells.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Asked of gateways and owners as bearer token. Unset: anyone, which only loopback allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The folder of the log of decisions; `controller` beside the models unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// Keeps the log in Redis instead, where controllers on several machines share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_url: Option<String>,
    /// A gateway through which new versions are warmed up and compared, such as `http://127.0.0.1:8080`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Sent there as bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_api_key: Option<String>,
    /// Gets each decision as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// Time from one look at the evidence to the next.
    pub interval_ms: u64,
    /// A gateway that was not heard of for this time does not count.
    pub gateway_timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            api_key: None,
            state_dir: None,
            redis_url: None,
            gateway: None,
            gateway_api_key: None,
            webhook_url: None,
            interval_ms: 1_000,
            gateway_timeout_ms: 10_000,
        }
    }
}

/// Secrets do not show.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("state_dir", &self.state_dir)
            .field("gateway", &self.gateway)
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
        match &self.api_key {
            None if !self.listen.ip().is_loopback() => {
                return refuse(format!(
                    "`controller.listen` is {}, which others can reach, so `controller.api_key` (16 characters or \
                     more) must be set; gateways send it from `gateway.controller_api_key`",
                    self.listen
                ));
            }
            Some(key) if key.len() < 16 || !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return refuse(
                    "`controller.api_key` must have 16 characters or more, of visible ASCII without spaces"
                        .into(),
                );
            }
            _ => {}
        }
        for (setting, url) in [("gateway", &self.gateway), ("webhook_url", &self.webhook_url)] {
            let Some(url) = url else { continue };
            let sound = url.starts_with("http://") || url.starts_with("https://");
            if !sound || url.chars().any(|sign| sign.is_whitespace() || sign.is_control()) {
                return refuse(format!(
                    "`controller.{setting}` must be an address such as http://127.0.0.1:8080"
                ));
            }
        }
        if self.redis_url.as_ref().is_some_and(|url| redis::Client::open(url.as_str()).is_err()) {
            return refuse("`controller.redis_url` must be like redis://127.0.0.1:6379".into());
        }
        for (setting, value, min, max) in [
            ("interval_ms", self.interval_ms, 50, 60_000),
            ("gateway_timeout_ms", self.gateway_timeout_ms, 2_000, 600_000),
        ] {
            if value < min || value > max {
                return refuse(format!(
                    "`controller.{setting}` is {value}, but must be between {min} and {max}"
                ));
            }
        }
        Ok(())
    }
}
