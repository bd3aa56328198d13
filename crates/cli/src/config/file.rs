//! From a file to a table, every mistake with its line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};

use super::Config;
use super::explain::Wrong;
use super::places::{Places, items};

/// Far above any configuration, far below what would fill memory.
const BYTES_MAX: u64 = 1 << 20;

/// Reads a file and checks that it is a configuration.
pub(super) fn read(path: &Path, places: &mut Places) -> Result<toml::Table> {
    let name = path.display().to_string();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| anyhow!("{name} cannot be read: {error}; correct --config"))?;
    ensure!(text.len() as u64 <= BYTES_MAX, "{name} is above {BYTES_MAX} bytes; correct --config");
    parse(&name, &text, places)
}

/// `name` is how messages call the file.
pub(super) fn parse(name: &str, text: &str, places: &mut Places) -> Result<toml::Table> {
    let items = items(text);
    let place = |offset| {
        let before = text.get(..offset).unwrap_or_default();
        format!("{name}:{}", 1 + before.matches('\n').count())
    };
    if let Err(error) = toml::from_str::<Config>(text) {
        let span = error.span().unwrap_or_default();
        // The innermost, which comes last.
        let item = items.iter().rev().find(|item| item.key == span || item.value == span);
        let wrong = Wrong {
            setting: item.map_or("", |item| &item.setting),
            section: item.map_or("", |item| &item.section),
            found: text.get(span.clone()).unwrap_or_default(),
        };
        return Err(anyhow!("{}: {}", place(span.start), wrong.explain(error.message())));
    }
    for item in &items {
        places.set(&item.setting, place(item.key.start));
    }
    Ok(toml::from_str(text)?)
}
