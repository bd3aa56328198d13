//! From the chunks of a stream to one body.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{check_finished, check_numbers, object_name};
use crate::json::{Object, ObjectWriter, array, index, list, malformed, quoted, text};
use crate::{Endpoint, Error};

/// Texts that grow from chunk to chunk. Any other member of a delta that is not empty is not understood, and then
/// the answer is not kept.
const GROWING: [&str; 4] = ["content", "refusal", "reasoning", "reasoning_content"];

/// The body that the same answer would have had, had it not been streamed.
pub(super) fn json(
    endpoint: Endpoint,
    events: &[impl AsRef<[u8]>],
    usage: Option<&[u8]>,
) -> Result<String, Error> {
    let mut top = Members::default();
    let mut choices = BTreeMap::<u32, Choice<'_>>::new();
    for event in events {
        let chunk = Object::parse(event.as_ref(), "event")?;
        for raw in chunk.list("choices")? {
            let choice = Object::parse_raw(raw, "choice")?;
            choices.entry(index(choice.get("index"))?).or_default().add(endpoint, &choice)?;
        }
        for (name, value) in chunk.members() {
            match name {
                "choices" | "object" => {}
                // Some servers count along; the last count is the whole one.
                "usage" => top.replace(name, value),
                _ => top.keep_first(name, value),
            }
        }
    }
    check_numbers(choices.keys().copied())?;
    if let Some(event) = usage {
        let chunk = Object::parse(event, "usage event")?;
        let counts = chunk.get("usage").ok_or_else(|| malformed("usage", "an object"))?;
        top.replace("usage", counts);
    }
    let choices = choices.iter().map(|(index, choice)| choice.json(endpoint, *index));
    let choices = choices.collect::<Result<Vec<_>, _>>()?;

    let mut body = ObjectWriter::new();
    body.raw("object", object_name(endpoint, false));
    body.members(top.iter().filter(|(name, _)| *name != "usage"));
    body.raw("choices", &array(choices.iter().map(String::as_str)));
    body.raw_or_null("usage", top.get("usage"));
    Ok(body.end())
}

/// Names with raw values, each name once.
#[derive(Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }

    fn keep_first(&mut self, name: &str, value: &'a RawValue) {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value));
        }
    }

    fn replace(&mut self, name: &str, value: &'a RawValue) {
        self.0.retain(|(member, _)| member != name);
        self.0.push((name.to_owned(), value));
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

/// One of the answers, as far as it has been read.
#[derive(Default)]
struct Choice<'a> {
    role: Option<&'a RawValue>,
    texts: Vec<(&'static str, String)>,
    /// Each column of the log-likelihoods: chat has `content` and `refusal`, completions have four.
    logprobs: Option<Vec<(String, Vec<&'a RawValue>)>>,
    token_ids: Option<Vec<&'a RawValue>>,
    finish_reason: Option<&'a RawValue>,
    rest: Members<'a>,
}

impl<'a> Choice<'a> {
    fn add(&mut self, endpoint: Endpoint, choice: &Object<'a>) -> Result<(), Error> {
        for (name, value) in choice.members() {
            match (name, endpoint) {
                ("index", _) => {}
                ("delta", Endpoint::Chat) => self.add_delta(&Object::parse_raw(value, "delta")?)?,
                ("text", Endpoint::Completion) => self.add_text("text", value)?,
                ("finish_reason", _) => self.finish_reason = Some(value),
                ("logprobs", _) => self.add_logprobs(&Object::parse_raw(value, "logprobs")?)?,
                ("token_ids", _) => self.token_ids.get_or_insert_default().extend(list(value, name)?),
                // A member that comes once, or the same again, can be kept as it is. One that changes may be meant to
                // grow or to be replaced; nobody here knows.
                _ => match self.rest.get(name) {
                    Some(before) if before.get() != value.get() => {
                        return Err(Error::Unsupported(name.to_owned()));
                    }
                    _ => self.rest.keep_first(name, value),
                },
            }
        }
        Ok(())
    }

    fn add_delta(&mut self, delta: &Object<'a>) -> Result<(), Error> {
        for (name, value) in delta.members() {
            if name == "role" {
                self.role.get_or_insert(value);
            } else if let Some(growing) = GROWING.into_iter().find(|growing| *growing == name) {
                self.add_text(growing, value)?;
            } else if value.get() != "[]" {
                return Err(Error::Unsupported(format!("delta.{name}")));
            }
        }
        Ok(())
    }

    fn add_text(&mut self, name: &'static str, value: &RawValue) -> Result<(), Error> {
        let addition = text(value, name)?;
        match self.texts.iter_mut().find(|(member, _)| *member == name) {
            Some((_, text)) => text.push_str(&addition),
            None => self.texts.push((name, addition.into_owned())),
        }
        Ok(())
    }

    fn add_logprobs(&mut self, logprobs: &Object<'a>) -> Result<(), Error> {
        let columns = self.logprobs.get_or_insert_default();
        for (name, value) in logprobs.members() {
            let additions = list(value, name)?;
            match columns.iter_mut().find(|(column, _)| column == name) {
                Some((_, values)) => values.extend(additions),
                None => columns.push((name.to_owned(), additions)),
            }
        }
        Ok(())
    }

    fn json(&self, endpoint: Endpoint, index: u32) -> Result<String, Error> {
        check_finished(index, self.finish_reason)?;
        let mut choice = ObjectWriter::new();
        choice.raw("index", &index.to_string());
        match endpoint {
            Endpoint::Chat => choice.raw("message", &self.message()),
            Endpoint::Completion => choice.raw("text", &quoted(self.text("text").unwrap_or_default())),
        };
        choice.raw(
            "logprobs",
            &self.logprobs.as_ref().map_or_else(
                || "null".to_owned(),
                |columns| {
                    let mut logprobs = ObjectWriter::new();
                    for (name, values) in columns {
                        logprobs.raw(name, &raw_array(values));
                    }
                    logprobs.end()
                },
            ),
        );
        choice.raw_or_null("finish_reason", self.finish_reason);
        if let Some(ids) = &self.token_ids {
            choice.raw("token_ids", &raw_array(ids));
        }
        choice.members(self.rest.iter());
        Ok(choice.end())
    }

    fn message(&self) -> String {
        let mut message = ObjectWriter::new();
        message.raw("role", self.role.map_or("\"assistant\"", RawValue::get));
        for name in GROWING {
            match self.text(name) {
                Some(text) => message.raw(name, &quoted(text)),
                // Clients expect these two.
                None if name == "content" || name == "refusal" => message.raw(name, "null"),
                None => &mut message,
            };
        }
        message.end()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(member, _)| *member == name).map(|(_, text)| text.as_str())
    }
}

fn raw_array(values: &[&RawValue]) -> String {
    array(values.iter().map(|value| value.get()))
}
