//! `TENK_SECTION__KEY=value` over a table.

use std::ffi::OsString;

use anyhow::{Result, anyhow};
use toml::{Table, Value};

use super::Config;
use super::explain::Wrong;
use super::places::Places;

/// The variables of this process. What is no text comes out garbled, and is refused where it is used.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |value: OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Puts each variable that starts with `TENK_` and has a double underscore where it belongs. Each is checked alone, so
/// that a mistake is told with its name.
pub(super) fn apply(
    table: &mut Table,
    places: &mut Places,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<()> {
    let mut ours: Vec<(String, String)> =
        variables.filter(|(name, _)| name.starts_with("TENK_") && name.contains("__")).collect();
    ours.sort();
    for (name, text) in ours {
        let path: Vec<String> = name["TENK_".len()..].split("__").map(str::to_lowercase).collect();
        let value = value(&path, &text).map_err(|message| anyhow!("{name}: {message}"))?;
        set(table, &path, value);
        places.set(&path.join("."), name);
    }
    Ok(())
}

/// What a variable's text means at this path.
fn value(path: &[String], text: &str) -> Result<Value, String> {
    let value = text.parse().unwrap_or_else(|_| Value::String(text.to_owned()));
    let Err(message) = check(path, value.clone()) else { return Ok(value) };
    // A secret may be all digits.
    let value = Value::String(text.to_owned());
    if check(path, value.clone()).is_ok() {
        return Ok(value);
    }
    let unknown = path.iter().position(|key| message.starts_with(&format!("unknown field `{key}`")));
    // A key below something that is no section.
    let section_is_wrong = message.starts_with("invalid type: map") && path.len() > 1;
    let setting = path[..path.len() - usize::from(section_is_wrong)].join(".");
    let section = match unknown {
        Some(0) => String::new(),
        depth => format!("[{}]", path[..depth.unwrap_or(path.len())].join(".")),
    };
    Err(Wrong { setting: &setting, section: &section, found: text }.explain(&message))
}

/// Whether a configuration can have this value at this path; serde's message if not.
fn check(path: &[String], value: Value) -> Result<(), String> {
    let mut table = Table::new();
    set(&mut table, path, value);
    table.try_into::<Config>().map(drop).map_err(|error| error.message().to_owned())
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            if let Value::Table(inner) = entry {
                set(inner, rest, value);
            }
        }
    }
}
