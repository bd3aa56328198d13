//! A worker's event stream, read as pieces.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::sse::{self, EventReader};
use protocol::{ApiError, ErrorCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AttemptError, Fault, counts_of, read_object};
use crate::call::{Answer, End, Ending, Piece, Pieces};

/// How long a worker may take to end its body after the last event before its connection is given up.
const TAIL_TIMEOUT: Duration = Duration::from_secs(1);

/// The stream, once its first event is there: until then another worker can still be asked, and how long that takes
/// is bounded by the attempt's own time-out.
pub(super) async fn stream_of(body: Incoming, idle_timeout: Duration) -> Result<Answer, AttemptError> {
    let mut reading = Reading { body, reader: EventReader::default(), ready: VecDeque::new() };
    let first = match reading.next_piece(Duration::MAX).await {
        Ok(Some(piece)) => piece,
        Err(StreamFault::BrokenOff) => return Err(Fault::BrokenOff.error()),
        Ok(None) | Err(_) => return Err(Fault::ServerError.error()),
    };
    Ok(Answer::Stream(stream::iter([Ok(first)]).chain(reading.rest(idle_timeout)).boxed()))
}

/// Why a stream has no proper end.
#[derive(Debug)]
enum StreamFault {
    /// An end without `[DONE]`: the client must not take a part for the whole.
    BrokenOff,
    Silent,
    TooLong,
    Garbage,
    /// The worker says why.
    Told(String),
}

impl From<StreamFault> for ApiError {
    fn from(fault: StreamFault) -> Self {
        let message = match fault {
            StreamFault::Silent => return Self::new(ErrorCode::Timeout, "the worker fell silent"),
            StreamFault::BrokenOff => {
                "the worker broke off in the middle of this answer; send the request again"
            }
            StreamFault::TooLong => "the worker sent an event that is too long",
            StreamFault::Garbage => "the worker sent an event that cannot be understood",
            StreamFault::Told(message) => return Self::new(ErrorCode::BadGateway, message),
        };
        Self::new(ErrorCode::BadGateway, message)
    }
}

struct Reading {
    body: Incoming,
    reader: EventReader,
    ready: VecDeque<Vec<u8>>,
}

impl Reading {
    fn rest(self, idle_timeout: Duration) -> Pieces {
        stream::unfold(Some(self), move |reading| async move {
            let mut reading = reading?;
            match reading.next_piece(idle_timeout).await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => {
                    reading.give_back();
                    None
                }
                Err(fault) => Some((Err(fault.into()), None)),
            }
        })
        .boxed()
    }

    /// None at `[DONE]`.
    async fn next_piece(&mut self, idle_timeout: Duration) -> Result<Option<Piece>, StreamFault> {
        loop {
            if let Some(mut payload) = self.ready.pop_front() {
                sse::to_one_line(&mut payload);
                return if payload == sse::DONE.as_bytes() {
                    Ok(None)
                } else {
                    classify(payload.into()).map(Some)
                };
            }
            let frame = tokio::time::timeout(idle_timeout, self.body.frame()).await;
            let data = match frame.map_err(|_| StreamFault::Silent)? {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(_)) | None => return Err(StreamFault::BrokenOff),
            };
            self.ready.extend(self.reader.push(&data).map_err(|_| StreamFault::TooLong)?);
        }
    }

    /// Reads the body to its end, without the client having to wait for that: then its connection can be used again.
    fn give_back(mut self) {
        tokio::spawn(async move {
            let tail = async { while let Some(Ok(_)) = self.body.frame().await {} };
            let _ = tokio::time::timeout(TAIL_TIMEOUT, tail).await;
        });
    }
}

/// As much of a chunk as the gateway needs to know. Everything else may be what the server likes.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    choices: Option<Vec<PeekChoice<'a>>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A choice of a chunk or of a whole answer.
#[derive(Deserialize)]
pub(super) struct PeekChoice<'a> {
    #[serde(borrow, alias = "message")]
    delta: Option<PeekDelta<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PeekDelta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PeekError {
    message: String,
}

impl PeekChoice<'_> {
    fn has_text(&self) -> bool {
        let delta = self.delta.as_ref();
        let parts = [
            self.text,
            delta.and_then(|delta| delta.content),
            delta.and_then(|delta| delta.reasoning_content),
            delta.and_then(|delta| delta.tool_calls),
        ];
        parts.into_iter().flatten().any(|part| !matches!(part.get(), r#""""# | "[]" | "null"))
    }

    /// What all choices say together.
    pub(super) fn ending(choices: &[Self]) -> Ending {
        let mut ending = Ending::default();
        for choice in choices {
            let end = match choice.finish_reason.map(RawValue::get) {
                None | Some("null" | r#""""#) => None,
                Some(r#""length""#) => Some(End::Truncated),
                Some(_) => Some(End::Complete),
            };
            ending.add(choice.has_text(), end);
        }
        ending
    }
}

/// Tells a chunk from token counts and from an error in mid-stream, which ends the stream.
fn classify(payload: Bytes) -> Result<Piece, StreamFault> {
    let peek: Peek<'_> = read_object(&payload).map_err(|error| {
        tracing::warn!(%error, "a worker sent an event that is no chunk");
        StreamFault::Garbage
    })?;
    if let Some(error) = peek.error {
        let told = serde_json::from_str::<PeekError>(error.get());
        return Err(told.map_or(StreamFault::Garbage, |error| StreamFault::Told(error.message)));
    }
    let choices = peek.choices.unwrap_or_default();
    if let (true, Some(usage)) = (choices.is_empty(), peek.usage) {
        return Ok(Piece::Usage { usage: counts_of(usage), payload });
    }
    Ok(Piece::Chunk { ending: PeekChoice::ending(&choices), payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(payload: &'static str) -> &'static str {
        match classify(Bytes::from_static(payload.as_bytes())) {
            Ok(Piece::Chunk { ending, .. }) if ending.has_text => "text",
            Ok(Piece::Chunk { .. }) => "chunk",
            Ok(Piece::Usage { usage: Some(_), .. }) => "usage",
            Ok(Piece::Usage { usage: None, .. }) => "usage that cannot be read",
            Err(StreamFault::Told(_)) => "error",
            Err(_) => "garbage",
        }
    }

    #[test]
    fn chunks_of_any_openai_compatible_server_are_told_apart() {
        for (payload, expected) in [
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, "chunk"),
            (r#"{"choices":[{"delta":{"content":"a"}}],"usage":null}"#, "text"),
            (r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}"#, "text"),
            (r#"{"choices":[{"delta":{"content":null,"reasoning_content":"hm"}}]}"#, "text"),
            (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, "text"),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#, "chunk"),
            (r#"{"choices":[{"index":0,"text":"a"}]}"#, "text"),
            (r#"{"choices":[{"index":0,"text":""}]}"#, "chunk"),
            (r#"{"choices":[],"prompt_filter_results":[]}"#, "chunk"),
            (
                r#"{"choices":[],"usage":{"prompt_tokens":1,"prompt_tokens_details":{"audio_tokens":0}}}"#,
                "usage",
            ),
            (r#"{"choices":[],"usage":"much"}"#, "usage that cannot be read"),
            (r#"{"error":{"message":"m","code":500}}"#, "error"),
            (r#"{"error":"m"}"#, "garbage"),
            (r#"{"choices":7}"#, "garbage"),
            (r#"[null,null,null]"#, "garbage"),
            ("nothing", "garbage"),
        ] {
            assert_eq!(kind(payload), expected, "{payload}");
        }
    }

    #[test]
    fn an_event_that_is_no_text_is_garbage_wherever_that_shows() {
        let event = Bytes::from_static(b"{\"id\":\"\xff\",\"choices\":[]}");
        assert!(matches!(classify(event), Err(StreamFault::Garbage)));
    }
}
