//! What one request leaves behind: times, counts and how it ended. One JSON line each in `records.jsonl`.

use serde::{Deserialize, Serialize, Serializer};

/// One request's life. Times are microseconds since the start of its phase, the warm-up or the measured run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestRecord {
    /// The request's number within its phase, from 0; all turns of a conversation have one.
    pub index: u64,
    /// Which turn of its conversation it is, from 0.
    pub turn: u32,
    /// Whether it belongs to the warm-up.
    pub warmup: bool,
    /// When it was due.
    pub scheduled_us: u64,
    /// When it was handed to the HTTP client, or given up for want of a connection.
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
    /// The most tokens that it asked for; 0 when it was never sent.
    pub max_tokens: u32,
    /// Whether it was sent a second time, on a new connection, since the server had closed the one it was sent on
    /// before a byte of an answer. `sent_us` is the first time.
    pub resent: bool,
    /// A hash of a good answer's text, where the scenario asks for hashes; see [`crate::answer_hash`].
    pub answer_hash: Option<u64>,
    /// A hash of its messages, where answers are hashed.
    pub prompt_hash: Option<u64>,
    /// What the gateway's response cache had to do with it, where there is one.
    pub cache: Option<CacheStatus>,
    /// Which worker answered, where the server says; at most [`Self::WORKER_BYTES_MAX`] bytes.
    pub worker: Option<Box<str>>,
    /// How it failed; absent for success.
    pub failure: Option<Failure>,
}

impl RequestRecord {
    /// A longer name of a worker is not kept.
    pub const WORKER_BYTES_MAX: usize = 64;

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

/// A response cache's part in an answer, as the header `x-tenk-cache` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// Answered before, and replayed.
    Hit,
    /// Asked of a worker.
    Miss,
    /// Followed another request's answer while that one was being given.
    Coalesced,
    /// Not looked for.
    Bypass,
}

impl CacheStatus {
    /// Reads the header's value; none that is not known.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value {
            b"hit" => Some(Self::Hit),
            b"miss" => Some(Self::Miss),
            b"coalesced" => Some(Self::Coalesced),
            b"bypass" => Some(Self::Bypass),
            _ => None,
        }
    }
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
    /// Never sent: as many requests were in flight as may be. It counts as offered.
    Unsent,
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
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsent => f.write_str("unsent"),
            Self::Connect => f.write_str("connect"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::Timeout => f.write_str("timeout"),
            Self::Http(status) => write!(f, "http_{status}"),
            Self::StreamError => f.write_str("stream_error"),
            Self::Truncated => f.write_str("truncated"),
            Self::BadAnswer => f.write_str("bad_answer"),
            Self::Mismatch => f.write_str("mismatch"),
        }
    }
}

impl Serialize for FailureKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
