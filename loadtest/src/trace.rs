//! Traces: when requests came, and how long they were. Three forms are known: Azure's CSV, Mooncake's JSONL, and our own
//! JSONL.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::Error;

mod azure;
mod json_lines;
#[cfg(test)]
mod tests;

/// Tokens that one of Mooncake's block hashes stands for.
pub const BLOCK_TOKENS: u32 = 512;
/// The largest file.
pub const TRACE_BYTES_MAX: u64 = 1 << 30;

/// One request of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it came, in microseconds after the trace's start, before any speed-up. Azure's and Mooncake's traces start
    /// with their first request; ours start at 0.
    pub at_us: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: Option<u32>,
    /// Tokens of its answer.
    pub max_tokens: Option<u32>,
    /// What its prompt consists of, [`BLOCK_TOKENS`] tokens each but for the last: equal numbers are equal text.
    pub blocks: Vec<u64>,
}

/// Reads a trace in whichever form it is.
///
/// # Errors
/// When it cannot be read, is too large, has a line that is no request, or is not in order of time.
pub fn read(path: &Path) -> Result<Vec<TraceRequest>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > TRACE_BYTES_MAX {
        return Err(Error::Config(format!(
            "{} has {bytes} bytes, but a trace may have at most {TRACE_BYTES_MAX}; split it",
            path.display()
        )));
    }
    // A file that grows meanwhile is read no further.
    parse(path, BufReader::new(file.take(TRACE_BYTES_MAX)))
}

/// Parses a trace; `path` is for errors.
///
/// # Errors
/// As for [`read`].
pub fn parse(path: &Path, reader: impl BufRead) -> Result<Vec<TraceRequest>, Error> {
    let wrong = |line, reason: String| Error::Line { path: path.to_owned(), line, reason };
    let mut form = None;
    let mut requests: Vec<TraceRequest> = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let number = index + 1;
        let line = line.map_err(|error| wrong(number, error.to_string()))?;
        // Files from some systems have a mark of their encoding first, and carriage returns.
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() {
            continue;
        }
        let form = match &mut form {
            Some(form) => form,
            None => {
                let (found, is_header) = Form::of(line).map_err(|reason| wrong(number, reason))?;
                let form = form.insert(found);
                if is_header {
                    continue;
                }
                form
            }
        };
        let request = form.request(line).map_err(|reason| wrong(number, reason))?;
        if requests.last().is_some_and(|last| last.at_us > request.at_us) {
            return Err(wrong(number, "is earlier than the line before; sort the trace by time".into()));
        }
        requests.push(request);
    }
    if requests.is_empty() {
        return Err(wrong(1, "the trace holds no request".into()));
    }
    if form.is_some_and(|form| form.starts_with_its_first_request()) {
        let start_us = requests[0].at_us;
        requests.iter_mut().for_each(|request| request.at_us -= start_us);
    }
    Ok(requests)
}

/// What a trace's lines are.
#[derive(Debug)]
enum Form {
    Azure(azure::Columns),
    Mooncake,
    Own,
}

impl Form {
    /// What the first line shows, and whether it is a header.
    fn of(first: &str) -> Result<(Self, bool), String> {
        if !first.starts_with('{') {
            return Ok((Self::Azure(azure::Columns::of(first)?), true));
        }
        let form = if json_lines::is_mooncake(first)? { Self::Mooncake } else { Self::Own };
        Ok((form, false))
    }

    fn request(&self, line: &str) -> Result<TraceRequest, String> {
        match self {
            Self::Azure(columns) => columns.request(line),
            Self::Mooncake => json_lines::mooncake(line),
            Self::Own => json_lines::own(line),
        }
    }

    const fn starts_with_its_first_request(&self) -> bool {
        matches!(self, Self::Azure(_) | Self::Mooncake)
    }
}
