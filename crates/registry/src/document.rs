//! What the embedded registry's file says, and every change to it, as functions of values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Known};
use crate::name::{check_alias, check_name};
use crate::reference::Selector;
use crate::registry::Registered;
use crate::version::{Measured, NewVersion, Source, Version, check_notes};

const FORMAT: &str = "tenk model registry";
const FORMAT_VERSION: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// Tells the file from any other JSON.
    format: String,
    format_version: u32,
    models: BTreeMap<String, Model>,
}

/// A name's versions, in the order of their numbers, and its aliases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    versions: Vec<Entry>,
    aliases: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    version: u64,
    source: Source,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    checksum: Option<String>,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    quantization: Option<String>,
    created_ms: u64,
    metrics: BTreeMap<String, f64>,
    tags: BTreeMap<String, String>,
}

impl Default for Document {
    fn default() -> Self {
        Self { format: FORMAT.into(), format_version: FORMAT_VERSION, models: BTreeMap::new() }
    }
}

impl Document {
    /// Reads a file, all of it or nothing. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: Option<String>,
            format_version: Option<u32>,
        }
        if bytes.is_empty() {
            return Err("it is empty".into());
        }
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no whole JSON ({error})"))?;
        if head.format.as_deref() != Some(FORMAT) {
            return Err(format!("its `format` is not \"{FORMAT}\""));
        }
        if head.format_version != Some(FORMAT_VERSION) {
            let found = head.format_version.map_or("missing".into(), |version| version.to_string());
            return Err(format!("its `format_version` is {found}, and this tenk reads {FORMAT_VERSION}"));
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        document.check()?;
        Ok(document)
    }

    /// What a change could trip over later.
    fn check(&self) -> Result<(), String> {
        for (name, model) in &self.models {
            check_name(name).map_err(|error| error.to_string())?;
            for (entry, number) in model.versions.iter().zip(1..) {
                if entry.version != number {
                    return Err(format!("`{name}` has version {} where {number} should be", entry.version));
                }
            }
            for (alias, version) in &model.aliases {
                check_alias(alias).map_err(|error| error.to_string())?;
                if *version == 0 || *version > model.versions.len() as u64 {
                    return Err(format!(
                        "the alias `{alias}` of `{name}` names version {version}, which is not there"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The file's text, for people to read.
    pub(crate) fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The next version of its name; or the one that has this checksum, which is left as it is.
    pub(crate) fn register(
        &mut self,
        new: &NewVersion,
        measured: &Measured,
        now_ms: u64,
    ) -> Result<Registered, Error> {
        new.check()?;
        let model = self.models.entry(new.name.clone()).or_default();
        let same = |entry: &&Entry| measured.checksum.is_some() && entry.checksum == measured.checksum;
        if let Some(entry) = model.versions.iter().find(same) {
            return Ok(Registered { version: entry.to_version(&new.name), is_new: false });
        }
        let entry = Entry {
            version: model.versions.len() as u64 + 1,
            source: new.source.clone(),
            checksum: measured.checksum.clone(),
            size_bytes: measured.size_bytes,
            quantization: new.quantization.clone(),
            created_ms: now_ms,
            metrics: new.metrics.clone(),
            tags: new.tags.clone(),
        };
        let version = entry.to_version(&new.name);
        model.versions.push(entry);
        Ok(Registered { version, is_new: true })
    }

    /// Every name that has versions.
    pub(crate) fn names(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    /// All versions of a name in the order of their numbers; none for a name that is not there.
    pub(crate) fn versions(&self, name: &str) -> Vec<Version> {
        let entries = self.models.get(name).map(|model| model.versions.as_slice()).unwrap_or_default();
        entries.iter().map(|entry| entry.to_version(name)).collect()
    }

    pub(crate) fn get(&self, name: &str, selector: &Selector) -> Result<Version, Error> {
        let number = match selector {
            Selector::Number(number) => Some(*number),
            Selector::Alias(alias) => {
                self.models.get(name).and_then(|model| model.aliases.get(alias).copied())
            }
        };
        let find = |number| self.models.get(name)?.versions.iter().find(|entry| entry.version == number);
        let found = number.and_then(find).map(|entry| entry.to_version(name));
        found.ok_or_else(|| self.known(name).missing(name, selector))
    }

    pub(crate) fn aliases(&self, name: &str) -> BTreeMap<String, u64> {
        self.models.get(name).map(|model| model.aliases.clone()).unwrap_or_default()
    }

    pub(crate) fn set_alias(&mut self, name: &str, alias: &str, version: u64) -> Result<(), Error> {
        check_alias(alias)?;
        self.get(name, &Selector::Number(version))?;
        if let Some(model) = self.models.get_mut(name) {
            model.aliases.insert(alias.to_owned(), version);
        }
        Ok(())
    }

    /// Whether it was there.
    pub(crate) fn remove_alias(&mut self, name: &str, alias: &str) -> bool {
        self.models.get_mut(name).is_some_and(|model| model.aliases.remove(alias).is_some())
    }

    /// Adds metrics and tags to a version, over those of the same names.
    pub(crate) fn annotate(
        &mut self,
        name: &str,
        version: u64,
        metrics: &BTreeMap<String, f64>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Version, Error> {
        check_notes(metrics, tags)?;
        let missing = self.known(name).missing(name, &Selector::Number(version));
        let entries = self.models.get_mut(name).map(|model| model.versions.iter_mut());
        let entry = entries.and_then(|mut entries| entries.find(|entry| entry.version == version));
        let entry = entry.ok_or(missing)?;
        entry.metrics.extend(metrics.clone());
        entry.tags.extend(tags.clone());
        Ok(entry.to_version(name))
    }

    fn known(&self, name: &str) -> Known {
        let numbers = self.versions(name).iter().map(|version| version.version).collect();
        Known { names: self.names(), numbers, aliases: self.aliases(name) }
    }
}

impl Entry {
    fn to_version(&self, name: &str) -> Version {
        Version {
            name: name.to_owned(),
            version: self.version,
            source: self.source.clone(),
            checksum: self.checksum.clone(),
            size_bytes: self.size_bytes,
            quantization: self.quantization.clone(),
            metrics: self.metrics.clone(),
            tags: self.tags.clone(),
            created_ms: self.created_ms,
        }
    }
}

#[cfg(test)]
mod tests;
