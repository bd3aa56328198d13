//! The settings as TOML, for people.

use anyhow::Context;
use serde::Serialize;

use super::Config;
use super::tree::Node;

const MASK: &str = "***";

/// What nobody else should read. The address of Redis is masked by its own crate.
const SECRETS: [[&str; 2]; 3] =
    [["gateway", "worker_api_key"], ["gateway", "salt_secret"], ["worker", "api_key"]];

/// Prints `config` without its secrets, each setting that `tree` holds with its origin.
pub(crate) fn show(config: &Config, tree: &Node) -> anyhow::Result<String> {
    let mut table = toml::Table::try_from(config).context("the settings cannot be shown as TOML")?;
    for [section, key] in SECRETS {
        let secret = table.get_mut(section).and_then(|section| section.get_mut(key));
        if let Some(secret) = secret {
            *secret = toml::Value::String(MASK.to_owned());
        }
    }
    Ok(annotate(&in_order(&table)?, tree))
}

/// Sections in the order of [`super::SECTIONS`], which is the order of a reader's interest.
fn in_order(table: &toml::Table) -> anyhow::Result<String> {
    #[derive(Serialize)]
    #[serde(transparent)]
    struct One<'a>(std::collections::BTreeMap<&'a str, &'a toml::Value>);

    let sections = super::SECTIONS.iter().filter_map(|name| Some((*name, table.get(*name)?)));
    let texts = sections.map(|section| toml::to_string(&One([section].into())));
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// Adds `# ORIGIN` to each line whose setting was written somewhere.
fn annotate(text: &str, tree: &Node) -> String {
    let mut section = String::new();
    let mut shown = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            // Elements of a list have no name of their own, so their lines stay as they are.
            section =
                if line.starts_with("[[") { "[[".to_owned() } else { name.trim_end_matches(']').to_owned() };
        }
        shown.push_str(line);
        let origin = line.split_once(" = ").and_then(|(key, _)| tree.origin_of(&format!("{section}.{key}")));
        if let Some(origin) = origin {
            shown.push_str(&format!("  # {origin}"));
        }
        shown.push('\n');
    }
    shown
}
