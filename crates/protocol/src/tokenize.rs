//! `POST /tokenize` and `/detokenize`, as vLLM has them.

use serde::{Deserialize, Serialize};

use crate::{Message, object};

/// Text or messages to tokenize.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TokenizeRequest {
    /// The served model's name.
    pub model: Option<String>,
    /// Plain text, or …
    pub prompt: Option<String>,
    /// … messages, which go through the chat template.
    #[serde(default, deserialize_with = "object::option_list")]
    pub messages: Option<Vec<Message>>,
    /// Put the tokenizer's own start token before plain text; true unless set.
    pub add_special_tokens: Option<bool>,
    /// End the template with the start of an answer; true unless set.
    pub add_generation_prompt: Option<bool>,
}

/// Token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizeResponse {
    /// How many.
    pub count: usize,
    /// The context's length.
    pub max_model_len: u32,
    /// The ids.
    pub tokens: Vec<u32>,
}

/// Token ids to turn into text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DetokenizeRequest {
    /// The served model's name.
    pub model: Option<String>,
    /// The ids.
    pub tokens: Vec<u32>,
}

/// The text of some token ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetokenizeResponse {
    /// The text, specials included.
    pub prompt: String,
}
