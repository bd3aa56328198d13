//! The table for people.

use std::io::{Result, Write};

use super::{Report, Summary};
use crate::prompts::PromptBasis;
use crate::scenario::{Arrivals, Length, Prompts};

pub(super) fn write(report: &Report, mut to: impl Write) -> Result<()> {
    let to = &mut to;
    head(report, to)?;
    figures(report, to)?;
    tail(report, to)
}

fn head(report: &Report, to: &mut impl Write) -> Result<()> {
    let (scenario, requests) = (&report.scenario, &report.requests);
    writeln!(to, "target      {}, model {}", report.target, report.model)?;
    let end = match (scenario.requests, scenario.duration_s) {
        (Some(requests), Some(duration_s)) => format!("{requests} requests or {duration_s} s"),
        (Some(requests), None) => format!("{requests} requests"),
        (None, Some(duration_s)) => format!("{duration_s} s"),
        (None, None) => "to the end".to_owned(),
    };
    let load = arrivals(&scenario.arrivals);
    writeln!(to, "load        {load}, {end}, {} requests before to warm up", requests.warmup)?;
    let shared = match &scenario.prompts {
        Prompts::Synthetic { shared_prefix_tokens, .. } => *shared_prefix_tokens,
        Prompts::Conversation { .. } | Prompts::File { .. } => 0,
    };
    match report.prompt_basis {
        PromptBasis::Counted { sample_tokens } => {
            writeln!(to, "prompts     {sample_tokens} tokens as the target counts, {shared} of them shared")?;
        }
        PromptBasis::Estimated => {
            let tokens = prompt_tokens(&scenario.prompts);
            writeln!(to, "prompts     about {tokens} tokens, estimated, {shared} of them shared")?;
        }
        PromptBasis::File { prompts } => writeln!(to, "prompts     {prompts} from a file")?,
    }
    let answers = &scenario.answers;
    let streamed = match answers.streamed {
        1.0 => "streamed".to_owned(),
        0.0 => "whole".to_owned(),
        share => format!("{} of 100 streamed", share * 100.0),
    };
    let eos = if answers.ignore_eos { ", past the end of sequence" } else { "" };
    let max_tokens = length(answers.max_tokens);
    writeln!(to, "answers     at most {max_tokens} tokens{eos}, {streamed}, seed {}", scenario.seed)?;
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

fn arrivals(arrivals: &Arrivals) -> String {
    match arrivals {
        Arrivals::ClosedLoop { users, think_time_s } if *think_time_s > 0.0 => {
            format!("closed loop, {users} users who think for {think_time_s} s")
        }
        Arrivals::ClosedLoop { users, .. } => format!("closed loop, {users} users"),
        Arrivals::Constant { rate } => format!("constant, {rate} requests/s"),
        Arrivals::Poisson { rate } => format!("poisson, {rate} requests/s"),
        Arrivals::Gamma { rate, cv } => format!("gamma, {rate} requests/s, variation {cv}"),
        Arrivals::Ramp { from, to } => format!("ramp, {from} to {to} requests/s"),
        Arrivals::Steps { steps } => format!("{} steps", steps.len()),
        Arrivals::Trace { path, speed } => format!("trace {} at {speed} times its speed", path.display()),
    }
}

fn prompt_tokens(prompts: &Prompts) -> String {
    match prompts {
        Prompts::Synthetic { tokens, .. } | Prompts::Conversation { tokens, .. } => length(*tokens),
        Prompts::File { .. } => "an unknown number of".to_owned(),
    }
}

fn length(length: Length) -> String {
    match length {
        Length::Fixed(tokens) => tokens.to_string(),
        Length::Uniform { min, max } => format!("{min} to {max}"),
        Length::LogNormal { median, max, .. } => format!("{median} in the median and {max} at most"),
    }
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
