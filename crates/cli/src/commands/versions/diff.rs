//! What differs between two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use anyhow::Result;
use engine::model::Weights;
use engine::model::dtype_name;
use registry::{Registry, Version};

use super::{local, size};

/// Vocabularies and the like are told as being other ones.
const VALUE_CHARS_MAX: usize = 60;
const TENSORS_SHOWN_MAX: usize = 20;

/// One line a difference.
pub(super) fn diff(registry: &Registry, from: &Version, to: &Version) -> Result<String> {
    let mut lines = Lines::default();
    lines.compare("source", &from.source, &to.source);
    let checksum = |version: &Version| version.checksum.clone().unwrap_or_else(|| "none".into());
    lines.compare("checksum", &checksum(from), &checksum(to));
    if from.size_bytes != to.size_bytes {
        let has_both = from.checksum.is_some() && to.checksum.is_some();
        let bytes = |version: &Version| version.size_bytes as f64;
        let change = if has_both { relative(bytes(from), bytes(to)) } else { String::new() };
        lines.add("size", &format!("{} → {}{change}", size(from), size(to)));
    }
    let quantization = |version: &Version| version.quantization.clone().unwrap_or_else(|| "none".into());
    lines.compare("quantization", &quantization(from), &quantization(to));
    for key in keys(&from.metrics, &to.metrics) {
        match (from.metrics.get(key), to.metrics.get(key)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                lines.add(&format!("metric {key}"), &format!("{a} → {b}{}", relative(*a, *b)));
            }
            (a, b) => lines.add(&format!("metric {key}"), &format!("{} → {}", shown(a), shown(b))),
        }
    }
    for key in keys(&from.tags, &to.tags) {
        lines.compare(&format!("tag {key}"), &shown(from.tags.get(key)), &shown(to.tags.get(key)));
    }
    if from.checksum != to.checksum {
        compare_headers(&mut lines, registry, from, to)?;
    }
    let (name, a, b) = (&from.name, from.version, to.version);
    Ok(match lines.0.as_str() {
        "" => format!("versions {a} and {b} of {name} do not differ\n"),
        lines => format!("from version {a} of {name} to version {b}\n{lines}"),
    })
}

/// Types of tensors and metadata, where both are `.gguf` files of this machine.
fn compare_headers(lines: &mut Lines, registry: &Registry, from: &Version, to: &Version) -> Result<()> {
    let (Some(from), Some(to)) = (local(registry, from), local(registry, to)) else { return Ok(()) };
    let (from, to) = (Weights::open(&from)?, Weights::open(&to)?);
    let (Some(from), Some(to)) = (from.gguf(), to.gguf()) else { return Ok(()) };
    let [a, b] = [from, to].map(|content| -> BTreeMap<String, String> {
        content.metadata.iter().map(|(key, value)| (key.clone(), format!("{value:?}"))).collect()
    });
    for key in keys(&a, &b) {
        let (a, b) = (a.get(key), b.get(key));
        let is_short = |text: Option<&String>| text.is_none_or(|text| text.len() <= VALUE_CHARS_MAX);
        match (a, b) {
            (a, b) if a == b => {}
            (a, b) if is_short(a) && is_short(b) => {
                lines.compare(&format!("metadata {key}"), &shown(a), &shown(b))
            }
            _ => lines.add(&format!("metadata {key}"), "is another one"),
        }
    }
    let [a, b] = [from, to].map(|content| -> BTreeMap<String, String> {
        let tensors = content.tensor_infos.iter();
        tensors
            .map(|(name, info)| (name.clone(), format!("{} {:?}", dtype_name(info.ggml_dtype), info.shape)))
            .collect()
    });
    let differing: Vec<&String> = keys(&a, &b).into_iter().filter(|key| a.get(*key) != b.get(*key)).collect();
    for key in differing.iter().take(TENSORS_SHOWN_MAX) {
        lines.compare(&format!("tensor {key}"), &shown(a.get(*key)), &shown(b.get(*key)));
    }
    if differing.len() > TENSORS_SHOWN_MAX {
        let more = differing.len() - TENSORS_SHOWN_MAX;
        lines.add("tensors", &format!("{more} more differ"));
    }
    Ok(())
}

/// Every key of either, once.
fn keys<'a, V>(a: &'a BTreeMap<String, V>, b: &'a BTreeMap<String, V>) -> BTreeSet<&'a String> {
    a.keys().chain(b.keys()).collect()
}

fn shown<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".into(), |value| value.to_string())
}

/// Such as ` (-3.1%)`; nothing where there is nothing to compare with.
fn relative(from: f64, to: f64) -> String {
    if from == 0.0 { String::new() } else { format!(" ({:+.1}%)", (to - from) / from.abs() * 100.0) }
}

/// What was found, a line each.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, what: &str, text: &str) {
        self.0 += &format!("{what:<24} {text}\n");
    }

    fn compare(&mut self, what: &str, from: &impl Display, to: &impl Display) {
        let (from, to) = (from.to_string(), to.to_string());
        if from != to {
            self.add(what, &format!("{from} → {to}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_relative_to_what_was_there_and_has_its_sign() {
        assert_eq!(relative(8.0, 7.0), " (-12.5%)");
        assert_eq!(relative(-2.0, -1.0), " (+50.0%)");
        assert_eq!(relative(0.0, 1.0), "");
    }
}
