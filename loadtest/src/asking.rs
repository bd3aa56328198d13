//! What the driver asks of whoever makes prompts.

use bytes::Bytes;

/// Requests of the warm-up are numbered from here on, so that they warm no cache for measured ones; prefixes that
/// prompts share, and the prompts of a file, are the same in both.
pub const WARMUP_INDEX_START: u64 = 1 << 63;

/// Makes requests. It is asked for each one as it is due, on the thread that keeps the times, so it must be quick.
pub trait Asking: Send + Sync {
    /// Turn `turn`, from 0, of conversation `index`; `history` are the real answers to the turns before. The same
    /// arguments give the same request.
    fn request(&self, index: u64, turn: u32, history: &[String]) -> Asked;
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// OpenAI's `messages`, a JSON array.
    pub messages_json: Bytes,
    /// The most tokens of the answer.
    pub max_tokens: u32,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Tokens of the prompt, as far as known; 0 where nobody counted.
    pub prompt_tokens: u32,
    /// Whether the conversation goes on after the answer, whose text is then kept.
    pub more_turns: bool,
}
