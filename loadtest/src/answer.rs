//! Reads answers: the few fields of a chunk that a measurement needs, and how its tokens are counted. Pure; the time
//! of arrival comes in as an argument.

use protocol::sse::{DONE, EventTooLong};

use crate::answer_hash::AnswerHash;
use crate::record::{Chunk, Failure, FailureKind, TokenBasis, Usage};

mod events;
mod settle;
mod wire;

use events::Events;
use settle::{TextChunk, settle};
use wire::{WireAnswer, WireDelta};

/// The longest text that is kept to go back in a conversation's next turn.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// What is wanted of an answer's text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) hash: bool,
    pub(crate) text: bool,
}

/// What an answer has brought so far.
#[derive(Default)]
pub(crate) struct Answer {
    events: Events,
    read: Read,
}

#[derive(Default)]
struct Read {
    chunks: Vec<TextChunk>,
    /// Tokens that brought no text yet; the reader sees them with the next text.
    textless_tokens: u32,
    running_tokens: u32,
    done: bool,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    hash: Option<AnswerHash>,
    text: Option<String>,
}

/// What an answer comes to when it has ended, well or badly.
pub(crate) struct Settled {
    /// The chunks with their token counts.
    pub(crate) chunks: Vec<Chunk>,
    /// Where these are from.
    pub(crate) token_basis: TokenBasis,
    /// Why it ended, as the server says.
    pub(crate) finish_reason: Option<String>,
    /// The server's counts.
    pub(crate) usage: Option<Usage>,
    /// If it was wanted.
    pub(crate) hash: Option<u64>,
    /// If it was wanted.
    pub(crate) text: Option<String>,
}

impl From<EventTooLong> for Failure {
    fn from(too_long: EventTooLong) -> Self {
        Self::new(FailureKind::BadAnswer, too_long.to_string())
    }
}

impl Answer {
    /// Nothing came yet.
    pub(crate) fn new(wanted: Wanted) -> Self {
        let hash = wanted.hash.then(AnswerHash::new);
        let text = wanted.text.then(String::new);
        Self { events: Events::default(), read: Read { hash, text, ..Read::default() } }
    }

    /// Reads bytes of a stream that came at `at_us`. True once `[DONE]` was read.
    pub(crate) fn take_stream(&mut self, bytes: &[u8], at_us: u64) -> Result<bool, Failure> {
        let read = &mut self.read;
        self.events.read(bytes, |event| read.take_event(event, at_us))?;
        Ok(read.done)
    }

    /// Reads the body of an answer that was not streamed.
    pub(crate) fn take_whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let wire = parse(body)?;
        self.read.usage = wire.usage.map(Usage::from);
        if let Some(choice) = wire.choices.0 {
            self.read.take_text(&choice.delta.unwrap_or_default())?;
            self.read.finish_reason = choice.finish_reason.0.map(String::from);
        }
        match self.read.finish_reason {
            Some(_) => Ok(()),
            None => Err(Failure::new(FailureKind::Truncated, "the answer has no finish_reason")),
        }
    }

    /// Whether a stream that has ended was whole. `content_type` helps to say why it was not.
    pub(crate) fn check_stream_end(&self, content_type: &str) -> Result<(), Failure> {
        let lacks = match (self.read.done, self.read.finish_reason.is_some()) {
            (true, true) => return Ok(()),
            (false, true) => "[DONE]",
            (true, false) => "a finish_reason",
            (false, false) => "[DONE] and without a finish_reason",
        };
        let chunks = self.read.chunks.len();
        let example =
            format!("the stream ({content_type}) ended after {chunks} chunks of text without {lacks}");
        Err(Failure::new(FailureKind::Truncated, example))
    }

    /// What it came to.
    pub(crate) fn settle(self) -> Settled {
        let read = self.read;
        let (chunks, token_basis) = settle(read.chunks, read.textless_tokens, read.usage);
        Settled {
            chunks,
            token_basis,
            finish_reason: read.finish_reason,
            usage: read.usage,
            hash: read.hash.map(|hash| hash.finish()),
            text: read.text,
        }
    }
}

impl Read {
    fn take_event(&mut self, event: &[u8], at_us: u64) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        if event == DONE.as_bytes() {
            self.done = true;
            return Ok(());
        }
        let wire = parse(event)?;
        let usage = wire.usage.map(Usage::from);
        self.usage = usage.or(self.usage);
        let Some(choice) = wire.choices.0 else { return Ok(()) };

        let running = usage.map(|usage| usage.completion_tokens.saturating_sub(self.running_tokens));
        self.running_tokens = usage.map_or(self.running_tokens, |usage| usage.completion_tokens);
        let counted = choice.token_ids.map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX)).or(running);
        let text_bytes = choice.delta.map_or(Ok(0), |delta| self.take_text(&delta))?;
        if text_bytes > 0 {
            let carried = std::mem::take(&mut self.textless_tokens);
            let tokens = counted.map(|tokens| tokens + carried);
            self.chunks.push(TextChunk { at_us, text_bytes, tokens });
        } else {
            self.textless_tokens += counted.unwrap_or(0);
        }
        if let Some(reason) = choice.finish_reason.0 {
            self.finish_reason = Some(reason.into());
        }
        Ok(())
    }

    /// Keeps of a text what is wanted of it, and returns its length.
    fn take_text(&mut self, delta: &WireDelta<'_>) -> Result<usize, Failure> {
        let content = delta.content.as_str();
        let thoughts = [delta.reasoning_content.as_str(), delta.reasoning.as_str()];
        if let Some(hash) = &mut self.hash {
            hash.push_content(content);
            thoughts.iter().for_each(|text| hash.push_thoughts(text));
        }
        if let Some(text) = &mut self.text {
            if text.len() + content.len() > KEPT_BYTES_MAX {
                let example = format!("the answer is longer than {KEPT_BYTES_MAX} bytes");
                return Err(Failure::new(FailureKind::BadAnswer, example));
            }
            text.push_str(content);
        }
        Ok(content.len() + thoughts.iter().map(|text| text.len()).sum::<usize>())
    }
}

fn parse(json: &[u8]) -> Result<WireAnswer<'_>, Failure> {
    let wire: WireAnswer<'_> = serde_json::from_slice(json).map_err(|error| {
        let start = String::from_utf8_lossy(&json[..json.len().min(Failure::EXAMPLE_CHARS_MAX)]);
        Failure::new(FailureKind::BadAnswer, format!("{error}, in: {start}"))
    })?;
    match wire.error {
        Some(error) => {
            let error = serde_json::from_str(error.get()).unwrap_or_default();
            Err(Failure::new(FailureKind::StreamError, error_message(&error)))
        }
        None => Ok(wire),
    }
}

/// The message of OpenAI's error object, or whatever stands in its place.
pub(crate) fn error_message(error: &serde_json::Value) -> String {
    error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
