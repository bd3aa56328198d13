//! What one request leaves behind: times, counts and how it ended. One JSON line each in `records.jsonl`.

use serde::{Deserialize, Serialize, Serializer};

/// One request's life. Times are microseconds since the start of its phase, the warm-up or the measured run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestRecord {
    /// The request's number within its phase, from 0.
    pub index: u64,
    /// Whether it belongs to the warm-up.
    pub warmup: bool,
    /// When it was due.
    pub scheduled_us: u64,
    /// When it was handed to the HTTP client.
    pub sent_us: u64,
    /// When the first text came; absent when none did, and when the answer was not streamed.
    pub first_token_us: Option<u64>,
    /// When the last text came, or the body's end when the answer was not streamed.
    pub last_token_us: Option<u64>,
    /// When nothing more was awaited.
    pub done_us: u64,
    /// Streamed text as it came, in order of time.
    pub chunks: Vec<Chunk>,
    /// Where the chunks' token counts are from.
    pub token_basis: TokenBasis,
    /// The HTTP status; absent when no answer came.
    pub status: Option<u16>,
    /// Why the answer ended, as the server says.
    pub finish_reason: Option<String>,
    /// Token counts, as the server says.
    pub usage: Option<Usage>,
    /// The most tokens that it asked for.
    pub max_tokens: u32,
    /// What a response cache in front of the model did, where the server says.
    pub cache: Option<CacheStatus>,
    /// A hash of the answer's text, where one was asked for.
    pub answer_hash: Option<u64>,
    /// Whether an idle connection had closed, so that it was sent once more on a new one.
    pub resent: bool,
    /// How it failed; absent for success.
    pub failure: Option<Failure>,
}

impl RequestRecord {
    /// Tokens of the answer: the server's count, else the sum over the chunks.
    pub fn output_tokens(&self) -> u64 {
        match &self.usage {
            Some(usage) => u64::from(usage.completion_tokens),
            None => self.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum(),
        }
    }
}

/// One streamed event that brought text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Chunk {
    /// When the network brought it.
    pub at_us: u64,
    /// How many tokens it brought, as [`TokenBasis`] knows.
    pub tokens: u32,
}

/// Where the token counts of chunks are from, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenBasis {
    /// Each chunk said its own, by token ids or by running usage.
    PerChunk,
    /// The answer's usage, spread over the chunks.
    Usage,
    /// The server said nothing: one a chunk.
    #[default]
    Assumed,
}

/// The token counts that a server sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt, its template included.
    pub prompt_tokens: u32,
    /// How many of them came from a prefix cache.
    pub cached_prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// What a response cache did for a request, as `x-tenk-cache` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// The answer was there.
    Hit,
    /// It was not.
    Miss,
    /// Another request for the same answer was under way.
    Coalesced,
    /// The request was none for the cache.
    Bypass,
}

/// How a request failed, with the first words of what was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The class that failures are counted by.
    pub kind: FailureKind,
    /// What was seen, shortened to one printable line.
    pub example: String,
}

impl Failure {
    /// The most characters that are kept of an example.
    pub const EXAMPLE_CHARS_MAX: usize = 200;

    /// A failure with its example cut to [`Self::EXAMPLE_CHARS_MAX`] and stripped of control characters, for it may
    /// be a server's text on its way to a terminal.
    pub fn new(kind: FailureKind, example: impl AsRef<str>) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            kind,
            example: example.as_ref().chars().take(Self::EXAMPLE_CHARS_MAX).map(printable).collect(),
        }
    }
}

/// The classes of failure; few, so that counting by them is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// The connection broke before the answer's end.
    Disconnected,
    /// The request's time ran out.
    Timeout,
    /// A status outside 200–299.
    Http(u16),
    /// An error event within a stream.
    StreamError,
    /// The answer ended in good order, but without `[DONE]` or without a finish reason.
    Truncated,
    /// The answer is not what the API says.
    BadAnswer,
    /// The answer is not the reference run's.
    Mismatch,
    /// It was due, but never sent: too many were in flight.
    Unsent,
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Timeout => f.write_str("timeout"),
            Self::Http(status) => write!(f, "http_{status}"),
            Self::StreamError => f.write_str("stream_error"),
            Self::Truncated => f.write_str("truncated"),
            Self::BadAnswer => f.write_str("bad_answer"),
            Self::Mismatch => f.write_str("mismatch"),
            Self::Unsent => f.write_str("unsent"),
        }
    }
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
