//! `TENK_SECTION__KEY=value` over a table.

use anyhow::{Result, anyhow};
use toml::{Table, Value};

use super::Config;
use super::file::explain;

/// Puts each variable that starts with `TENK_` and has a double underscore where it belongs. Each is checked alone, so
/// that a mistake is told with its name.
pub(super) fn apply(table: &mut Table, variables: impl Iterator<Item = (String, String)>) -> Result<()> {
    let mut ours: Vec<(String, String)> =
        variables.filter(|(name, _)| name.starts_with("TENK_") && name.contains("__")).collect();
    ours.sort();
    for (name, text) in ours {
        let path: Vec<String> = name["TENK_".len()..].split("__").map(str::to_lowercase).collect();
        let value = parse(&text);
        let mut alone = Table::new();
        set(&mut alone, &path, value.clone());
        match Config::try_from_table(alone) {
            Ok(()) => set(table, &path, value),
            // `12` may be meant as text.
            Err(_) if Config::try_from_table(with(&path, Value::String(text.clone()))).is_ok() => {
                set(table, &path, Value::String(text));
            }
            Err(message) => return Err(anyhow!("{name}: {}", explain(&message))),
        }
    }
    Ok(())
}

impl Config {
    fn try_from_table(table: Table) -> Result<(), String> {
        table.try_into::<Self>().map(drop).map_err(|error| error.message().to_owned())
    }
}

/// A number, a truth value, a list or a table as TOML has them; anything else is text.
fn parse(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn with(path: &[String], value: Value) -> Table {
    let mut table = Table::new();
    set(&mut table, path, value);
    table
}

fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [section, rest @ ..] => {
            let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(inner) => set(inner, rest, value),
                other => *other = Value::Table(with(rest, value)),
            }
        }
    }
}
