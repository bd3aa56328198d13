//! ShareGPT's form: a JSON list of conversations. What its people said is asked again; what its models answered is left
//! out, for the target's own answers take that place.

use std::cell::Cell;
use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use crate::prompts::conversation::write_text;
use crate::prompts::file::Given;

#[derive(Deserialize)]
struct Conversation {
    conversations: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    from: String,
    value: String,
}

/// Reads a list. Conversations without a word of a person, which real files have, are left out.
///
/// # Errors
/// The line where it breaks off, and why.
pub(super) fn parse(reader: impl Read) -> Result<Vec<Given>, (usize, String)> {
    let read = Cell::new(0);
    let mut json = serde_json::Deserializer::from_reader(reader);
    let prompts =
        List { read: &read }.deserialize(&mut json).and_then(|prompts| json.end().map(|()| prompts));
    prompts.map_err(|error| {
        let line = error.line().max(1);
        (line, format!("conversation {}: {error}", read.get() + 1))
    })
}

/// Takes conversation after conversation, so that the file's other content is never all in memory.
struct List<'a> {
    read: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Given>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Given>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut prompts = Vec::new();
        while let Some(conversation) = list.next_element::<Conversation>()? {
            let turns = turns(&conversation.conversations).map_err(serde::de::Error::custom)?;
            if !turns.is_empty() {
                prompts.push(Given::Turns(turns));
            }
            self.read.set(self.read.get() + 1);
        }
        Ok(prompts)
    }
}

fn turns(said: &[Said]) -> Result<Vec<Box<[u8]>>, String> {
    let mut turns: Vec<Box<[u8]>> = Vec::new();
    let mut rendered = Vec::new();
    for said in said {
        let role: &[u8] = match said.from.as_str() {
            "human" | "user" => b"user",
            "system" => b"system",
            "gpt" | "chatgpt" | "assistant" | "bard" | "bing" | "model" => continue,
            other => return Err(format!("`from` is `{other}`, but must be `human`, `gpt` or `system`")),
        };
        rendered.extend_from_slice(b"{\"role\":\"");
        rendered.extend_from_slice(role);
        rendered.extend_from_slice(b"\",\"content\":");
        write_text(&mut rendered, &said.value);
        rendered.extend_from_slice(b"},");
        if role == b"user" {
            turns.push(std::mem::take(&mut rendered).into());
        }
    }
    Ok(turns)
}
