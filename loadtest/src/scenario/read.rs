//! From a file to a scenario, every mistake with its line.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::walk::{Offsets, nearest, walk};
use super::{Arrivals, Prompts, Scenario};
use crate::error::Error;

/// Far above any scenario, far below what would fill memory.
const BYTES_MAX: u64 = 1 << 20;

/// The scenarios that are part of this program.
const SHIPPED: [(&str, &str); 7] = [
    ("10k", include_str!("../../scenarios/10k.toml")),
    ("burst", include_str!("../../scenarios/burst.toml")),
    ("cache-zipf", include_str!("../../scenarios/cache-zipf.toml")),
    ("chat", include_str!("../../scenarios/chat.toml")),
    ("shared-prefix", include_str!("../../scenarios/shared-prefix.toml")),
    ("smoke", include_str!("../../scenarios/smoke.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
];

/// A scenario as it was written, and where. Flags may still change it, so it is not validated.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// What was written.
    pub(crate) scenario: Scenario,
    /// Lines of settings, as `FILE:LINE`.
    places: Vec<(String, String)>,
    written: serde_json::Value,
}

impl Draft {
    /// Reads a scenario by its name, if it is one of this program's, or from a file.
    pub(crate) fn open(name_or_path: &str) -> Result<Self, Error> {
        let is_path = name_or_path.ends_with(".toml") || name_or_path.contains(std::path::is_separator);
        if is_path { Self::read(Path::new(name_or_path)) } else { Self::shipped(name_or_path) }
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > BYTES_MAX {
            let name = path.display();
            return Err(Error::Config(format!(
                "{name} is above {BYTES_MAX} bytes; a scenario is a short text"
            )));
        }
        let mut draft = Self::parse(&path.display().to_string(), &text)?;
        draft.relative_to(path.parent().unwrap_or(Path::new("")));
        draft.written = written(&draft.scenario);
        Ok(draft)
    }

    fn shipped(name: &str) -> Result<Self, Error> {
        if let Some((name, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let names = SHIPPED.map(|(name, _)| name);
        let hint = nearest(name, &names).map(|right| format!("; did you mean `{right}`?"));
        Err(Error::Config(format!(
            "there is no scenario `{name}` among {}{}; a file's name ends in .toml",
            names.join(", "),
            hint.unwrap_or_default()
        )))
    }

    /// `name` is how messages call the file.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let place = |offset: usize| {
            let before = text.get(..offset).unwrap_or_default();
            format!("{name}:{}", 1 + before.matches('\n').count())
        };
        let refused = |offset, what: &str| Error::Config(format!("{}: {what}", place(offset)));
        let not_toml = |error: toml::de::Error| {
            let span = error.span().unwrap_or_default();
            let what = match (error.message(), text.get(span.clone())) {
                ("duplicate key", Some(key)) => format!("`{key}` is there twice; keep one"),
                (message, _) => message.lines().next().unwrap_or_default().to_owned(),
            };
            refused(span.start, &what)
        };
        let table = DeTable::parse(text).map_err(not_toml)?;
        let offsets: Offsets =
            walk(text, table.get_ref()).map_err(|mistake| refused(mistake.offset, &mistake.what))?;
        let scenario: Scenario = toml::from_str(text).map_err(not_toml)?;
        let places = offsets.into_iter().map(|(setting, offset)| (setting, place(offset))).collect();
        Ok(Self { written: written(&scenario), scenario, places })
    }

    /// Whether the file sets it.
    pub(crate) fn has(&self, setting: &str) -> bool {
        self.places.iter().any(|(known, _)| known == setting)
    }

    /// The scenario if it is sound. `flag_of` names the flag that sets something which the file did not.
    pub(crate) fn finish(self, flag_of: impl Fn(&str) -> Option<&'static str>) -> Result<Scenario, Error> {
        let Err(refusal) = self.scenario.check() else { return Ok(self.scenario) };
        let setting = &refusal.setting;
        let is_as_written = at(&self.written, setting) == at(&written(&self.scenario), setting);
        let line = self.places.iter().find(|(known, _)| known == setting && is_as_written);
        let place = line.map(|(_, place)| place.as_str()).or_else(|| flag_of(setting));
        let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
        Err(Error::Config(format!("{place}{refusal}")))
    }

    /// Paths in a file start where it lies.
    fn relative_to(&mut self, folder: &Path) {
        let start_there = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        if let Arrivals::Trace { path, .. } = &mut self.scenario.arrivals {
            start_there(path);
        }
        if let Prompts::File { path } = &mut self.scenario.prompts {
            start_there(path);
        }
        if let Some(path) = &mut self.scenario.tokenizer {
            start_there(path);
        }
        if let Some(path) = &mut self.scenario.answers.reference {
            start_there(path);
        }
    }
}

impl Default for Draft {
    /// Nothing was written: all is by default.
    fn default() -> Self {
        let scenario = Scenario::default();
        Self { written: written(&scenario), scenario, places: Vec::new() }
    }
}

impl Scenario {
    /// Reads and validates a file. Paths in it start where it lies.
    ///
    /// # Errors
    /// When it cannot be read, or something in it is wrong: with its line, and the nearest right key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Draft::read(path)?.finish(|_| None)
    }

    /// One of this program's own.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn shipped(name: &str) -> Result<Self, Error> {
        Draft::shipped(name)?.finish(|_| None)
    }

    /// The names of this program's own, in order.
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }
}

/// A scenario as its file says it, to see what changed.
fn written(scenario: &Scenario) -> serde_json::Value {
    serde_json::to_value(scenario).unwrap_or_default()
}

/// The value at a path such as `faults[0].at_s`.
fn at<'a>(value: &'a serde_json::Value, setting: &str) -> Option<&'a serde_json::Value> {
    let pointer = setting.replace('[', ".").replace(']', "").replace('.', "/");
    value.pointer(&format!("/{pointer}"))
}
