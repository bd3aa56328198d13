//! Settings before they have types: what was written, and where.

use std::collections::BTreeMap;
use std::fmt;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line, counted from 1, of a file.
    File { name: String, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value and where it was written; the root was written nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(toml::Value),
    /// Bare text from outside of TOML: its type is the one that is asked for.
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub(crate) fn root() -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin: None }
    }

    /// A TOML value that was all written at one place.
    pub(crate) fn from_toml(value: toml::Value, origin: &Option<Origin>) -> Self {
        let value = match value {
            toml::Value::Array(items) => {
                Value::List(items.into_iter().map(|item| Self::from_toml(item, origin)).collect())
            }
            toml::Value::Table(table) => Value::Table(
                table.into_iter().map(|(key, value)| (key, Self::from_toml(value, origin))).collect(),
            ),
            scalar => Value::Scalar(scalar),
        };
        Self { value, origin: origin.clone() }
    }

    /// Puts `value` at `path` over whatever is there, with tables on the way.
    pub(crate) fn set(&mut self, path: &[&str], value: Value, origin: Origin) {
        let Some((key, rest)) = path.split_first() else {
            *self = Self { value, origin: Some(origin) };
            return;
        };
        if !matches!(self.value, Value::Table(_)) {
            self.value = Value::Table(BTreeMap::new());
        }
        if let Value::Table(table) = &mut self.value {
            table
                .entry((*key).to_owned())
                .or_insert_with(|| Self { origin: Some(origin.clone()), ..Self::root() })
                .set(rest, value, origin);
        }
    }

    /// Where the setting at `path` (`section.key`) was written, if anywhere.
    pub(crate) fn origin_of(&self, path: &str) -> Option<&Origin> {
        let mut node = self;
        for key in path.split('.') {
            let Value::Table(table) = &node.value else { return None };
            node = table.get(key)?;
        }
        node.origin.as_ref()
    }
}
