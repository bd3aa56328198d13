//! What serde says of a wrong setting, in plain words.

use super::suggest::nearest;
use super::{Config, show};

/// A setting that is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong<'a> {
    /// Its path, such as `gateway.listen`; empty where it is the file as a whole.
    pub(super) setting: &'a str,
    /// The section it stands in, as a file has it; empty at the top.
    pub(super) section: &'a str,
    /// What is there.
    pub(super) found: &'a str,
}

const FOUND_CHARS_MAX: usize = 60;

impl Wrong<'_> {
    /// Turns serde's message into a sentence that says what to do.
    pub(super) fn explain(self, message: &str) -> String {
        let message = message.lines().next().unwrap_or(message);
        let Self { setting, found, .. } = self;
        if let Some((key, known)) = quoted_after(message, "unknown field ") {
            return self.unknown_key(key, &all_quoted(known));
        }
        if let Some((field, _)) = quoted_after(message, "missing field ") {
            return format!("`{setting}` lacks `{field}`; add it");
        }
        if message == "duplicate key" {
            return format!("`{found}` is there twice; keep one");
        }
        if setting.is_empty() {
            return message.to_owned();
        }
        if let Some((variant, known)) = quoted_after(message, "unknown variant ") {
            let near = nearest(variant, &all_quoted(known));
            let hint = near.map(|right| format!("; did you mean `{right}`?")).unwrap_or_default();
            let known = known.trim_start_matches(", expected ");
            return format!("`{setting}` is `{variant}`, but must be {known}{hint}");
        }
        let (is, must_be) = match message.split_once(", expected ") {
            Some((what, expected)) if what.starts_with("invalid type: map") => {
                ("a section".to_owned(), wanted(expected, setting, true))
            }
            Some((what, expected)) if what.starts_with("invalid ") => {
                (self.shown(), wanted(expected, setting, false))
            }
            _ if message.contains("socket address") => (self.shown(), wanted(message, setting, false)),
            _ => return format!("`{setting}` is wrong: {message}"),
        };
        format!("`{setting}` is {is}, but must be {must_be}")
    }

    fn unknown_key(self, key: &str, known: &[&str]) -> String {
        let place = if self.section.is_empty() { String::new() } else { format!(" in {}", self.section) };
        if let Some(right) = nearest(key, known) {
            return format!("unknown key `{key}`{place}; did you mean `{right}`?");
        }
        match home_of(key) {
            Some(home) => format!("unknown key `{key}`{place}; it belongs in [{home}]"),
            None => format!("unknown key `{key}`{place}; known here are {}", known.join(", ")),
        }
    }

    fn shown(self) -> String {
        let key = self.setting.rsplit('.').next().unwrap_or_default();
        if show::is_secret(key) {
            return "not that".into();
        }
        let line = self.found.lines().next().unwrap_or_default();
        match line {
            "" => "empty".into(),
            _ if line.chars().count() > FOUND_CHARS_MAX => {
                format!("{}…", line.chars().take(FOUND_CHARS_MAX).collect::<String>())
            }
            _ => line.to_owned(),
        }
    }
}

/// serde's word for a type, as someone who writes a file knows it.
fn wanted(expected: &str, setting: &str, is_section: bool) -> String {
    match expected {
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "usize" | "u64" => "a whole number, 0 or more".into(),
        "f64" | "f32" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "string" => "text in quotes".into(),
        "path string" => "a path in quotes".into(),
        "a sequence" if is_section => format!("a list of sections, [[{setting}]]"),
        "a sequence" => "a list, such as [\"…\", \"…\"]".into(),
        _ if expected.starts_with("struct ") => format!("a section, [{setting}]"),
        _ if expected.contains("socket address") => {
            "an address and port in quotes, such as \"127.0.0.1:8080\"".into()
        }
        other => other.into(),
    }
}

/// The section that has this key by default, if only one does.
fn home_of(key: &str) -> Option<String> {
    let toml::Value::Table(sections) = toml::Value::try_from(Config::default()).ok()? else { return None };
    let mut homes = sections.iter().filter(|(_, section)| section.get(key).is_some());
    let (home, _) = homes.next()?;
    homes.next().is_none().then(|| home.clone())
}

/// `start` and a word in backquotes: the word, and the rest after it.
fn quoted_after<'a>(message: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(start)?.strip_prefix('`')?.split_once('`')
}

fn all_quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
