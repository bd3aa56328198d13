//! JSON taken apart and put together without being re-written: values keep the bytes that the worker gave them.
//!
//! A log-likelihood that went through a float and back may end in other digits, and a field that this crate does not
//! know must not be lost. So objects are read as names beside raw values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Error;

/// An object's members in the order in which they were written.
#[derive(Debug, Default)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Parses an object; `what` names it in the error.
    pub(crate) fn parse(bytes: &'a [u8], what: &str) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|_| malformed(what, "a JSON object with each name once"))
    }

    pub(crate) fn parse_raw(raw: &'a RawValue, what: &str) -> Result<Self, Error> {
        Self::parse(raw.get().as_bytes(), what)
    }

    /// A member that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    /// The members that are not null, for null and absent are the same in every answer.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().filter(|(_, value)| value.get() != "null").map(|(name, value)| (name.as_ref(), *value))
    }

    /// The elements of a member that must be a list.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<&'a RawValue>, Error> {
        self.get(name).map_or_else(|| Err(malformed(name, "a list")), |raw| list(raw, name))
    }
}

pub(crate) fn list<'a>(raw: &'a RawValue, what: &str) -> Result<Vec<&'a RawValue>, Error> {
    serde_json::from_str(raw.get()).map_err(|_| malformed(what, "a list"))
}

pub(crate) fn text<'a>(raw: &'a RawValue, what: &str) -> Result<Cow<'a, str>, Error> {
    serde_json::from_str::<Name<'a>>(raw.get()).map(|name| name.0).map_err(|_| malformed(what, "a string"))
}

pub(crate) fn index(raw: Option<&RawValue>) -> Result<u32, Error> {
    raw.and_then(|raw| raw.get().parse().ok()).ok_or_else(|| malformed("index", "a whole number"))
}

pub(crate) fn malformed(what: &str, expected: &str) -> Error {
    Error::Malformed(format!("`{what}` should be {expected}"))
}

/// A string that borrows where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, value));
                }
                // Readers differ in which of two they take, so a replay of both would not be one answer.
                let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
                names.sort_unstable();
                match names.windows(2).find(|pair| pair[0] == pair[1]) {
                    Some(_) => Err(A::Error::custom("a name is there twice")),
                    None => Ok(Object(members)),
                }
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Writes one object.
#[derive(Debug)]
pub(crate) struct ObjectWriter(String);

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    pub(crate) fn raw_or_null(&mut self, name: &str, value: Option<&RawValue>) -> &mut Self {
        self.raw(name, value.map_or("null", RawValue::get))
    }

    pub(crate) fn members<'v>(
        &mut self,
        members: impl Iterator<Item = (&'v str, &'v RawValue)>,
    ) -> &mut Self {
        for (name, value) in members {
            self.raw(name, value.get());
        }
        self
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A list of values that are JSON already.
pub(crate) fn array<'v>(values: impl IntoIterator<Item = &'v str>) -> String {
    let mut json = "[".to_owned();
    for value in values {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(value);
    }
    json.push(']');
    json
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
