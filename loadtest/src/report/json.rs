//! The JSON document: indented where people look, one line where there are many of a kind.

use std::io::{Result, Write};

use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, Serializer};

use super::{Report, SCHEMA};

/// How deep lists and objects are spread over lines. Below it are a timeline's buckets and a histogram's pairs.
const INDENTED_DEPTH: usize = 3;

pub(super) fn write(report: &Report, mut to: impl Write) -> Result<()> {
    report.serialize(&mut Serializer::with_formatter(&mut to, ByDepth::default()))?;
    to.write_all(b"\n")
}

/// Reads a document of this version, or says why it is none.
pub(super) fn read(text: &str) -> std::result::Result<Report, String> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<u32>,
    }
    let head: Head = serde_json::from_str(text).map_err(|error| format!("this is no report: {error}"))?;
    match head.schema {
        Some(SCHEMA) => {
            serde_json::from_str(text).map_err(|error| format!("this is no whole report: {error}"))
        }
        Some(other) => {
            Err(format!("this report is of version {other}, but this program reads version {SCHEMA}"))
        }
        None => Err("this is no report: it has no `schema`".into()),
    }
}

/// Spreads what is near the surface over lines. At the deepest of these, a list's objects get a line each; its numbers,
/// and its pairs of numbers, share one.
#[derive(Default)]
struct ByDepth {
    /// For each list or object that is open, whether it has a value on a line of its own.
    spread: Vec<bool>,
    /// A list's value begins, and has a line of its own if it is an object.
    waits_for_object: bool,
}

impl ByDepth {
    fn open(&mut self, to: &mut (impl Write + ?Sized), bracket: &[u8]) -> Result<()> {
        self.waits_for_object = false;
        self.spread.push(false);
        to.write_all(bracket)
    }

    fn close(&mut self, to: &mut (impl Write + ?Sized), bracket: &[u8]) -> Result<()> {
        self.waits_for_object = false;
        if self.spread.pop() == Some(true) {
            self.indent(to)?;
        }
        to.write_all(bracket)
    }

    fn new_line(&mut self, to: &mut (impl Write + ?Sized)) -> Result<()> {
        if let Some(spread) = self.spread.last_mut() {
            *spread = true;
        }
        self.indent(to)
    }

    fn indent(&self, to: &mut (impl Write + ?Sized)) -> Result<()> {
        to.write_all(b"\n")?;
        self.spread.iter().try_for_each(|_| to.write_all(b"  "))
    }

    fn comma(to: &mut (impl Write + ?Sized), first: bool) -> Result<()> {
        if first { Ok(()) } else { to.write_all(b",") }
    }
}

impl Formatter for ByDepth {
    fn begin_array<W: Write + ?Sized>(&mut self, to: &mut W) -> Result<()> {
        self.open(to, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, to: &mut W) -> Result<()> {
        self.close(to, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> Result<()> {
        Self::comma(to, first)?;
        self.waits_for_object = self.spread.len() == INDENTED_DEPTH;
        if self.spread.len() < INDENTED_DEPTH { self.new_line(to) } else { Ok(()) }
    }

    fn begin_object<W: Write + ?Sized>(&mut self, to: &mut W) -> Result<()> {
        if self.waits_for_object {
            self.new_line(to)?;
        }
        self.open(to, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, to: &mut W) -> Result<()> {
        self.close(to, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, to: &mut W, first: bool) -> Result<()> {
        Self::comma(to, first)?;
        if self.spread.len() <= INDENTED_DEPTH { self.new_line(to) } else { Ok(()) }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, to: &mut W) -> Result<()> {
        to.write_all(if self.spread.len() <= INDENTED_DEPTH { b": " } else { b":" })
    }
}
