//! From the tree to typed settings. An error carries the place where the culprit was written.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{Node, Value};
use super::{ConfigError, Problem};

/// Reads a `T` at the root of `tree`.
pub(crate) fn read<T: de::DeserializeOwned>(tree: &Node) -> Result<T, ConfigError> {
    T::deserialize(Reader { node: tree, path: String::new() })
}

/// Reads one node; `path` (`section.key`) is for messages.
struct Reader<'a> {
    node: &'a Node,
    path: String,
}

impl Reader<'_> {
    fn child<'a>(&self, node: &'a Node, key: &str) -> Reader<'a> {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Reader { node, path }
    }

    /// Bare text as the TOML value that it may be.
    fn text_as_toml(&self, text: &str) -> Option<Node> {
        let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
        Some(Node::from_toml(table.remove("value")?, &self.node.origin))
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.node.value {
            Value::Scalar(toml::Value::String(text)) => visitor.visit_str(text),
            Value::Scalar(toml::Value::Integer(number)) => visitor.visit_i64(*number),
            Value::Scalar(toml::Value::Float(number)) => visitor.visit_f64(*number),
            Value::Scalar(toml::Value::Boolean(truth)) => visitor.visit_bool(*truth),
            Value::Scalar(other) => visitor.visit_string(other.to_string()),
            Value::Text(text) => match self.text_as_toml(text) {
                Some(node) => Reader { node: &node, path: self.path.clone() }.visit(visitor),
                None => visitor.visit_str(text),
            },
            Value::List(nodes) => {
                let items = nodes.iter().map(|node| Reader { node, path: self.path.clone() });
                visitor.visit_seq(de::value::SeqDeserializer::new(items))
            }
            Value::Table(table) => {
                let entries = table.iter().map(|(key, node)| (key.as_str(), node));
                visitor.visit_map(Entries { reader: self, entries, next: None })
            }
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let result = self.visit(visitor);
        result.map_err(|error| error.at(self.node.origin.as_ref(), &self.path))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let Value::Text(text) = &self.node.value else { return self.deserialize_any(visitor) };
        let result: Result<_, ConfigError> = visitor.visit_str(text);
        result.map_err(|error| error.at(self.node.origin.as_ref(), &self.path))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let Value::Text(text) = &self.node.value else { return self.deserialize_any(visitor) };
        if self.text_as_toml(text).is_some() {
            return self.deserialize_any(visitor);
        }
        let items = text.split(',').map(|item| Node {
            value: Value::Text(item.trim().to_owned()),
            origin: self.node.origin.clone(),
        });
        let list = Node { value: Value::List(items.collect()), origin: self.node.origin.clone() };
        Reader { node: &list, path: self.path }.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let (Value::Text(text) | Value::Scalar(toml::Value::String(text))) = &self.node.value else {
            return self.deserialize_any(visitor);
        };
        let text: StringDeserializer<ConfigError> = text.clone().into_deserializer();
        visitor.visit_enum(text).map_err(|error| error.at(self.node.origin.as_ref(), &self.path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ConfigError> for Reader<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The entries of a table, one after the other.
struct Entries<'a, I> {
    reader: &'a Reader<'a>,
    entries: I,
    next: Option<(&'a str, &'a Node)>,
}

impl<'a, 'de, I: Iterator<Item = (&'a str, &'a Node)>> de::MapAccess<'de> for Entries<'a, I> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.next = self.entries.next();
        let Some((key, node)) = self.next else { return Ok(None) };
        let key: de::value::StrDeserializer<'_, ConfigError> = key.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(node.origin.as_ref(), &self.reader.path))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ConfigError> {
        let Some((key, node)) = self.next.take() else {
            return Err(de::Error::custom("a value was read before its key"));
        };
        seed.deserialize(self.reader.child(node, key))
    }
}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { origin: None, problem: Problem::Value { path: String::new(), message: message.to_string() } }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self {
            origin: None,
            problem: Problem::UnknownKey { table: String::new(), key: key.to_owned(), known },
        }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let wanted = match super::suggest::nearest(variant, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        de::Error::custom(format!("unknown value `{variant}`; {wanted}"))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        de::Error::custom(format!("expected {}, found {found}", plain(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        de::Error::custom(format!("expected {}, found {found}", plain(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        de::Error::custom(format!("the key `{field}` is missing"))
    }
}

/// What was expected, in a user's words rather than in Rust's.
fn plain(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other => match other.strip_prefix("struct ") {
            Some(_) => "a section".to_owned(),
            None => other.to_owned(),
        },
    }
}
