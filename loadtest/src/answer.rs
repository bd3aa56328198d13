//! Reads answers: the few fields of a chunk that a measurement needs, and how its tokens are counted. Pure; the time
//! of arrival comes in as an argument.

use std::fmt;

use protocol::sse::{DONE, EventReader};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};

use crate::record::{Chunk, Failure, FailureKind, TokenBasis, Usage};

/// A streamed event, or a whole answer: both have `choices` and `usage`.
#[derive(Deserialize)]
struct WireAnswer {
    #[serde(default)]
    choices: Vec<WireChoice>,
    usage: Option<WireUsage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(alias = "message")]
    delta: Option<WireDelta>,
    finish_reason: Option<String>,
    token_ids: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct WireDelta {
    #[serde(default)]
    content: TextBytes,
    // A reasoning model's thoughts are tokens like others; servers name them in one of two ways.
    #[serde(default)]
    reasoning_content: TextBytes,
    #[serde(default)]
    reasoning: TextBytes,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
    prompt_tokens_details: Option<WirePromptDetails>,
}

#[derive(Deserialize)]
struct WirePromptDetails {
    cached_tokens: Option<u32>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        Self {
            prompt_tokens: wire.prompt_tokens,
            cached_prompt_tokens: wire
                .prompt_tokens_details
                .and_then(|details| details.cached_tokens)
                .unwrap_or(0),
            completion_tokens: wire.completion_tokens,
        }
    }
}

/// The length of a text that is itself not kept, so that reading a chunk copies none of it.
#[derive(Clone, Copy, Default)]
struct TextBytes(usize);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl Visitor<'_> for Length {
            type Value = TextBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextBytes, E> {
                Ok(TextBytes(text.len()))
            }

            fn visit_unit<E>(self) -> Result<TextBytes, E> {
                Ok(TextBytes(0))
            }
        }
        deserializer.deserialize_any(Length)
    }
}

/// What an answer has brought so far.
#[derive(Default)]
pub(crate) struct Answer {
    reader: EventReader,
    chunks: Vec<TextChunk>,
    /// Tokens that brought no text yet; the reader sees them with the next text.
    textless_tokens: u32,
    running_tokens: u32,
    done: bool,
    /// Why it ended, as the server says.
    pub(crate) finish_reason: Option<String>,
    /// The server's counts.
    pub(crate) usage: Option<Usage>,
}

/// A chunk before its tokens are settled.
#[derive(Clone, Copy, Debug)]
struct TextChunk {
    at_us: u64,
    text_bytes: usize,
    tokens: Option<u32>,
}

impl Answer {
    /// Reads bytes of a stream that came at `at_us`. True once `[DONE]` was read.
    pub(crate) fn take_stream(&mut self, bytes: &[u8], at_us: u64) -> Result<bool, Failure> {
        let events = self
            .reader
            .push(bytes)
            .map_err(|too_long| Failure::new(FailureKind::BadAnswer, too_long.to_string()))?;
        for event in events {
            if self.done {
                break;
            }
            if event == DONE.as_bytes() {
                self.done = true;
            } else {
                self.take_event(&event, at_us)?;
            }
        }
        Ok(self.done)
    }

    /// Reads the body of an answer that was not streamed.
    pub(crate) fn take_whole(&mut self, body: &[u8]) -> Result<(), Failure> {
        let wire = parse(body)?;
        self.usage = wire.usage.map(Usage::from);
        self.finish_reason = wire.choices.into_iter().next().and_then(|choice| choice.finish_reason);
        match self.finish_reason {
            Some(_) => Ok(()),
            None => Err(Failure::new(FailureKind::Truncated, "the answer has no finish_reason")),
        }
    }

    /// Whether a stream that has ended was whole. `content_type` helps to say why it was not.
    pub(crate) fn check_stream_end(&self, content_type: &str) -> Result<(), Failure> {
        let lacks = match (self.done, self.finish_reason.is_some()) {
            (true, true) => return Ok(()),
            (false, true) => "[DONE]",
            (true, false) => "a finish_reason",
            (false, false) => "[DONE] and without a finish_reason",
        };
        let chunks = self.chunks.len();
        let example =
            format!("the stream ({content_type}) ended after {chunks} chunks of text without {lacks}");
        Err(Failure::new(FailureKind::Truncated, example))
    }

    /// The chunks with their token counts, and where these are from.
    pub(crate) fn settled_chunks(&self) -> (Vec<Chunk>, TokenBasis) {
        settle(&self.chunks, self.textless_tokens, self.usage)
    }

    fn take_event(&mut self, event: &[u8], at_us: u64) -> Result<(), Failure> {
        let wire = parse(event)?;
        let usage = wire.usage.map(Usage::from);
        self.usage = usage.or(self.usage);
        let Some(choice) = wire.choices.into_iter().next() else { return Ok(()) };

        let running = usage.map(|usage| usage.completion_tokens.saturating_sub(self.running_tokens));
        self.running_tokens = usage.map_or(self.running_tokens, |usage| usage.completion_tokens);
        let counted = choice.token_ids.map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX)).or(running);
        let text_bytes =
            choice.delta.map_or(0, |delta| delta.content.0 + delta.reasoning_content.0 + delta.reasoning.0);
        if text_bytes > 0 {
            let carried = std::mem::take(&mut self.textless_tokens);
            let tokens = counted.map(|tokens| tokens + carried);
            self.chunks.push(TextChunk { at_us, text_bytes, tokens });
        } else {
            self.textless_tokens += counted.unwrap_or(0);
        }
        self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        Ok(())
    }
}

fn parse(json: &[u8]) -> Result<WireAnswer, Failure> {
    let wire: WireAnswer = serde_json::from_slice(json).map_err(|error| {
        let start = String::from_utf8_lossy(&json[..json.len().min(Failure::EXAMPLE_CHARS_MAX)]);
        Failure::new(FailureKind::BadAnswer, format!("{error}, in: {start}"))
    })?;
    match wire.error {
        Some(error) => Err(Failure::new(FailureKind::StreamError, error_message(&error))),
        None => Ok(wire),
    }
}

/// The message of OpenAI's error object, or whatever stands in its place.
pub(crate) fn error_message(error: &serde_json::Value) -> String {
    error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned)
}

/// Gives every chunk its tokens. `textless_tokens` came after the last text, such as the one that ended the answer.
fn settle(chunks: &[TextChunk], textless_tokens: u32, usage: Option<Usage>) -> (Vec<Chunk>, TokenBasis) {
    let known: Option<Vec<u32>> = chunks.iter().map(|chunk| chunk.tokens).collect();
    let (tokens, basis) = match (known, usage) {
        (Some(mut known), _) if !known.is_empty() => {
            if let Some(last) = known.last_mut() {
                *last += textless_tokens;
            }
            (known, TokenBasis::PerChunk)
        }
        (_, Some(usage)) => {
            let text_bytes: Vec<usize> = chunks.iter().map(|chunk| chunk.text_bytes).collect();
            (spread(usage.completion_tokens, &text_bytes), TokenBasis::Usage)
        }
        _ => (vec![1; chunks.len()], TokenBasis::Assumed),
    };
    let chunks = chunks.iter().zip(tokens).map(|(chunk, tokens)| Chunk { at_us: chunk.at_us, tokens });
    (chunks.collect(), basis)
}

/// Spreads `total` tokens over chunks: one each as far as they go, the rest by length of text. Rounding leaves what is
/// over to later chunks, where the token that ended the answer, which has no text, belongs.
fn spread(total: u32, text_bytes: &[usize]) -> Vec<u32> {
    let all_bytes = text_bytes.iter().sum::<usize>().max(1) as u64;
    let mut ones = total;
    let rest = u64::from(total).saturating_sub(text_bytes.len() as u64);
    let (mut bytes_seen, mut rest_given) = (0_u64, 0_u64);
    let one_chunk = |bytes: &usize| {
        bytes_seen += *bytes as u64;
        let rest_due = rest * bytes_seen / all_bytes;
        let more = rest_due - rest_given;
        rest_given = rest_due;
        let one = ones.min(1);
        ones -= one;
        one + u32::try_from(more).unwrap_or(u32::MAX)
    };
    text_bytes.iter().map(one_chunk).collect()
}

#[cfg(test)]
mod tests;
