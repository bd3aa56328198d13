//! From a file's text to a table, every mistake with its line.

use anyhow::{Result, anyhow};

use super::Config;
use super::suggest::nearest;

/// Parses a file and checks that it is a configuration. `name` is how messages call it.
pub(super) fn parse(name: &str, text: &str) -> Result<toml::Table> {
    if let Err(error) = toml::from_str::<Config>(text) {
        let before = error.span().map_or("", |span| &text[..span.start.min(text.len())]);
        let line = 1 + before.matches('\n').count();
        return Err(anyhow!("{name}:{line}: {}", explain(error.message())));
    }
    Ok(toml::from_str(text)?)
}

/// serde's words for a wrong key are a list of all right ones; the nearest says more.
pub(super) fn explain(message: &str) -> String {
    let message = message.lines().next().unwrap_or(message);
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let Some((key, known)) = rest.split_once('`') else { return message.to_owned() };
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    match nearest(key, &known) {
        Some(right) => format!("unknown key `{key}`; did you mean `{right}`?"),
        None => format!("unknown key `{key}`; known here are {}", known.join(", ")),
    }
}
