//! Holds a file against the schema, and remembers the line of each setting.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{Field, LOG_NORMAL, SCENARIO, Shape, UNIFORM};

/// Where each setting starts, by its path, such as `arrivals.rate` or `faults[0].at_s`.
pub(super) type Offsets = BTreeMap<String, usize>;

/// A mistake, and the byte where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) offset: usize,
    pub(super) what: String,
}

const FOUND_CHARS_MAX: usize = 60;

/// Holds all of a file against the schema of a scenario.
pub(super) fn walk(text: &str, table: &DeTable<'_>) -> Result<Offsets, Mistake> {
    let mut walker = Walker { text, offsets: Offsets::new() };
    let top = Section { path: "", name: String::new(), start: 0, table };
    walker.fields(&top, SCENARIO, &[], None)?;
    Ok(walker.offsets)
}

struct Walker<'a> {
    text: &'a str,
    offsets: Offsets,
}

/// A section of the file.
struct Section<'a> {
    /// Such as `arrivals` or `faults[0]`; empty for the whole.
    path: &'a str,
    /// Such as `[arrivals]` or `[[faults]]`; empty for the whole.
    name: String,
    start: usize,
    table: &'a DeTable<'a>,
}

impl Walker<'_> {
    /// Checks that a section has the fields of `own` and `common` and, beside its tag, no others.
    fn fields(
        &mut self,
        section: &Section<'_>,
        own: &[Field],
        common: &[Field],
        tag: Option<&str>,
    ) -> Result<(), Mistake> {
        let fields: Vec<&Field> = own.iter().chain(common).collect();
        for (key, value) in section.table {
            let name: &str = key.get_ref();
            if Some(name) == tag {
                continue;
            }
            let offset = key.span().start;
            let Some(field) = fields.iter().find(|field| field.key == name) else {
                let known = tag.into_iter().chain(fields.iter().map(|field| field.key)).collect();
                return Err(Mistake { offset, what: unknown_key(name, &section.name, known) });
            };
            let path = join(section.path, name);
            self.offsets.insert(path.clone(), offset);
            self.value(&path, offset, value, field.shape)?;
        }
        let lacks = |field: &&&Field| field.is_required && !section.table.contains_key(field.key);
        match fields.iter().find(lacks) {
            Some(field) => {
                let what = format!("`{}` lacks `{}`; add it", section.path, field.key);
                Err(Mistake { offset: section.start, what })
            }
            None => Ok(()),
        }
    }

    fn value(
        &mut self,
        path: &str,
        offset: usize,
        value: &Spanned<DeValue<'_>>,
        shape: Shape,
    ) -> Result<(), Mistake> {
        let must_be = |wanted: &str| Mistake {
            offset: value.span().start.max(offset),
            what: format!("`{path}` is {}, but must be {wanted}", self.shown(value)),
        };
        match (shape, value.get_ref()) {
            (Shape::Anything, _)
            | (Shape::Text, DeValue::String(_))
            | (Shape::Flag, DeValue::Boolean(_))
            | (Shape::Number, DeValue::Integer(_) | DeValue::Float(_)) => Ok(()),
            (Shape::Whole { max }, found) if whole(found).is_some_and(|whole| whole <= max) => Ok(()),
            (Shape::Texts, DeValue::Array(texts)) => {
                let is_text = |text: &Spanned<DeValue<'_>>| matches!(text.get_ref(), DeValue::String(_));
                if texts.iter().all(is_text) { Ok(()) } else { Err(must_be(TEXTS)) }
            }
            (Shape::Length, DeValue::Table(table)) => {
                let fields = if table.contains_key("median") || table.contains_key("sigma") {
                    LOG_NORMAL
                } else {
                    UNIFORM
                };
                self.length(&Section { path, name: format!("`{path}`"), start: offset, table }, fields)
            }
            (Shape::Length, found) if whole(found).is_some_and(|whole| whole <= u64::from(u32::MAX)) => {
                Ok(())
            }
            (Shape::Section(_) | Shape::Tagged { .. }, DeValue::Table(table)) => {
                self.section(&Section { path, name: format!("[{path}]"), start: offset, table }, shape)
            }
            (Shape::Sections(of_each), DeValue::Array(items)) => self.sections(path, offset, items, *of_each),
            _ => Err(must_be(&wanted(shape, path))),
        }
    }

    fn section(&mut self, section: &Section<'_>, shape: Shape) -> Result<(), Mistake> {
        match shape {
            Shape::Tagged { tag, kinds, common } => {
                let own = self.kind(section, tag, kinds)?;
                self.fields(section, own, common, Some(tag))
            }
            Shape::Section(fields) => self.fields(section, fields, &[], None),
            _ => Ok(()),
        }
    }

    fn sections(
        &mut self,
        path: &str,
        offset: usize,
        items: &[Spanned<DeValue<'_>>],
        of_each: Shape,
    ) -> Result<(), Mistake> {
        for (index, item) in items.iter().enumerate() {
            let DeValue::Table(table) = item.get_ref() else {
                let what =
                    format!("`{path}` has {}, but must be {}", self.shown(item), wanted(of_each, path));
                return Err(Mistake { offset: item.span().start, what });
            };
            let item_path = format!("{path}[{index}]");
            let start = item.span().start.max(offset);
            self.offsets.insert(item_path.clone(), start);
            self.section(&Section { path: &item_path, name: format!("[[{path}]]"), start, table }, of_each)?;
        }
        Ok(())
    }

    /// The fields that a section's tag stands for.
    fn kind<'k>(
        &mut self,
        section: &Section<'_>,
        tag: &str,
        kinds: &'k [(&str, &[Field])],
    ) -> Result<&'k [Field], Mistake> {
        let known: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        let one_of = format!("one of `{}`", known.join("`, `"));
        let Some((key, value)) = section.table.get_key_value(tag) else {
            let what = format!("`{}` lacks `{tag}`, {one_of}; add it", section.path);
            return Err(Mistake { offset: section.start, what });
        };
        let (path, offset) = (join(section.path, tag), key.span().start);
        self.offsets.insert(path.clone(), offset);
        let DeValue::String(found) = value.get_ref() else {
            let what = format!("`{path}` is {}, but must be {one_of}", self.shown(value));
            return Err(Mistake { offset, what });
        };
        kinds.iter().find(|(kind, _)| kind == found).map(|(_, fields)| *fields).ok_or_else(|| {
            let hint = nearest(found, &known).map(|right| format!("; did you mean `{right}`?"));
            let hint = hint.unwrap_or_default();
            Mistake { offset, what: format!("`{path}` is `{found}`, but must be {one_of}{hint}") }
        })
    }

    fn length(&mut self, section: &Section<'_>, fields: &[Field]) -> Result<(), Mistake> {
        self.fields(section, fields, &[], None).map_err(|mistake| Mistake {
            what: format!("{}; {}", mistake.what, "a length is N, { min, max } or { median, sigma, max }"),
            ..mistake
        })
    }

    /// What a file has in this place, as far as a line shows it.
    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        if matches!(value.get_ref(), DeValue::Table(_)) {
            return "a section".into();
        }
        let Range { start, end } = value.span();
        let line = self.text.get(start..end).unwrap_or_default().lines().next().unwrap_or_default();
        if line.chars().count() > FOUND_CHARS_MAX {
            return format!("{}…", line.chars().take(FOUND_CHARS_MAX).collect::<String>());
        }
        line.to_owned()
    }
}

/// A whole number from 0 on.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(integer) = value else { return None };
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

const TEXTS: &str = "a list of texts, such as [\"…\", \"…\"]";

/// A shape as someone who writes a file knows it.
fn wanted(shape: Shape, path: &str) -> String {
    match shape {
        Shape::Text => "text in quotes".into(),
        Shape::Flag => "true or false".into(),
        Shape::Number => "a number".into(),
        Shape::Whole { max } if max == u64::from(u32::MAX) => format!("a whole number from 0 to {max}"),
        Shape::Whole { .. } => "a whole number, 0 or more".into(),
        Shape::Texts => TEXTS.into(),
        Shape::Length => "a whole number, { min = 1, max = 9 } or { median = 5, sigma = 1, max = 9 }".into(),
        Shape::Section(_) | Shape::Tagged { .. } => format!("a section, [{path}]"),
        Shape::Sections(_) => format!("a list of sections, [[{path}]]"),
        Shape::Anything => "a value".into(),
    }
}

fn unknown_key(key: &str, section: &str, mut known: Vec<&str>) -> String {
    let place = if section.is_empty() { String::new() } else { format!(" in {section}") };
    if let Some(right) = nearest(key, &known) {
        return format!("unknown key `{key}`{place}; did you mean `{right}`?");
    }
    known.sort_unstable();
    format!("unknown key `{key}`{place}; known here are {}", known.join(", "))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The word among `known` that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|right| (strsim::jaro_winkler(word, right), *right));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 > 0.8).then_some(best.1)
}
