//! The report of a run: a JSON document whose form is versioned, lines of CSV, a page, and a table for people.
//!
//! Figures are defined in this crate's own documentation, and the document's fields in `REPORT.md` beside it.
//!
//! | field | holds |
//! |---|---|
//! | `schema`, `version`, `started_unix_s`, `processes` | form of the document, tester's version, when, how many processes sent |
//! | `target`, `model`, `scenario`, `prompt_basis` | what was asked of whom; the scenario in full |
//! | `valid`, `invalid_reasons`, `interrupted` | whether the figures count, and why not |
//! | `verdict`, `limits` | what limits the target, and everything that shows it |
//! | `requests`, `rates` | `offered = sent + unsent`, `sent = succeeded + failed + abandoned`; offered and achieved rate |
//! | `goodput`, `throughput`, `tokens`, `usd_per_million_good_tokens` | what came of it, over the span `span_s` |
//! | `scheduled`, `sent` | `ttft_*` and `e2e_*`, from the schedule and from sending |
//! | `between_tokens`, `tester` | `tpot_*`, `inter_token_*`, `inter_chunk_*`; `dispatch_delay_*` |
//! | `cache`, `finish_reasons`, `errors`, `notes` | counts by kind, and what a reader should know |
//! | `events`, `timeline`, `target_metrics` | what happened when: faults, each second, the target's own metrics |
//! | `counts`, `spans`, `histograms` | what the figures are made of; [`Report::merge`] adds it up |

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits::Finding;
use crate::metrics::{CacheCounts, Counts, Latencies, Spans, Timeline};
use crate::prompts::PromptBasis;
use crate::scenario::Scenario;
use crate::scrape::TargetMetrics;

mod build;
mod csv;
mod describe;
mod figures;
pub mod html;
mod json;
mod table;
mod validity;

pub use build::RunFacts;
pub use figures::{Definition, Figures};
pub use validity::{ACHIEVED_SHARE_MIN, DISPATCH_DELAY_P50_MS_MAX};

/// The version of the JSON document. It grows when a field changes its meaning or goes; new fields alone leave it.
pub const SCHEMA: u32 = 2;

/// The file of the report within its folder.
pub const REPORT_FILE: &str = "report.json";
/// The file of the timeline within it.
pub const CSV_FILE: &str = "report.csv";
/// The page within it.
pub const HTML_FILE: &str = "report.html";

/// One run, of one process or of several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The tester's version.
    pub version: String,
    /// When the run started, in seconds since 1970.
    pub started_unix_s: u64,
    /// How many processes sent; more than one in a merged report.
    pub processes: u32,
    /// The server's address without `/v1`.
    pub target: String,
    /// The model that was asked for.
    pub model: String,
    /// Whether the tester kept its own times well enough for the figures to count.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// What limits the target, in a sentence: the first of `limits`.
    pub verdict: String,
    /// Everything that limits, the most telling first; never empty.
    pub limits: Vec<Finding>,
    /// How many requests came to what.
    pub requests: Requests,
    /// Requests a second that were due, and that were sent.
    pub rates: Rates,
    /// Requests that met all targets.
    pub goodput: Goodput,
    /// Rates over the span.
    pub throughput: Throughput,
    /// Tokens of the requests that succeeded.
    pub tokens: Tokens,
    /// What a million tokens of good requests cost, in US dollars, where the scenario says what the servers cost.
    pub usd_per_million_good_tokens: Option<f64>,
    /// First sending to last end, in seconds.
    pub span_s: f64,
    /// Latencies from when requests were due.
    pub scheduled: Figures,
    /// Latencies from when requests were sent.
    pub sent: Figures,
    /// Times between tokens, and between chunks.
    pub between_tokens: Figures,
    /// The tester's own lateness.
    pub tester: Figures,
    /// Answers by what a response cache did, as far as the server said.
    pub cache: CacheCounts,
    /// How many answers ended for which reason.
    pub finish_reasons: BTreeMap<String, u64>,
    /// Failures by kind, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
    /// How the length of prompts is known.
    pub prompt_basis: PromptBasis,
    /// All that was asked for, the seed that was in force included.
    pub scenario: Scenario,
    /// What was done to the servers meanwhile.
    pub events: Vec<Event>,
    /// What happened in each second.
    pub timeline: Timeline,
    /// What the target said of itself.
    pub target_metrics: TargetMetrics,
    /// Sums over the records.
    pub counts: Counts,
    /// First and last moments.
    pub spans: Spans,
    /// Distributions.
    pub histograms: Latencies,
}

/// How many requests came to what. Warm-up is apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Due: `sent + unsent`.
    pub offered: u64,
    /// Handed to the HTTP client: `succeeded + failed + abandoned`.
    pub sent: u64,
    /// Ended well.
    pub succeeded: u64,
    /// Sent, and ended badly.
    pub failed: u64,
    /// Due, but never sent: too many were in flight.
    pub unsent: u64,
    /// In flight when the run was interrupted; in no other figure.
    pub abandoned: u64,
    /// Failed because the answer was not the reference run's.
    pub mismatched: u64,
    /// Sent once more, for an idle connection had closed.
    pub resent: u64,
    /// Ended before the measured run.
    pub warmup: u64,
    /// Of these, ended badly.
    pub warmup_failed: u64,
}

/// Requests a second, between the first and the last. None for fewer than two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// That were due.
    pub offered_per_s: Option<f64>,
    /// That were sent.
    pub achieved_per_s: Option<f64>,
}

/// Requests that met all of the scenario's targets; without targets, those that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// How many.
    pub requests: u64,
    /// Of those offered, less abandoned ones. None when there are none.
    pub share: Option<f64>,
    /// A second of the span.
    pub per_s: f64,
    /// Their tokens.
    pub output_tokens: u64,
}

/// Rates over the span, of requests that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Requests a second.
    pub requests_per_s: f64,
    /// Tokens of answers a second.
    pub output_tokens_per_s: f64,
    /// Tokens of prompts a second, cached ones included.
    pub prompt_tokens_per_s: f64,
}

/// Sums over the requests that succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Of answers.
    pub output: u64,
    /// Of prompts, as servers counted them: the chat template is in it.
    pub prompt: u64,
    /// Of prompts, from a prefix cache.
    pub prompt_cached: u64,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The kind, as in `records.jsonl`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// The first one.
    pub example: String,
}

/// Something that was done to a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds since the run's start.
    pub at_s: f64,
    /// What, for people.
    pub what: String,
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    /// Writes the JSON document, indented, a line for each of a timeline's buckets, with a line break at its end.
    pub fn write_json(&self, to: impl Write) -> std::io::Result<()> {
        json::write(self, to)
    }

    /// Writes the timeline, a line for each bucket.
    pub fn write_csv(&self, to: impl Write) -> std::io::Result<()> {
        csv::write(self, to)
    }

    /// Writes a table for people.
    pub fn write_table(&self, to: impl Write) -> std::io::Result<()> {
        table::write(self, to)
    }

    /// Writes [`REPORT_FILE`], [`CSV_FILE`] and [`HTML_FILE`] in `dir`, which is made if absent; older ones are
    /// replaced.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let failed = |path: &Path, source| Error::File { path: path.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let write = |name: &str, write: &dyn Fn(&mut dyn Write) -> std::io::Result<()>| {
            let path = dir.join(name);
            let file = std::fs::File::create(&path).map_err(|source| failed(&path, source))?;
            let mut writer = std::io::BufWriter::new(file);
            write(&mut writer).and_then(|()| writer.flush()).map_err(|source| failed(&path, source))
        };
        write(REPORT_FILE, &|to| self.write_json(to))?;
        write(CSV_FILE, &|to| self.write_csv(to))?;
        write(HTML_FILE, &|to| to.write_all(html::page(std::slice::from_ref(self)).as_bytes()))
    }

    /// Reads a document that [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or is no report of this version.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        json::read(&text).map_err(|reason| Error::NoReport { path: path.to_owned(), reason })
    }
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
