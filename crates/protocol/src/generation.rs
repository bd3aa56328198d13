//! The fields that chat and text completions share.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApiError, object};

/// Everything in a request that steers generation, whichever endpoint it came to. Parsed from the same bytes as
/// the endpoint's own type, so that neither needs the other's fields and errors keep their path.
///
/// Absent and `null` are the same. Names follow OpenAI where it has the field, vLLM where it does not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Generation {
    /// The served model's name.
    pub model: Option<String>,
    /// Server-sent events instead of one body.
    pub stream: Option<bool>,
    /// Only with `stream`.
    #[serde(default, deserialize_with = "object::option")]
    pub stream_options: Option<StreamOptions>,
    /// The most tokens to generate; the older name of `max_completion_tokens`.
    pub max_tokens: Option<u32>,
    /// The most tokens to generate; wins over `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// 0 is greedy; 0 to 2.
    pub temperature: Option<f32>,
    /// Nucleus mass; above 0, at most 1.
    pub top_p: Option<f32>,
    /// How many of the likeliest tokens stay; 0 and -1 mean all.
    pub top_k: Option<i64>,
    /// Least probability relative to the likeliest token; 0 to 1.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or output; above 0.
    pub repetition_penalty: Option<f32>,
    /// Subtracted once per occurrence in the output; -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Subtracted once if the token is in the output; -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Token id (a decimal string, as JSON keys are) to a bias of -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Makes sampling repeatable.
    pub seed: Option<i64>,
    /// How many answers.
    pub n: Option<u32>,
    /// Up to [`Self::STOP_MAX`] strings that end the answer; they are not part of it.
    pub stop: Option<Stop>,
    /// Chat: true or false. Completions: how many alternatives.
    pub logprobs: Option<Value>,
    /// Chat: how many alternatives, with `logprobs: true`.
    pub top_logprobs: Option<u32>,
    /// Go on past the end-of-sequence token.
    pub ignore_eos: Option<bool>,
    /// Log-likelihoods of the prompt's own tokens, with this many alternatives.
    pub prompt_logprobs: Option<u32>,
    /// Answer with token ids beside text.
    pub return_token_ids: Option<bool>,
    /// Lower is served earlier; [`Self::PRIORITY_MIN`] to [`Self::PRIORITY_MAX`], 0 unless set.
    pub priority: Option<i32>,
    /// Sets prefix-cache entries apart; only trusted from a gateway.
    pub cache_salt: Option<String>,
    /// The end user, who is kept on one model version.
    pub user: Option<String>,
    /// Only `{"type": "text"}` for now.
    pub response_format: Option<Value>,
    /// Output kinds; only `["text"]`.
    pub modalities: Option<Vec<String>>,
    /// Refused for now, unless empty.
    pub tools: Option<Value>,
    /// Refused unless `"none"` or `"auto"`.
    pub tool_choice: Option<Value>,
    /// The older form of `tool_choice`.
    pub function_call: Option<Value>,
    /// Refused unless 0.
    pub min_tokens: Option<u32>,
    /// Refused unless empty.
    pub stop_token_ids: Option<Vec<u32>>,
    /// Refused unless empty.
    pub bad_words: Option<Vec<String>>,
    /// The older form of `tools`. Refused for now, as is everything below.
    pub functions: Option<IgnoredAny>,
    /// vLLM's names for what an answer must look like.
    pub structured_outputs: Option<IgnoredAny>,
    /// A JSON schema.
    pub guided_json: Option<IgnoredAny>,
    /// A regular expression.
    pub guided_regex: Option<IgnoredAny>,
    /// A list of answers to choose from.
    pub guided_choice: Option<IgnoredAny>,
    /// A grammar.
    pub guided_grammar: Option<IgnoredAny>,
}

/// The part of [`Generation`] that changes no answer. Who answers from what was answered before checks it by itself:
/// a request must not be right or wrong by whether its answer is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Delivery {
    /// As in [`Generation`], as are the others.
    pub stream: Option<bool>,
    /// Only with `stream`.
    #[serde(default, deserialize_with = "object::option")]
    pub stream_options: Option<StreamOptions>,
    /// In range.
    pub priority: Option<i32>,
    /// Any string.
    pub user: Option<String>,
}

impl Delivery {
    /// The checks of [`Generation::validate`] that concern these fields.
    pub fn validate(&self) -> Result<(), ApiError> {
        check_priority(self.priority)?;
        check_stream_options(self.stream_options, self.stream)
    }
}

fn check_priority(priority: Option<i32>) -> Result<(), ApiError> {
    in_range("priority", priority, Generation::PRIORITY_MIN, Generation::PRIORITY_MAX)
}

fn check_stream_options(options: Option<StreamOptions>, stream: Option<bool>) -> Result<(), ApiError> {
    if options.is_some() && stream != Some(true) {
        let message = "`stream_options` is only allowed with `stream: true`";
        return Err(ApiError::invalid("stream_options", message));
    }
    Ok(())
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// One last chunk with `choices: []` and the token counts.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// `stop`: one string or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    /// The strings as a list.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        }
    }
}

impl Generation {
    /// The most `stop` strings in a request. OpenAI allows 4, vLLM any number; 16 is room enough and a bound.
    pub const STOP_MAX: usize = 16;
    /// The most characters in one `stop` string.
    pub const STOP_CHARS_MAX: usize = 256;
    /// The most tokens with a bias: each is looked at in every step, and every answer holds a copy.
    pub const LOGIT_BIAS_MAX: usize = 1024;
    /// The most bytes of `cache_salt`, of which every answer holds a copy.
    pub const CACHE_SALT_BYTES_MAX: usize = 256;
    /// The most answers to one request.
    pub const N_MAX: u32 = 64;
    /// The most alternatives per token.
    pub const LOGPROBS_MAX: u32 = 20;
    /// The priority that is served first.
    pub const PRIORITY_MIN: i32 = -10;
    /// The priority that is served last.
    pub const PRIORITY_MAX: i32 = 10;

    /// Checks ranges, and refuses what this server cannot do yet. Types were checked by parsing.
    pub fn validate(&self) -> Result<(), ApiError> {
        in_range("temperature", self.temperature, 0.0, 2.0)?;
        in_range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        in_range("top_k", self.top_k, -1, i64::from(u32::MAX))?;
        in_range("n", self.n, 1, Self::N_MAX)?;
        in_range("max_tokens", self.max_tokens, 1, u32::MAX)?;
        in_range("max_completion_tokens", self.max_completion_tokens, 1, u32::MAX)?;
        in_range("top_logprobs", self.top_logprobs, 0, Self::LOGPROBS_MAX)?;
        check_priority(self.priority)?;
        in_range("prompt_logprobs", self.prompt_logprobs, 0, Self::LOGPROBS_MAX)?;
        self.validate_logit_bias()?;
        self.validate_stop()?;
        if self.cache_salt.as_ref().is_some_and(|salt| salt.len() > Self::CACHE_SALT_BYTES_MAX) {
            return Err(ApiError::invalid(
                "cache_salt",
                format!("`cache_salt` must have at most {} bytes", Self::CACHE_SALT_BYTES_MAX),
            ));
        }
        check_stream_options(self.stream_options, self.stream)?;
        self.refuse_what_is_not_there()
    }

    /// The cap on generated tokens: the newer name wins.
    pub fn max_output_tokens(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether the last chunk of a stream carries usage.
    pub fn include_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage).unwrap_or(false)
    }

    fn validate_logit_bias(&self) -> Result<(), ApiError> {
        let Some(biases) = &self.logit_bias else { return Ok(()) };
        if biases.len() > Self::LOGIT_BIAS_MAX {
            return Err(ApiError::invalid(
                "logit_bias",
                format!("at most {} tokens may have a bias", Self::LOGIT_BIAS_MAX),
            ));
        }
        for (token, bias) in biases {
            if token.parse::<u32>().is_err() {
                return Err(ApiError::invalid(
                    "logit_bias",
                    "the keys of `logit_bias` must be token ids, written as decimal strings",
                ));
            }
            in_range("logit_bias", Some(*bias), -100.0, 100.0)?;
        }
        Ok(())
    }

    fn validate_stop(&self) -> Result<(), ApiError> {
        let stops: &[String] = match &self.stop {
            None => return Ok(()),
            Some(Stop::One(stop)) => std::slice::from_ref(stop),
            Some(Stop::Many(stops)) => stops,
        };
        if stops.len() > Self::STOP_MAX {
            return Err(ApiError::invalid(
                "stop",
                format!("at most {} stop strings are allowed", Self::STOP_MAX),
            ));
        }
        if stops.iter().any(|stop| stop.is_empty() || stop.chars().count() > Self::STOP_CHARS_MAX) {
            return Err(ApiError::invalid(
                "stop",
                format!("a stop string must have 1 to {} characters", Self::STOP_CHARS_MAX),
            ));
        }
        Ok(())
    }

    /// What would change an answer must not be ignored.
    fn refuse_what_is_not_there(&self) -> Result<(), ApiError> {
        refuse_tools("tools", self.tools.as_ref())?;
        let chooses = |choice: &Option<Value>| {
            choice.as_ref().is_some_and(|choice| choice != "none" && choice != "auto")
        };
        let shapes = self.response_format.as_ref().is_some_and(|format| format["type"] != "text");
        let is_other = |kinds: &Vec<String>| kinds.iter().any(|kind| kind != "text");
        let asked = [
            ("tool_choice", chooses(&self.tool_choice), "tool calling"),
            ("function_call", chooses(&self.function_call), "function calling"),
            ("functions", self.functions.is_some(), "function calling"),
            ("response_format", shapes, "structured output"),
            ("structured_outputs", self.structured_outputs.is_some(), "structured output"),
            ("guided_json", self.guided_json.is_some(), "structured output"),
            ("guided_regex", self.guided_regex.is_some(), "structured output"),
            ("guided_choice", self.guided_choice.is_some(), "structured output"),
            ("guided_grammar", self.guided_grammar.is_some(), "structured output"),
            ("min_tokens", self.min_tokens.is_some_and(|count| count > 0), "a least number of tokens"),
            (
                "stop_token_ids",
                self.stop_token_ids.as_ref().is_some_and(|ids| !ids.is_empty()),
                "stopping at tokens",
            ),
            ("bad_words", self.bad_words.as_ref().is_some_and(|words| !words.is_empty()), "a ban on words"),
            ("modalities", self.modalities.as_ref().is_some_and(is_other), "output other than text"),
        ];
        match asked.into_iter().find(|(_, asked, _)| *asked) {
            Some((param, _, what)) => Err(not_supported(param, what)),
            None => Ok(()),
        }
    }
}

/// Refuses tools that a model could call. An empty list is none.
pub(crate) fn refuse_tools(param: &str, tools: Option<&Value>) -> Result<(), ApiError> {
    match tools {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(tools)) if tools.is_empty() => Ok(()),
        Some(_) => Err(not_supported(param, "tool calling")),
    }
}

fn not_supported(param: &str, what: &str) -> ApiError {
    ApiError::invalid(param, format!("{what} is not supported by this server; leave `{param}` out"))
}

/// Refuses values outside `min..=max`, and NaN.
fn in_range<T>(param: &str, value: Option<T>, min: T, max: T) -> Result<(), ApiError>
where
    T: PartialOrd + std::fmt::Display + Copy,
{
    match value {
        Some(value) if !(value >= min && value <= max) => Err(ApiError::invalid(
            param,
            format!("`{param}` must be between {min} and {max}, but is {value}"),
        )),
        _ => Ok(()),
    }
}

/// Why an answer ended. A missing reason reads as truncation to clients, so the last chunk always has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended, or a stop string was found.
    Stop,
    /// The cap on tokens or the context was reached.
    Length,
}

impl FinishReason {
    /// The wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Token counts of one request, all of its answers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Their sum.
    pub total_tokens: u32,
    /// How many prompt tokens were not computed again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// OpenAI's breakdown of `prompt_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokensDetails {
    /// Found in the prefix cache.
    pub cached_tokens: u32,
}

/// The log-likelihood of one prompt token, with the likeliest alternatives (vLLM's `prompt_logprobs`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptLogprob {
    /// Natural logarithm of the probability.
    pub logprob: f32,
    /// 1 for the likeliest token.
    pub rank: u32,
    /// The token's own text.
    pub decoded_token: String,
}
