//! From one body to the chunks of a stream.

use bytes::Bytes;
use protocol::sse::to_one_line;
use serde_json::value::RawValue;

use super::{REPEATED, check_finished, check_numbers, object_name};
use crate::json::{Object, ObjectWriter, array, index, malformed, text};
use crate::{Endpoint, Error};

/// A body that was checked, taken apart as far as its chunks need.
pub(super) struct Answer<'a> {
    endpoint: Endpoint,
    top: Object<'a>,
    choices: Vec<Choice<'a>>,
    usage: Option<&'a RawValue>,
}

struct Choice<'a> {
    index: u32,
    members: Object<'a>,
    /// Empty for a completion.
    message: Object<'a>,
}

/// Checks that a body is a complete answer and can be split into chunks.
pub(super) fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Answer<'_>, Error> {
    let top = Object::parse(body, "answer")?;
    let choices = top.list("choices")?.into_iter().map(|raw| Choice::parse(endpoint, raw));
    let mut choices = choices.collect::<Result<Vec<_>, _>>()?;
    choices.sort_by_key(|choice| choice.index);
    check_numbers(choices.iter().map(|choice| choice.index))?;
    let usage = top.get("usage");
    Ok(Answer { endpoint, top, choices, usage })
}

impl<'a> Choice<'a> {
    fn parse(endpoint: Endpoint, raw: &'a RawValue) -> Result<Self, Error> {
        let members = Object::parse_raw(raw, "choice")?;
        let index = index(members.get("index"))?;
        check_finished(index, members.get("finish_reason"))?;
        let mut message = Object::default();
        match endpoint {
            Endpoint::Chat => {
                let raw = members.get("message").ok_or_else(|| malformed("message", "an object"))?;
                message = Object::parse_raw(raw, "message")?;
                // In a stream each call carries a number, and arguments come in pieces: not a copy, a translation.
                if message.get("tool_calls").is_some_and(|calls| calls.get() != "[]") {
                    return Err(Error::Unsupported("message.tool_calls".to_owned()));
                }
                message.get("content").map_or(Ok(()), |content| text(content, "content").map(drop))?;
            }
            Endpoint::Completion => {
                let raw = members.get("text").ok_or_else(|| malformed("text", "a string"))?;
                text(raw, "text")?;
            }
        }
        Ok(Self { index, members, message })
    }

    /// What the chunk with the text says: everything of the message but its role.
    fn delta(&self) -> Option<String> {
        let mut delta = ObjectWriter::new();
        let said = self.message.members().filter(|(name, value)| *name != "role" && value.get() != "[]");
        let mut said = said.peekable();
        let extra = ["logprobs", "token_ids"].iter().any(|name| self.members.get(name).is_some());
        (said.peek().is_some() || extra).then(|| {
            delta.members(said);
            delta.end()
        })
    }

    /// Members that belong to the choice as a whole and travel with its last chunk.
    fn rest(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        const PLACED: [&str; 6] = ["index", "message", "text", "logprobs", "token_ids", "finish_reason"];
        self.members.members().filter(|(name, _)| !PLACED.contains(name))
    }
}

impl Answer<'_> {
    /// For each choice of a chat a chunk with the role, one with everything said and one with the end; a
    /// completion has no roles. What belongs to the answer as a whole travels with the first.
    pub(super) fn events(&self) -> Vec<Bytes> {
        let mut events = Vec::new();
        for choice in &self.choices {
            match self.endpoint {
                Endpoint::Chat => self.chat_events(choice, &mut events),
                Endpoint::Completion => {
                    let said = choice.members.get("text").map_or("\"\"", RawValue::get);
                    self.push(&mut events, choice, ("text", said), Part::Said);
                    self.push(&mut events, choice, ("text", "\"\""), Part::End);
                }
            }
        }
        events
    }

    fn chat_events(&self, choice: &Choice<'_>, events: &mut Vec<Bytes>) {
        let mut start = ObjectWriter::new();
        start.raw("role", choice.message.get("role").map_or("\"assistant\"", RawValue::get));
        if choice.message.get("content").is_some() {
            start.raw("content", "\"\"");
        }
        self.push(events, choice, ("delta", &start.end()), Part::Start);
        if let Some(delta) = choice.delta() {
            self.push(events, choice, ("delta", &delta), Part::Said);
        }
        self.push(events, choice, ("delta", "{}"), Part::End);
    }

    /// The chunk with the token counts.
    pub(super) fn usage_event(&self) -> Option<Bytes> {
        let usage = self.usage?;
        let mut chunk = self.repeated();
        chunk.raw("choices", "[]").raw("usage", usage.get());
        Some(event(chunk))
    }

    fn push(&self, events: &mut Vec<Bytes>, choice: &Choice<'_>, said: (&str, &str), part: Part) {
        let mut member = ObjectWriter::new();
        member.raw("index", &choice.index.to_string()).raw(said.0, said.1);
        let logprobs = choice.members.get("logprobs").filter(|_| part == Part::Said);
        member.raw_or_null("logprobs", logprobs);
        match part {
            Part::Start => member.raw("finish_reason", "null"),
            Part::Said => {
                member.raw("finish_reason", "null");
                member.members(choice.members.get("token_ids").map(|ids| ("token_ids", ids)).into_iter())
            }
            Part::End => {
                member.raw_or_null("finish_reason", choice.members.get("finish_reason"));
                member.members(choice.rest())
            }
        };
        let mut chunk = self.repeated();
        if events.is_empty() {
            const PLACED: [&str; 3] = ["object", "choices", "usage"];
            let once =
                self.top.members().filter(|(name, _)| !PLACED.contains(name) && !REPEATED.contains(name));
            chunk.members(once);
        }
        chunk.raw("choices", &array([member.end().as_str()]));
        events.push(event(chunk));
    }

    fn repeated(&self) -> ObjectWriter {
        let mut chunk = ObjectWriter::new();
        for name in REPEATED {
            if let Some(value) = self.top.get(name) {
                chunk.raw(name, value.get());
            }
            if name == "id" {
                chunk.raw("object", object_name(self.endpoint, true));
            }
        }
        chunk
    }
}

fn event(chunk: ObjectWriter) -> Bytes {
    let mut json = chunk.end().into_bytes();
    to_one_line(&mut json);
    Bytes::from(json)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    Said,
    End,
}
