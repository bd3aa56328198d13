//! What a run is to do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::arrivals::{Arrivals, Limit};
use crate::error::Error;
use crate::prompts::Synthetic;
use crate::scenario::{self, Answers, Length, Prompts, Scenario};

/// The settings of one run. They are part of its report, so no secret belongs here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// `http://HOST:PORT` of the server.
    pub target: String,
    /// The served model's name; the first of `/v1/models` unless set.
    pub model: Option<String>,
    /// Users of the closed loop: the requests in flight at once.
    pub users: u32,
    /// Ends the run after so many requests. Either this or `duration_s`.
    pub requests: Option<u64>,
    /// Ends the run after so many seconds and what is then in flight.
    pub duration_s: Option<f64>,
    /// Requests before the measured ones.
    pub warmup: u64,
    /// About how many tokens a synthetic prompt has.
    pub prompt_tokens: u32,
    /// How many of them all prompts start with.
    pub shared_prefix_tokens: u32,
    /// Prompts from this file instead.
    pub prompt_file: Option<PathBuf>,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Ask for answers that go on to `max_tokens`.
    pub ignore_eos: bool,
    /// Sampling temperature; the server's own unless set.
    pub temperature: Option<f32>,
    /// Stream answers.
    pub stream: bool,
    /// Ask for token ids, which count each chunk's tokens where a server knows the field.
    pub return_token_ids: bool,
    /// Use a connection for more than one request.
    pub keep_alive: bool,
    /// Decides the synthetic prompts.
    pub seed: u64,
    /// The longest wait for a connection.
    pub connect_timeout_s: f64,
    /// The longest a request may take, from sending to its end.
    pub request_timeout_s: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            target: "http://127.0.0.1:8000".into(),
            model: None,
            users: 8,
            requests: Some(100),
            duration_s: None,
            warmup: 0,
            prompt_tokens: 128,
            shared_prefix_tokens: 0,
            prompt_file: None,
            max_tokens: 64,
            ignore_eos: false,
            temperature: None,
            stream: true,
            return_token_ids: false,
            keep_alive: true,
            seed: 0,
            connect_timeout_s: 5.0,
            request_timeout_s: 300.0,
        }
    }
}

impl RunConfig {
    /// The most users; each may hold a connection.
    pub const USERS_MAX: u32 = 20_000;
    /// The longest run: a week.
    pub const DURATION_S_MAX: f64 = 7.0 * 86_400.0;
    /// The longest time-out: a day.
    pub const TIMEOUT_S_MAX: f64 = 86_400.0;
    /// The longest synthetic prompt.
    pub const PROMPT_TOKENS_MAX: u32 = 1_000_000;

    /// Refuses what is out of range or does not fit together.
    pub fn validate(&self) -> Result<(), Error> {
        in_range("users", self.users, 1, Self::USERS_MAX)?;
        in_range("warmup", self.warmup, 0, 1_000_000)?;
        in_range(
            "prompt-tokens",
            self.prompt_tokens,
            Synthetic::UNIQUE_WORDS as u32,
            Self::PROMPT_TOKENS_MAX,
        )?;
        in_range("max-tokens", self.max_tokens, 1, u32::MAX)?;
        in_range("connect-timeout-s", self.connect_timeout_s, 0.001, Self::TIMEOUT_S_MAX)?;
        in_range("request-timeout-s", self.request_timeout_s, 0.001, Self::TIMEOUT_S_MAX)?;
        if let Some(temperature) = self.temperature {
            in_range("temperature", temperature, 0.0, 2.0)?;
        }
        if u64::from(self.shared_prefix_tokens) + Synthetic::UNIQUE_WORDS > u64::from(self.prompt_tokens) {
            return Err(Error::Config(format!(
                "shared-prefix-tokens is {} of {} prompt tokens, but each prompt needs {} of its own; lower it or raise \
                 prompt-tokens",
                self.shared_prefix_tokens,
                self.prompt_tokens,
                Synthetic::UNIQUE_WORDS
            )));
        }
        match (self.requests, self.duration_s) {
            (Some(requests), None) => in_range("requests", requests, 1, 1_000_000_000),
            (None, Some(duration_s)) => in_range("duration-s", duration_s, 0.001, Self::DURATION_S_MAX),
            _ => Err(Error::Config("a run needs either requests or duration-s, and not both".into())),
        }
    }

    pub(crate) fn limit(&self) -> Limit {
        match self.duration_s {
            Some(duration_s) => Limit::DurationUs((duration_s * 1e6) as u64),
            None => Limit::Requests(self.requests.unwrap_or(0)),
        }
    }

    /// The same as a scenario, for the report.
    pub(crate) fn scenario(&self) -> Scenario {
        let prompts = match &self.prompt_file {
            Some(path) => Prompts::File { path: path.clone() },
            None => Prompts::Synthetic {
                tokens: Length::Fixed(self.prompt_tokens),
                shared_prefix_tokens: self.shared_prefix_tokens,
                shared_prefixes: 1,
                repeats: None,
            },
        };
        Scenario {
            target: self.target.clone(),
            model: self.model.clone(),
            seed: self.seed,
            arrivals: scenario::Arrivals::ClosedLoop { users: self.users, think_time_s: 0.0 },
            requests: self.requests,
            duration_s: self.duration_s,
            warmup: self.warmup,
            prompts,
            answers: Answers {
                max_tokens: Length::Fixed(self.max_tokens),
                ignore_eos: self.ignore_eos,
                temperature: self.temperature,
                streamed: if self.stream { 1.0 } else { 0.0 },
                return_token_ids: self.return_token_ids,
                ..Answers::default()
            },
            client: scenario::Client {
                connect_timeout_s: self.connect_timeout_s,
                request_timeout_s: self.request_timeout_s,
                keep_alive: self.keep_alive,
                ..scenario::Client::default()
            },
            ..Scenario::default()
        }
    }

    pub(crate) const fn arrivals(&self) -> Arrivals {
        Arrivals::ClosedLoop { users: self.users }
    }
}

/// Refuses values outside `min..=max`, and NaN.
fn in_range<T: PartialOrd + std::fmt::Display>(name: &str, value: T, min: T, max: T) -> Result<(), Error> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(Error::Config(format!("{name} must be between {min} and {max}, but is {value}")))
}

/// The key that is sent as `Authorization: Bearer`; it never shows in output.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key, for the header alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        RunConfig::default().validate().expect("valid");
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let refused = |config: RunConfig| config.validate().expect_err("refused").to_string();
        let config = RunConfig::default;
        assert!(
            refused(RunConfig { users: 0, ..config() })
                .contains("users must be between 1 and 20000, but is 0")
        );
        assert!(refused(RunConfig { prompt_tokens: 7, ..config() }).contains("prompt-tokens"));
        assert!(refused(RunConfig { shared_prefix_tokens: 121, ..config() }).contains("needs 8 of its own"));
        assert!(refused(RunConfig { request_timeout_s: f64::NAN, ..config() }).contains("request-timeout-s"));
        assert!(refused(RunConfig { requests: None, ..config() }).contains("either requests or duration-s"));
        assert!(refused(RunConfig { duration_s: Some(1.0), ..config() }).contains("not both"));
    }

    #[test]
    fn a_key_does_not_show() {
        assert_eq!(format!("{:?}", ApiKey::from("secret".to_owned())), "ApiKey(…)");
    }
}
