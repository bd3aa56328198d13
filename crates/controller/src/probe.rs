//! Requests that are no user's, through a gateway to a version by name.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use crate::Config;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Prompts of users that are kept for later.
const PROMPTS_MAX: usize = 64;

/// For versions that no user has asked anything yet.
const CANNED: [&str; 6] = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Count from one to ten.",
    "Explain what a cache is, in two sentences.",
    "Translate 'good morning' into Spanish.",
    "Name three colours.",
];

/// Asks versions through a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    base: String,
    key: Option<String>,
    agent: Agent,
}

impl Prober {
    /// `None` where no gateway is known.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let base = config.gateway.as_ref()?.trim_end_matches('/').to_owned();
        let agent =
            Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
        Some(Self { base, key: config.gateway_api_key.clone(), agent })
    }

    /// Sends a request to a version, and reads its answer. Blocks.
    pub(crate) fn ask(&self, version: &str, body: &Value) -> Result<Value, String> {
        let path = if body.get("messages").is_some() { "/v1/chat/completions" } else { "/v1/completions" };
        let mut request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("cache-control", "no-store")
            .header(protocol::headers::VERSION, version);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send(body.to_string().as_bytes());
        let mut response = response.map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|_| "the answer is no JSON".to_owned())?;
        match (response.status().as_u16(), answer["error"]["message"].as_str()) {
            (200, _) => Ok(answer),
            (status, Some(message)) => Err(format!("{status}: {message}")),
            (status, None) => Err(format!("status {status}")),
        }
    }

    /// How long a version takes for a prompt and one token, in seconds. Blocks.
    pub(crate) fn first_token_s(&self, version: &str, body: &Value) -> Result<f64, String> {
        let since = Instant::now();
        self.ask(version, &with_length(body, 1))?;
        Ok(since.elapsed().as_secs_f64())
    }
}

/// The same request for at most so many tokens, all of them the likeliest, in one piece.
pub(crate) fn with_length(body: &Value, tokens: u32) -> Value {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        for field in
            ["stream_options", "max_completion_tokens", "n", "best_of", "logprobs", "top_logprobs", "seed"]
        {
            fields.remove(field);
        }
        fields.insert("stream".into(), false.into());
        fields.insert("temperature".into(), 0.into());
        fields.insert("max_tokens".into(), tokens.into());
    }
    body
}

/// Prompts to ask versions: those of users where some are known, else a few of our own.
#[derive(Debug, Default)]
pub(crate) struct Prompts {
    of_users: VecDeque<Value>,
    turn: usize,
}

impl Prompts {
    /// Keeps bodies of users' requests.
    pub(crate) fn add(&mut self, bodies: &[String]) {
        let parsed = bodies.iter().filter_map(|body| serde_json::from_str::<Value>(body).ok());
        self.of_users.extend(parsed.filter(|body| body["messages"].is_array() || body["prompt"].is_string()));
        while self.of_users.len() > PROMPTS_MAX {
            self.of_users.pop_front();
        }
    }

    /// A prompt of a user's that was not given out before.
    pub(crate) fn next_of_users(&mut self) -> Option<Value> {
        self.of_users.pop_front()
    }

    /// A prompt in turn, of users where there are some.
    pub(crate) fn next(&mut self, model: &str) -> Value {
        self.turn += 1;
        match self.of_users.len() {
            0 => {
                let text = CANNED[self.turn % CANNED.len()];
                json!({"model": model, "messages": [{"role": "user", "content": text}]})
            }
            len => self.of_users[self.turn % len].clone(),
        }
    }
}
