//! The controller, asked over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;

use crate::args::ReachArgs;
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to a controller.
pub(super) struct Client {
    base: String,
    key: Option<String>,
    agent: Agent,
}

/// The path of a model's rollout, and what is behind it.
pub(super) fn path(model: &str, rest: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded: String = model
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let slash = if rest.is_empty() { "" } else { "/" };
    format!("/v1/rollouts/{encoded}{slash}{rest}")
}

impl Client {
    /// The one that flags, environment or configuration name.
    pub(super) fn new(reach: &ReachArgs) -> Result<Self> {
        let config = Config::load(reach.config.config.as_deref())?;
        let base = reach.controller.clone().or(config.gateway.controller.clone());
        let base = base.unwrap_or_else(|| format!("http://{}", config.controller.listen));
        let key = config.controller.api_key.or(config.gateway.controller_api_key);
        let agent =
            Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
        Ok(Self { base: base.trim_end_matches('/').to_owned(), key, agent })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.read(request.call())
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let mut request =
            self.agent.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        self.read(request.send(body.to_string().as_bytes()))
    }

    fn read<T: DeserializeOwned>(
        &self,
        response: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T> {
        let advice = || {
            format!(
                "the controller at {} cannot be asked; `tenk up` has one inside, `tenk controller` starts one alone, \
                 and --controller says where it is",
                self.base
            )
        };
        let mut response = response.with_context(advice)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().with_context(advice)?;
        if status >= 400 {
            let error: Value = serde_json::from_str(&text).unwrap_or_default();
            match error["error"]["message"].as_str() {
                Some(message) => bail!("{message}"),
                None => bail!("the controller at {} answers with status {status}", self.base),
            }
        }
        serde_json::from_str(&text).with_context(|| format!("what answers at {} is no controller", self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_one_segment_of_a_path() {
        assert_eq!(path("chat", ""), "/v1/rollouts/chat");
        assert_eq!(path("meta/llama 3", "abort"), "/v1/rollouts/meta%2Fllama%203/abort");
    }
}
