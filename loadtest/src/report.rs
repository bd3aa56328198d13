//! The report of a run: a JSON document whose form is versioned, and a table for people.

use std::io::Write;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::prompts::PromptBasis;
use crate::scenario::Scenario;

mod table;

/// The version of the JSON document. It grows when a field changes its meaning or goes; new fields alone leave it.
pub const SCHEMA: u32 = 1;

/// The file of the report within its folder.
pub const REPORT_FILE: &str = "report.json";

/// The longest median dispatch delay of a valid run, in milliseconds.
pub const DISPATCH_DELAY_P50_MS_MAX: f64 = 10.0;

/// One run. Figures are defined in this crate's own documentation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The tester's version.
    pub version: &'static str,
    /// When the run started, in seconds since 1970.
    pub started_unix_s: u64,
    /// The server's address without `/v1`.
    pub target: String,
    /// The model that was asked for.
    pub model: String,
    /// All settings, the seed that was in force among them.
    pub scenario: Scenario,
    /// How the length of prompts is known.
    pub prompt_basis: PromptBasis,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Whether the tester kept its own times well enough for the figures to count.
    pub valid: bool,
    /// How many requests came to what.
    pub requests: Requests,
    /// First sending to last end, in seconds.
    pub span_s: f64,
    /// Rates over the span.
    pub throughput: Throughput,
    /// Tokens of the requests that succeeded.
    pub tokens: Tokens,
    /// Milliseconds.
    pub latency: Latency,
    /// How many answers ended for which reason.
    pub finish_reasons: std::collections::BTreeMap<String, u64>,
    /// Failures by kind, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
}

/// How many requests came to what. Warm-up is apart: `succeeded + failed + abandoned` are the measured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Ended well.
    pub succeeded: u64,
    /// Ended badly.
    pub failed: u64,
    /// In flight when the run was interrupted.
    pub abandoned: u64,
    /// Ended before the measured run.
    pub warmup: u64,
    /// Of these, ended badly.
    pub warmup_failed: u64,
}

/// Rates over the span, of requests that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// Requests a second.
    pub requests_per_s: f64,
    /// Tokens of answers a second.
    pub output_tokens_per_s: f64,
    /// Tokens of prompts a second, cached ones included.
    pub prompt_tokens_per_s: f64,
}

/// Sums over the requests that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Of answers.
    pub output: u64,
    /// Of prompts, as servers counted them: the chat template is in it.
    pub prompt: u64,
    /// Of prompts, from a prefix cache.
    pub prompt_cached: u64,
}

/// Distributions of latencies; an empty one is null.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Time to first token, from sending.
    pub ttft_ms: Option<Summary>,
    /// Time to first token, from when the request was due.
    pub ttft_from_schedule_ms: Option<Summary>,
    /// Time per output token, one value a request.
    pub tpot_ms: Option<Summary>,
    /// Inter-token latency, one value a gap.
    pub inter_token_ms: Option<Summary>,
    /// Gaps between chunks.
    pub inter_chunk_ms: Option<Summary>,
    /// From sending to the last token.
    pub end_to_end_ms: Option<Summary>,
    /// From when the request was due to the last token.
    pub end_to_end_from_schedule_ms: Option<Summary>,
    /// The tester's own lateness.
    pub dispatch_delay_ms: Option<Summary>,
}

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 of 100 are no longer.
    pub p90: f64,
    /// 95 of 100 are no longer.
    pub p95: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Summary {
    /// Summarizes microseconds; none when there are none.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |us: u64| us as f64 / 1e3;
        let quantile = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: ms(histogram.max()),
        })
    }
}

/// One kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// `unsent`, `connect`, `disconnected`, `timeout`, `http_STATUS`, `stream_error`, `truncated` or `bad_answer`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// The first one.
    pub example: String,
}

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// See [`Report::scenario`].
    pub scenario: Scenario,
    /// See [`Report::target`].
    pub target: String,
    /// See [`Report::model`].
    pub model: String,
    /// See [`Report::prompt_basis`].
    pub prompt_basis: PromptBasis,
    /// See [`Report::started_unix_s`].
    pub started_unix_s: u64,
    /// See [`Report::interrupted`].
    pub interrupted: bool,
    /// See [`Requests::abandoned`].
    pub abandoned: u64,
    /// See [`Requests::warmup`].
    pub warmup_sent: u64,
    /// See [`Requests::warmup_failed`].
    pub warmup_failed: u64,
    /// The measured run.
    pub metrics: Metrics,
}

impl Report {
    /// Puts a run's figures together.
    pub fn new(facts: RunFacts) -> Self {
        let notes = notes(&facts);
        let metrics = facts.metrics;
        let latencies = &metrics.latencies;
        let latency = Latency {
            ttft_ms: Summary::of(&latencies.ttft),
            ttft_from_schedule_ms: Summary::of(&latencies.ttft_from_schedule),
            tpot_ms: Summary::of(&latencies.tpot),
            inter_token_ms: Summary::of(&latencies.inter_token),
            inter_chunk_ms: Summary::of(&latencies.inter_chunk),
            end_to_end_ms: Summary::of(&latencies.end_to_end),
            end_to_end_from_schedule_ms: Summary::of(&latencies.end_to_end_from_schedule),
            dispatch_delay_ms: Summary::of(&latencies.dispatch_delay),
        };
        let throughput = Throughput {
            requests_per_s: metrics.per_second(metrics.succeeded),
            output_tokens_per_s: metrics.per_second(metrics.output_tokens),
            prompt_tokens_per_s: metrics.per_second(metrics.prompt_tokens),
        };
        let span_s = metrics.span_s();
        let mut errors: Vec<ErrorCount> = metrics
            .failures
            .into_iter()
            .map(|(kind, (count, example))| ErrorCount { kind: kind.to_string(), count, example })
            .collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            started_unix_s: facts.started_unix_s,
            target: facts.target,
            model: facts.model,
            scenario: facts.scenario,
            prompt_basis: facts.prompt_basis,
            interrupted: facts.interrupted,
            valid: latency.dispatch_delay_ms.is_none_or(|delay| delay.p50 <= DISPATCH_DELAY_P50_MS_MAX),
            requests: Requests {
                succeeded: metrics.succeeded,
                failed: metrics.failed,
                abandoned: facts.abandoned,
                warmup: facts.warmup_sent,
                warmup_failed: facts.warmup_failed,
            },
            span_s,
            throughput,
            tokens: Tokens {
                output: metrics.output_tokens,
                prompt: metrics.prompt_tokens,
                prompt_cached: metrics.cached_prompt_tokens,
            },
            latency,
            finish_reasons: metrics.finish_reasons,
            errors,
            notes,
        }
    }

    /// Writes the JSON document, indented, with a line break at its end.
    pub fn write_json(&self, mut to: impl Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut to, self)?;
        to.write_all(b"\n")
    }

    /// Writes a table for people.
    pub fn write_table(&self, to: impl Write) -> std::io::Result<()> {
        table::write(self, to)
    }

    /// Writes the JSON document to [`REPORT_FILE`] in `dir`, which is made if absent; an older one is replaced.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let failed = |path: &Path, source| Error::File { path: path.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let path = dir.join(REPORT_FILE);
        let file = std::fs::File::create(&path).map_err(|source| failed(&path, source))?;
        let mut writer = std::io::BufWriter::new(file);
        self.write_json(&mut writer).and_then(|()| writer.flush()).map_err(|source| failed(&path, source))
    }
}

fn notes(facts: &RunFacts) -> Vec<String> {
    let metrics = &facts.metrics;
    let requests = metrics.succeeded + metrics.failed;
    let mut notes = Vec::new();
    match facts.prompt_basis {
        PromptBasis::Estimated => notes.push(
            "the target offers no /tokenize: the length of prompts is an estimate, and usage says what they had".into(),
        ),
        PromptBasis::File { prompts } if (prompts as u64) < requests => notes.push(format!(
            "{prompts} prompts for {requests} requests: prompts were repeated, and caches may have answered"
        )),
        _ => {}
    }
    let mut count = |count: u64, what: &str| {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    };
    if facts.scenario.answers.ignore_eos {
        count(metrics.short, "answers are shorter than max-tokens although ignore-eos was set");
    }
    count(metrics.empty, "answers have no token");
    count(metrics.without_usage, "answers came without usage");
    count(metrics.with_assumed_tokens, "streams did not say their tokens: one a chunk is assumed");
    count(facts.warmup_failed, "warm-up requests failed");
    count(facts.abandoned, "requests were in flight when the run was interrupted and are in no figure");
    let median_us = metrics.latencies.dispatch_delay.value_at_quantile(0.5);
    if median_us as f64 > DISPATCH_DELAY_P50_MS_MAX * 1e3 {
        notes.push(format!(
            "the tester itself was late by {} ms in the median: it is short of CPU time, and the run is invalid",
            median_us / 1_000
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
