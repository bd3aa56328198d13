//! `POST /v1/chat/completions`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::generation::refuse_tools;
use crate::{ApiError, FinishReason, PromptLogprob, Usage, object};

/// What a chat request says beside [`crate::Generation`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ChatRequest {
    /// The served model's name.
    pub model: String,
    /// The conversation, oldest first.
    #[serde(deserialize_with = "object::list")]
    pub messages: Vec<Message>,
    /// End the template with the start of an answer; true unless set (vLLM's extension).
    pub add_generation_prompt: Option<bool>,
    /// Given to the chat template as they are (vLLM's extension).
    pub chat_template_kwargs: Option<serde_json::Map<String, Value>>,
}

impl ChatRequest {
    /// Checks what parsing cannot: at least one message, known roles, text only.
    pub fn validate(&self) -> Result<(), ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "`messages` must hold at least one message"));
        }
        refuse_tools(
            "chat_template_kwargs.tools",
            self.chat_template_kwargs.as_ref().and_then(|kwargs| kwargs.get("tools")),
        )?;
        self.messages.iter().enumerate().try_for_each(|(index, message)| message.validate(index))
    }
}

/// One turn of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text; absent for an assistant's turn that only called tools.
    #[serde(default)]
    pub content: Option<Content>,
    /// The participant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls that an assistant's turn made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which call a message of role `tool` answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl Message {
    /// The roles that OpenAI defines.
    pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

    /// The content as one text, parts joined by line breaks as vLLM does.
    pub fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n")
            }
        }
    }

    fn validate(&self, index: usize) -> Result<(), ApiError> {
        if !Self::ROLES.contains(&self.role.as_str()) {
            return Err(ApiError::invalid(
                format!("messages[{index}].role"),
                format!("a role must be one of {}", Self::ROLES.join(", ")),
            ));
        }
        self.validate_tool_calls(index)?;
        match &self.content {
            None if self.role != "assistant" => Err(ApiError::invalid(
                format!("messages[{index}].content"),
                format!("a message of role {} needs a `content`", self.role),
            )),
            Some(Content::Parts(parts)) => {
                parts.iter().enumerate().try_for_each(|(at, part)| match part.kind.as_str() {
                    "text" if part.text.is_some() => Ok(()),
                    "text" => Err(ApiError::invalid(
                        format!("messages[{index}].content[{at}].text"),
                        "a content part of type `text` needs a `text`",
                    )),
                    _ => Err(ApiError::invalid(
                        format!("messages[{index}].content[{at}].type"),
                        "only content parts of type `text` are supported by this server",
                    )),
                })
            }
            _ => Ok(()),
        }
    }

    fn validate_tool_calls(&self, index: usize) -> Result<(), ApiError> {
        let calls = self.tool_calls.as_deref().unwrap_or_default();
        if !calls.is_empty() && self.role != "assistant" {
            return Err(ApiError::invalid(
                format!("messages[{index}].tool_calls"),
                format!(
                    "only a message of role assistant can have `tool_calls`, but this one is of role {}",
                    self.role
                ),
            ));
        }
        match calls.iter().position(|call| call.kind.as_ref().is_some_and(|kind| kind != "function")) {
            None => Ok(()),
            Some(at) => Err(ApiError::invalid(
                format!("messages[{index}].tool_calls[{at}].type"),
                "only tool calls of type `function` are supported by this server",
            )),
        }
    }
}

/// A call of a function, as an assistant's turn made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// What `tool_call_id` of the message with its result repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only `function`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What was called.
    pub function: FunctionCall,
}

/// A function's name, and what it was called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Arguments>,
}

/// A call's arguments: JSON as text, as OpenAI sends them, or what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected an object, or one written as a string")]
pub enum Arguments {
    /// JSON in a string.
    Text(String),
    /// The arguments by name.
    Object(serde_json::Map<String, Value>),
}

/// A message's content: plain text, or parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of content parts")]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Typed parts; only `text` is served.
    Parts(#[serde(deserialize_with = "object::list")] Vec<ContentPart>),
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentPart {
    /// `text`, `image_url`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Present for `text`.
    #[serde(default)]
    pub text: Option<String>,
}

/// The whole answer, when it is not streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatCompletion {
    /// `chatcmpl-…`
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The served model's name.
    pub model: String,
    /// The model's version, so that a client can tell when answers may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// `n` of them.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: Option<Usage>,
    /// One entry a prompt token, the first null (vLLM's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// Ids of the prompt's tokens, with `return_token_ids` (vLLM's extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

/// For each prompt token a map from token id to its log-likelihood; null for the first, which nothing predicts.
pub type PromptLogprobs = Vec<Option<std::collections::BTreeMap<u32, PromptLogprob>>>;

/// One of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChoice {
    /// 0 to n - 1.
    pub index: u32,
    /// The answer.
    pub message: AssistantMessage,
    /// With `logprobs`.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
    /// With `return_token_ids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// The answer's message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// Always `assistant`.
    pub role: String,
    /// The text.
    pub content: Option<String>,
    /// Always null here; clients expect the field.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// Log-likelihoods of an answer's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatLogprobs {
    /// One a token.
    pub content: Vec<TokenLogprob>,
}

/// One token with its likeliest alternatives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text; U+FFFD where it is a part of a character.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes, whole or not.
    pub bytes: Option<Vec<u8>>,
    /// As many as `top_logprobs` asked for.
    pub top_logprobs: Vec<TopLogprob>,
}

/// An alternative to a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token's bytes.
    pub bytes: Option<Vec<u8>>,
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChunk {
    /// The same in every chunk.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// The same in every chunk.
    pub created: u64,
    /// The served model's name.
    pub model: String,
    /// The model's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
    /// Empty in the chunk that carries usage.
    pub choices: Vec<ChatChunkChoice>,
    /// Only in the last chunk, and only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a chunk adds to one of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatChunkChoice {
    /// Which answer.
    pub index: u32,
    /// The addition.
    pub delta: Delta,
    /// With `logprobs`.
    #[serde(default)]
    pub logprobs: Option<ChatLogprobs>,
    /// Set in an answer's last chunk.
    pub finish_reason: Option<FinishReason>,
    /// With `return_token_ids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// The addition to an answer's message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Only in the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// New text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
