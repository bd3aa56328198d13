//! When two requests ask the same.

use std::fmt;

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// Fields that do not change the answer, and are left out of the key.
const LEFT_OUT: &[&str] = &[
    // How the answer is delivered. Answers are kept so that they can be replayed in either form.
    "stream",
    "stream_options",
    // Who asks, for accounting and stickiness. The tenant and the model version are in the key by themselves.
    "user",
    "safety_identifier",
    "metadata",
    "store",
    // When and where the answer is computed, not what it is.
    "priority",
    "service_tier",
    // What is shared between prompts inside an engine. Tenants are kept apart by the key's own tenant.
    "cache_salt",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// Changes whenever the canonical form does, so that answers kept under the old one are not found.
const DOMAIN: &[u8] = b"tenk answer key 1";

/// Where a request was sent. The same body means different things to the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Chat completions.
    Chat,
    /// Text completions.
    Completion,
}

impl Endpoint {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Chat => 0,
            Self::Completion => 1,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Chat),
            1 => Some(Self::Completion),
            _ => None,
        }
    }
}

/// Everything that tells one question from another.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a> {
    /// The version that answers. Another version may answer differently.
    pub model_version: &'a str,
    /// Who asks. Tenants share nothing, not even the time that an answer takes.
    pub tenant: &'a str,
    /// Where the request was sent.
    pub endpoint: Endpoint,
    /// The request as it was parsed, an object.
    pub body: &'a Value,
}

/// SHA-256 over the canonical form of a request.
///
/// The form does not depend on the order of keys, on white space, on how a number is written (`1`, `1.0`, `1e0`) or
/// on members that are null where null and absent are the same: in the request itself and in each message. Deeper
/// down null is kept, for a chat template can tell `{"x": null}` from `{}`. Distinct values are never merged, and a
/// default that is written out differs from one that is not: that costs a hit, and never gives a wrong answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key of a request.
    pub fn new(parts: &KeyParts<'_>) -> Self {
        let mut form = Form(Sha256::new_with_prefix(DOMAIN));
        form.text(parts.model_version);
        form.text(parts.tenant);
        form.byte(parts.endpoint.code());
        match parts.body {
            Value::Object(members) => form.request(members),
            other => form.value(other),
        }
        Self(form.0.finalize().into())
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// Whether the same request would be answered the same again: greedy decoding, or sampling from a given seed. A
/// temperature that is not given is not 0, for engines sample unless told otherwise.
pub fn is_deterministic(body: &Value) -> bool {
    let greedy = body.get("temperature").and_then(Value::as_f64) == Some(0.0);
    let seeded = body.get("seed").is_some_and(|seed| seed.is_i64() || seed.is_u64());
    greedy || seeded
}

/// The canonical form, hashed as it is written. Each value starts with a tag and everything of variable length with
/// its length, so that no two values have the same form.
struct Form(Sha256);

impl Form {
    fn byte(&mut self, byte: u8) {
        self.0.update([byte]);
    }

    fn length(&mut self, length: usize) {
        self.0.update((length as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.update(text);
    }

    fn request(&mut self, members: &Map<String, Value>) {
        self.members(
            members,
            |form, name, value| match (name, value) {
                ("messages", Value::Array(messages)) => form.messages(messages),
                _ => form.value(value),
            },
            |name, value| !value.is_null() && !LEFT_OUT.contains(&name),
        );
    }

    fn messages(&mut self, messages: &[Value]) {
        self.byte(b'a');
        self.length(messages.len());
        for message in messages {
            match message {
                Value::Object(members) => {
                    self.members(members, |form, _, value| form.value(value), |_, value| !value.is_null());
                }
                other => self.value(other),
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(b'n'),
            Value::Bool(false) => self.byte(b'f'),
            Value::Bool(true) => self.byte(b't'),
            Value::Number(number) => self.number(number),
            Value::String(text) => {
                self.byte(b's');
                self.text(text);
            }
            Value::Array(items) => {
                self.byte(b'a');
                self.length(items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(members) => self.members(members, |form, _, value| form.value(value), |_, _| true),
        }
    }

    /// Members in the order of their names, whatever order the map has: that is a feature of the JSON library, which
    /// any other crate in the build may switch.
    fn members(
        &mut self,
        members: &Map<String, Value>,
        write: impl Fn(&mut Self, &str, &Value),
        keep: impl Fn(&str, &Value) -> bool,
    ) {
        let mut kept: Vec<_> = members.iter().filter(|(name, value)| keep(name, value)).collect();
        kept.sort_unstable_by_key(|(name, _)| *name);
        self.byte(b'o');
        self.length(kept.len());
        for (name, value) in kept {
            self.text(name);
            write(self, name, value);
        }
    }

    fn number(&mut self, number: &Number) {
        match exact_integer(number) {
            Some(integer) => {
                self.byte(b'i');
                self.0.update(integer.to_le_bytes());
            }
            None => {
                self.byte(b'd');
                self.text(&number.to_string());
            }
        }
    }
}

/// The integer that a number is, however it was written. A float is widened exactly: below 2^64 a whole one has no
/// rounding left in it, so that it equals an integer only if the two are the same number.
fn exact_integer(number: &Number) -> Option<i128> {
    const FLOAT_MAX: f64 = 18_446_744_073_709_551_616.0;
    if let Some(integer) = number.as_i64() {
        return Some(i128::from(integer));
    }
    if let Some(integer) = number.as_u64() {
        return Some(i128::from(integer));
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^64")]
    (float.fract() == 0.0 && float.abs() < FLOAT_MAX).then_some(float as i128)
}

#[cfg(test)]
mod tests;
