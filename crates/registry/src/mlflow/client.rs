//! One request, one answer.

use model_store::Config;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::error::Error;

/// Nothing of that name is there.
pub(super) const ABSENT: &str = "RESOURCE_DOES_NOT_EXIST";
/// Something of that name is there already.
pub(super) const EXISTS: &str = "RESOURCE_ALREADY_EXISTS";
/// An argument is wrong.
pub(super) const INVALID: &str = "INVALID_PARAMETER_VALUE";

/// Far above any answer of ours, far below what would fill memory.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const REASON_CHARS_MAX: usize = 300;

/// An MLflow server's REST interface.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
}

/// A request with a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Post,
    Delete,
}

/// An answer that says no.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(skip)]
    pub(super) status: u16,
    #[serde(rename = "error_code")]
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

impl Client {
    pub(super) fn new(url: &str, timeouts: &Config) -> Self {
        Self { agent: model_store::client(timeouts), url: url.trim_end_matches('/').to_owned() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The outer error is one of the way, the inner one the server's word.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Result<T, Refusal>, Error> {
        let call = self.agent.get(self.rest(path)).query_pairs(query.iter().copied());
        self.read(call.call())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Result<T, Refusal>, Error> {
        self.send(Method::Post, path, body)
    }

    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Result<T, Refusal>, Error> {
        let url = self.rest(path);
        self.read(match method {
            Method::Post => self.agent.post(url).send_json(body),
            Method::Delete => self.agent.delete(url).force_send_body().send_json(body),
        })
    }

    /// What an answer says.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Result<T, Refusal>, Error> {
        let unreachable =
            |error: ureq::Error| Error::Unreachable { url: self.url.clone(), reason: error.to_string() };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let text =
            answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(unreachable)?;
        if answer.status().is_success() {
            // An upload is answered with nothing.
            let text = if text.trim().is_empty() { "{}" } else { text.as_str() };
            return serde_json::from_str(text).map(Ok).map_err(|error| self.bad_answer(error.to_string()));
        }
        let said: Result<Refusal, _> = serde_json::from_str(&text);
        let message = text.chars().take(REASON_CHARS_MAX).collect();
        let refusal = said.unwrap_or(Refusal { status, code: String::new(), message });
        Ok(Err(Refusal { status, ..refusal }))
    }

    /// The error of a no that nothing can be made of.
    pub(super) fn refused(&self, action: &str, refusal: Refusal) -> Error {
        let reason =
            refusal.message.lines().next().unwrap_or_default().chars().take(REASON_CHARS_MAX).collect();
        Error::Refused { url: self.url.clone(), action: action.to_owned(), status: refusal.status, reason }
    }

    pub(super) fn bad_answer(&self, reason: String) -> Error {
        Error::BadAnswer { url: self.url.clone(), reason }
    }

    fn rest(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow/{path}", self.url)
    }
}
