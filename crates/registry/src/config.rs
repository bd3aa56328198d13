//! Where the versions are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An MLflow server, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// An MLflow server's address, such as `http://127.0.0.1:5000`; without one, versions are kept in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// That file; `registry.json` beside the models unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How long MLflow may be silent, and how long to wait for another process that writes to the file, in seconds.
    pub timeout_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: None, path: None, timeout_s: 30 }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Config`] names the key at fault.
    pub fn validate(&self) -> Result<(), Error> {
        let refuse = |key, reason| Err(Error::Config { key, reason });
        if let Some(url) = &self.url {
            let Some((_, rest)) =
                url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
            else {
                return refuse("url", "must begin with http:// or https://, such as http://127.0.0.1:5000");
            };
            let authority = rest.split('/').next().unwrap_or_default();
            if authority.is_empty() || rest.contains(['?', '#', ' ']) {
                return refuse("url", "must be a server's address and maybe a path, without a query");
            }
            if authority.contains('@') {
                return refuse("url", "must hold no user and no password, as it is shown and logged");
            }
            if self.path.is_some() {
                return refuse("path", "is for a registry in a file; leave out `path` or `url`");
            }
        }
        if self.path.as_ref().is_some_and(|path| path.file_name().is_none()) {
            return refuse("path", "must name a file");
        }
        if !(1..=3_600).contains(&self.timeout_s) {
            return refuse("timeout_s", "must be between 1 and 3600");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_are_these() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(config, Config { url: None, path: None, timeout_s: 30 });
    }

    #[test]
    fn a_bad_value_is_refused_under_its_key() {
        let url = |url: &str| Config { url: Some(url.into()), ..Config::default() };
        url("https://mlflow.example/prefix").validate().unwrap();
        for (key, config) in [
            ("url", url("127.0.0.1:5000")),
            ("url", url("ftp://host")),
            ("url", url("http://")),
            ("url", url("http://host/?a=b")),
            ("url", url("http://me:secret@host")),
            ("path", Config { path: Some("a.json".into()), ..url("http://host") }),
            ("path", Config { path: Some("/".into()), ..Config::default() }),
            ("timeout_s", Config { timeout_s: 0, ..Config::default() }),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(key) && !message.contains("secret"), "{message}");
        }
    }
}
