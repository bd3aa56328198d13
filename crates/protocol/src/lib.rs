//! The words that tenk's processes speak: OpenAI's HTTP API, and what gateway and worker add to it.
//!
//! Everything depends on this crate and it depends on nothing of ours. It holds types, their parsing and their
//! checks; it knows no socket, no clock and no runtime.
//!
//! Unknown fields of a request are ignored, as OpenAI-compatible servers do; a field of the wrong type or out of
//! range is an [`ApiError`] that names it in `param`.

mod chat;
mod completion;
mod digest;
mod error;
mod generation;
pub mod headers;
mod load;
mod models;
mod object;
mod parse;
pub mod sse;
mod tokenize;

pub use chat::{
    Arguments, AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatLogprobs,
    ChatRequest, Content, ContentPart, Delta, FunctionCall, Message, PromptLogprobs, TokenLogprob, ToolCall,
    TopLogprob,
};
pub use completion::{Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompt};
pub use digest::{PREFIX_BLOCK_BYTES, PrefixDigest, chat_digests, prefix_digests, prompt_digests};
pub use error::{ApiError, ErrorBody, ErrorCode, ErrorFields};
pub use generation::{
    Delivery, FinishReason, Generation, PromptLogprob, PromptTokensDetails, Stop, StreamOptions, Usage,
};
pub use load::LoadReport;
pub use models::{ModelCard, ModelList};
pub use parse::{parse_fields, parse_json};
pub use tokenize::{DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse};
