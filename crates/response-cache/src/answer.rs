//! An answer as it was first given, which can be given again in either form.

mod assemble;
mod split;

use bytes::{Bytes, BytesMut};
use protocol::sse::to_one_line;

use crate::{Endpoint, Error};

/// A complete answer. In the form in which it first came it is replayed byte by byte; in the other form it is put
/// together anew from the same values, with the first answer's `id` and `created`.
///
/// Only complete answers exist: each choice has a `finish_reason` that says that it ended by itself. The bytes are
/// its own copy, so that a kept answer does not pin the network's buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedAnswer {
    endpoint: Endpoint,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Json(Bytes),
    Stream {
        events: Vec<Bytes>,
        usage: Option<Bytes>,
        /// Assembled at once, since that is also the check that the answer is complete.
        json: Bytes,
    },
}

/// The form in which an answer first came, for the envelope.
pub(crate) enum First<'a> {
    Json(&'a Bytes),
    Stream(&'a [Bytes], Option<&'a Bytes>),
}

impl CachedAnswer {
    /// Takes the body of an answer that was not streamed.
    pub fn from_json(endpoint: Endpoint, body: impl AsRef<[u8]>) -> Result<Self, Error> {
        let body = Bytes::copy_from_slice(body.as_ref());
        split::parse(endpoint, &body)?;
        Ok(Self { endpoint, form: Form::Json(body) })
    }

    /// Takes the data payloads of a stream: those with choices, in order, and apart from them the one with
    /// `choices: []` that carries usage. Neither the framing nor `[DONE]` belongs to them. An event is one line: a
    /// line break between tokens of its JSON becomes a space.
    pub fn from_events(
        endpoint: Endpoint,
        events: &[impl AsRef<[u8]>],
        usage: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let json = Bytes::from(assemble::json(endpoint, events, usage)?);
        let (events, usage) = own_copy(events, usage);
        Ok(Self { endpoint, form: Form::Stream { events, usage, json } })
    }

    /// Where the request was sent.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The body for a client that asked for one.
    pub fn json(&self) -> Bytes {
        match &self.form {
            Form::Json(json) | Form::Stream { json, .. } => json.clone(),
        }
    }

    /// The payloads for a client that asked for a stream. The caller frames them and ends with `[DONE]`.
    pub fn events(&self, include_usage: bool) -> Vec<Bytes> {
        match &self.form {
            Form::Json(json) => {
                let mut events = self.split(json).events();
                events.extend(include_usage.then(|| self.usage_event()).flatten());
                events
            }
            Form::Stream { events, usage, .. } => {
                let usage = usage.iter().filter(|_| include_usage);
                events.iter().chain(usage).cloned().collect()
            }
        }
    }

    /// The payload with `choices: []` and the token counts, where they are known: what a client that has had every
    /// other event may still want.
    pub fn usage_event(&self) -> Option<Bytes> {
        match &self.form {
            Form::Json(json) => self.split(json).usage_event(),
            Form::Stream { usage, .. } => usage.clone(),
        }
    }

    /// The bytes that a copy of this answer takes outside this process, before compression.
    pub fn size_bytes(&self) -> u64 {
        let length = |bytes: &Bytes| bytes.len() as u64 + 4;
        match &self.form {
            Form::Json(json) => length(json),
            Form::Stream { events, usage, .. } => events.iter().chain(usage).map(length).sum(),
        }
    }

    /// The memory that this answer takes, near enough to bound it.
    pub fn memory_bytes(&self) -> u64 {
        let own = size_of::<Self>() as u64 + self.size_bytes();
        match &self.form {
            Form::Json(_) => own,
            Form::Stream { events, json, .. } => {
                own + (json.len() + events.len() * size_of::<Bytes>()) as u64
            }
        }
    }

    pub(crate) fn first(&self) -> First<'_> {
        match &self.form {
            Form::Json(json) => First::Json(json),
            Form::Stream { events, usage, .. } => First::Stream(events, usage.as_ref()),
        }
    }

    fn split<'a>(&self, json: &'a [u8]) -> split::Answer<'a> {
        match split::parse(self.endpoint, json) {
            Ok(answer) => answer,
            Err(error) => unreachable!("the same bytes were parsed when the answer was taken: {error}"),
        }
    }
}

/// One buffer for all payloads.
fn own_copy(events: &[impl AsRef<[u8]>], usage: Option<&[u8]>) -> (Vec<Bytes>, Option<Bytes>) {
    let length =
        events.iter().map(|event| event.as_ref().len()).sum::<usize>() + usage.map_or(0, <[u8]>::len);
    let mut buffer = BytesMut::with_capacity(length);
    let mut copy = |bytes: &[u8]| {
        buffer.extend_from_slice(bytes);
        let mut own = buffer.split();
        to_one_line(&mut own);
        own.freeze()
    };
    let events = events.iter().map(|event| copy(event.as_ref())).collect();
    (events, usage.map(copy))
}

/// The reasons for which an answer ends by itself. Any other, such as vLLM's `abort`, marks one that broke off.
const FINISH_REASONS: [&str; 5] = ["stop", "length", "tool_calls", "function_call", "content_filter"];

/// Members that every chunk of a stream repeats.
const REPEATED: [&str; 5] = ["id", "created", "model", "system_fingerprint", "service_tier"];

const fn object_name(endpoint: Endpoint, chunk: bool) -> &'static str {
    match (endpoint, chunk) {
        (Endpoint::Chat, false) => "\"chat.completion\"",
        (Endpoint::Chat, true) => "\"chat.completion.chunk\"",
        (Endpoint::Completion, _) => "\"text_completion\"",
    }
}

fn check_finished(index: u32, reason: Option<&serde_json::value::RawValue>) -> Result<(), Error> {
    let Some(reason) = reason else {
        return Err(Error::Incomplete(format!("choice {index} has no finish_reason")));
    };
    let text = crate::json::text(reason, "finish_reason")?;
    if FINISH_REASONS.contains(&text.as_ref()) {
        Ok(())
    } else {
        Err(Error::Incomplete(format!("choice {index} did not end by itself")))
    }
}

/// Choices are numbered from 0 without a gap.
fn check_numbers(mut indices: impl ExactSizeIterator<Item = u32>) -> Result<(), Error> {
    if indices.len() == 0 {
        return Err(Error::Incomplete("it has no choices".to_owned()));
    }
    if indices.by_ref().zip(0..).all(|(index, expected)| index == expected) {
        Ok(())
    } else {
        Err(Error::Incomplete("a choice is missing".to_owned()))
    }
}

#[cfg(test)]
mod tests;
