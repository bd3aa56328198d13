//! What goes into the engine's thread and what comes out.

use std::time::{Duration, Instant};

use protocol::FinishReason;

use crate::sampling::{SamplingParams, Scored};

/// One prompt to continue once. A request for several answers is several of these.
#[derive(Clone, Debug)]
pub struct Request {
    /// The client's request, for logs.
    pub request_id: String,
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// How tokens are picked.
    pub sampling: SamplingParams,
    /// The most tokens to generate; at least one.
    pub max_tokens: usize,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Go on past end-of-generation tokens.
    pub ignore_eos: bool,
    /// Lower is served earlier.
    pub priority: i32,
    /// Prefix-cache hits happen only among equal salts.
    pub salt: String,
    /// Log-likelihoods of the prompt, with this many alternatives.
    pub prompt_logprobs: Option<u8>,
}

/// What the engine tells about one request. The last is always [`Event::Ended`] or [`Event::Failed`].
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One entry a prompt token after the first; comes before the first token.
    PromptLogprobs(Vec<TokenScore>),
    /// A token was generated.
    Token(TokenEvent),
    /// The answer is complete.
    Ended(Ended),
    /// The answer cannot be completed.
    Failed(Failure),
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// Its id.
    pub token: u32,
    /// The text that became certain with it. May be empty: inside a character, or where a stop string could begin.
    pub text: String,
    /// If log-likelihoods were asked for.
    pub score: Option<TokenScore>,
    /// When it was.
    pub at: Instant,
}

/// A token's log-likelihood under the model, before temperature and penalties.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// 1 for the likeliest.
    pub rank: u32,
    /// The likeliest tokens, best first.
    pub top: Vec<(u32, f32)>,
}

impl TokenScore {
    pub(crate) fn new(token: u32, scored: Scored) -> Self {
        let Scored { logprob, rank, top } = scored;
        // JSON has no infinity; OpenAI's clients know this number for a token that cannot be.
        Self { token, logprob: logprob.max(-9999.0), rank, top }
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why.
    pub reason: FinishReason,
    /// Text that was held back and is now certain.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens that came from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated, one that ends generation included.
    pub completion_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
    /// When it did.
    pub at: Instant,
}

/// Parts of a request's time in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to its first step.
    pub queued: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From there to the last.
    pub decode: Duration,
}

/// Why an answer cannot be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine broke down in a step that this request was part of, and perhaps because of it.
    #[error("the engine failed")]
    Engine,
    /// The engine broke down, or had before, in a step that this request had no part in.
    #[error("the engine has stopped")]
    Stopped,
    /// The model gave numbers that are none.
    #[error("the model's output is not a number")]
    NotANumber,
}
