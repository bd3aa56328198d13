//! The table for people.

use std::io::{Result, Write};

use super::{Report, Summary};
use crate::prompts::PromptBasis;

pub(super) fn write(report: &Report, mut to: impl Write) -> Result<()> {
    let to = &mut to;
    head(report, to)?;
    figures(report, to)?;
    tail(report, to)
}

fn head(report: &Report, to: &mut impl Write) -> Result<()> {
    let (config, requests) = (&report.config, &report.requests);
    writeln!(to, "target      {}, model {}", report.target, report.model)?;
    let end = match (config.requests, config.duration_s) {
        (Some(requests), _) => format!("{requests} requests"),
        (None, duration_s) => format!("{} s", duration_s.unwrap_or_default()),
    };
    writeln!(
        to,
        "load        closed loop, {} users, {end}, {} requests before to warm up",
        config.users, requests.warmup
    )?;
    let shared = config.shared_prefix_tokens;
    match report.prompt_basis {
        PromptBasis::Counted { sample_tokens } => {
            writeln!(to, "prompts     {sample_tokens} tokens as the target counts, {shared} of them shared")?;
        }
        PromptBasis::Estimated => {
            writeln!(
                to,
                "prompts     about {} tokens, estimated, {shared} of them shared",
                config.prompt_tokens
            )?;
        }
        PromptBasis::File { prompts } => writeln!(to, "prompts     {prompts} from a file")?,
    }
    let streamed = if config.stream { "streamed" } else { "whole" };
    let eos = if config.ignore_eos { ", past the end of sequence" } else { "" };
    writeln!(to, "answers     at most {} tokens{eos}, {streamed}, seed {}", config.max_tokens, config.seed)?;
    write!(to, "outcome     {} succeeded, {} failed", requests.succeeded, requests.failed)?;
    if report.interrupted {
        write!(to, ", {} abandoned: INTERRUPTED", requests.abandoned)?;
    }
    writeln!(to, "{}", if report.valid { "" } else { ": INVALID, see notes" })?;
    for (reason, count) in &report.finish_reasons {
        writeln!(to, "            {count} ended by {reason}")?;
    }
    Ok(())
}

fn figures(report: &Report, to: &mut impl Write) -> Result<()> {
    let (throughput, tokens) = (&report.throughput, &report.tokens);
    writeln!(
        to,
        "throughput  {:.2} requests/s, {:.1} output tokens/s, {:.1} prompt tokens/s over {:.2} s",
        throughput.requests_per_s,
        throughput.output_tokens_per_s,
        throughput.prompt_tokens_per_s,
        report.span_s
    )?;
    writeln!(
        to,
        "tokens      {} output, {} prompt, {} of them from a prefix cache\n",
        tokens.output, tokens.prompt, tokens.prompt_cached
    )?;
    let columns = ["count", "mean", "p50", "p90", "p95", "p99", "max"];
    write!(to, "{:<31}", "milliseconds")?;
    for column in columns {
        write!(to, "{column:>10}")?;
    }
    writeln!(to)?;
    let latency = &report.latency;
    let rows = [
        ("time to first token", latency.ttft_ms),
        ("  from schedule", latency.ttft_from_schedule_ms),
        ("time per output token", latency.tpot_ms),
        ("inter-token latency", latency.inter_token_ms),
        ("inter-chunk latency", latency.inter_chunk_ms),
        ("end-to-end latency", latency.end_to_end_ms),
        ("  from schedule", latency.end_to_end_from_schedule_ms),
        ("dispatch delay (tester's own)", latency.dispatch_delay_ms),
    ];
    rows.into_iter().try_for_each(|(name, summary)| row(name, summary, to))
}

fn row(name: &str, summary: Option<Summary>, to: &mut impl Write) -> Result<()> {
    write!(to, "{name:<31}")?;
    match summary {
        None => writeln!(to, "{:>10}", "-"),
        Some(Summary { count, mean, p50, p90, p95, p99, max }) => {
            write!(to, "{count:>10}")?;
            for value in [mean, p50, p90, p95, p99, max] {
                write!(to, "{value:>10.3}")?;
            }
            writeln!(to)
        }
    }
}

fn tail(report: &Report, to: &mut impl Write) -> Result<()> {
    if !report.errors.is_empty() {
        writeln!(to, "\nerrors")?;
    }
    for error in &report.errors {
        writeln!(to, "{:>8}  {}: {}", error.count, error.kind, error.example)?;
    }
    if !report.notes.is_empty() {
        writeln!(to, "\nnotes")?;
    }
    report.notes.iter().try_for_each(|note| writeln!(to, "  {note}"))
}
