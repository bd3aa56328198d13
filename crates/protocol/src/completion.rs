//! `POST /v1/completions`: text in, text out, no chat template.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ApiError, FinishReason, PromptLogprobs, Usage};

/// What a completion request says beside [`crate::Generation`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CompletionRequest {
    /// The served model's name.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// Put the prompt before the answer.
    pub echo: Option<bool>,
    /// Refused when set: text after the insertion.
    pub suffix: Option<String>,
    /// Refused above `n`.
    pub best_of: Option<u32>,
    /// Put the tokenizer's own start token first; true unless set (vLLM's extension).
    pub add_special_tokens: Option<bool>,
}

/// A prompt as text or as token ids, one or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of such lists"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One list of ids.
    Ids(Vec<u32>),
    /// Several lists of ids.
    IdLists(Vec<Vec<u32>>),
}

impl Prompt {
    /// The most prompts in one request.
    pub const PROMPTS_MAX: usize = 64;

    /// How many prompts there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
        }
    }

    /// Whether there is no prompt at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl CompletionRequest {
    /// Checks what parsing cannot.
    pub fn validate(&self) -> Result<(), ApiError> {
        if self.prompt.is_empty() || matches!(&self.prompt, Prompt::Ids(ids) if ids.is_empty()) {
            return Err(ApiError::invalid("prompt", "`prompt` must not be empty"));
        }
        if self.prompt.len() > Prompt::PROMPTS_MAX {
            return Err(ApiError::invalid(
                "prompt",
                format!("at most {} prompts are allowed", Prompt::PROMPTS_MAX),
            ));
        }
        if self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::invalid(
                "suffix",
                "insertion is not supported by this server; leave `suffix` out",
            ));
        }
        if self.best_of.is_some_and(|best_of| best_of > 1) {
            return Err(ApiError::invalid(
                "best_of",
                "`best_of` is not supported by this server; leave it out",
            ));
        }
        Ok(())
    }
}

/// The answer, whole or as one chunk of a stream: OpenAI gives both the same form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// `cmpl-…`
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The served model's name.
    pub model: String,
    /// The model's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// `n` for each prompt; empty in the chunk that carries usage.
    pub choices: Vec<CompletionChoice>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompletionChoice {
    /// Prompt index times n, plus the answer's number.
    pub index: u32,
    /// The text.
    pub text: String,
    /// With `logprobs`.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// One entry a prompt token (vLLM's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// With `return_token_ids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// With `return_token_ids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

/// The older, columnar form of log-likelihoods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompletionLogprobs {
    /// Where each token starts, in characters of the text.
    pub text_offset: Vec<u32>,
    /// Log-likelihoods.
    pub token_logprobs: Vec<Option<f32>>,
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// The alternatives.
    pub top_logprobs: Vec<Option<BTreeMap<String, f32>>>,
}
