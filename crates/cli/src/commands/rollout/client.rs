//! The controller, asked over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, Error, RequestBuilder};

use crate::args::ReachArgs;
use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(15);

/// A connection to a controller. It blocks, on threads of its own.
pub(super) struct Client {
    base: String,
    key: Option<String>,
    agent: Agent,
}

/// The path of a model's rollout, and what is behind it.
pub(super) fn path(model: &str, rest: &str) -> String {
    let encoded = model_store::encode_path(model).replace('/', "%2F");
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

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request = self.authorized(self.agent.get(format!("{}{path}", self.base)));
        self.read(move || request.call()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let request = self.authorized(self.agent.post(format!("{}{path}", self.base)));
        let (request, body) = (request.header("content-type", "application/json"), body.to_string());
        self.read(move || request.send(body.as_bytes())).await
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    async fn read<T: DeserializeOwned>(
        &self,
        call: impl FnOnce() -> Result<Response<Body>, Error> + Send + 'static,
    ) -> Result<T> {
        let called = tokio::task::spawn_blocking(move || {
            let mut response = call()?;
            Ok::<_, Error>((response.status().as_u16(), response.body_mut().read_to_string()?))
        });
        let (status, text) = called.await.context("the request broke off")?.with_context(|| {
            format!(
                "the controller at {} cannot be asked; `tenk up` has one inside, `tenk controller` starts one alone, \
                 and --controller says where it is",
                self.base
            )
        })?;
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
