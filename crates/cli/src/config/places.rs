//! Where settings come from, so that whatever is wrong with one is told with its place.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The place of each setting that was given, by its path, such as `gateway.listen`.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<String, String>);

impl Places {
    /// Remembers what set `setting` last.
    pub(super) fn set(&mut self, setting: &str, place: impl Into<String>) {
        self.0.insert(setting.to_owned(), place.into());
    }

    /// Such as `tenk.toml:3`, or a variable's name.
    pub(super) fn of(&self, setting: &str) -> Option<&str> {
        self.0.get(setting).map(String::as_str)
    }

    /// Forgets the settings of which `keep` says no.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|setting, _| keep(setting));
    }
}

/// A key of a file, or one section of a list of them.
#[derive(Debug)]
pub(super) struct Item {
    /// Its path, without positions in lists.
    pub(super) setting: String,
    /// The section that it stands in, as a file has it: `[gateway]`, or `[[gateway.keys]]`.
    pub(super) section: String,
    /// The bytes of the key.
    pub(super) key: Range<usize>,
    /// The bytes of the value.
    pub(super) value: Range<usize>,
}

/// Every key of a file, outer ones first; none if it is not TOML.
pub(super) fn items(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(table.get_ref(), "", "", &mut items);
    }
    items
}

fn walk(table: &DeTable<'_>, path: &str, section: &str, items: &mut Vec<Item>) {
    for (key, value) in table {
        let name = key.get_ref();
        let setting = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        let item = |key| Item { setting: setting.clone(), section: section.into(), key, value: value.span() };
        items.push(item(key.span()));
        match value.get_ref() {
            DeValue::Table(inner) => walk(inner, &setting, &format!("[{setting}]"), items),
            DeValue::Array(values) => {
                for value in values {
                    if let DeValue::Table(inner) = value.get_ref() {
                        items.push(Item { value: value.span(), ..item(key.span()) });
                        walk(inner, &setting, &format!("[[{setting}]]"), items);
                    }
                }
            }
            _ => {}
        }
    }
}
