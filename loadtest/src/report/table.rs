//! The table for people.

use std::io::{Result, Write};

use super::{Figures, Report, describe};

const STATISTICS: [&str; 6] = ["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"];

pub(super) fn write(report: &Report, mut to: impl Write) -> Result<()> {
    let to = &mut to;
    head(report, to)?;
    outcome(report, to)?;
    anchored(report, to)?;
    others(report, to)?;
    tail(report, to)
}

fn head(report: &Report, to: &mut impl Write) -> Result<()> {
    let (scenario, requests) = (&report.scenario, &report.requests);
    if !scenario.question.is_empty() {
        writeln!(to, "question    {}", scenario.question)?;
    }
    writeln!(to, "target      {}, model {}", report.target, report.model)?;
    write!(to, "load        {}", describe::load(scenario))?;
    match report.processes {
        1 => write!(to, "")?,
        processes => write!(to, ", sent by {processes} processes")?,
    }
    writeln!(to, ", {} requests before to warm up", requests.warmup)?;
    writeln!(to, "prompts     {}", describe::prompts(report))?;
    writeln!(to, "answers     {}, seed {}", describe::answers(&scenario.answers), scenario.seed)?;
    write!(to, "outcome     {} succeeded, {} failed", requests.succeeded, requests.failed)?;
    if requests.unsent > 0 {
        write!(to, ", {} never sent", requests.unsent)?;
    }
    if report.interrupted {
        write!(to, ", {} abandoned: INTERRUPTED", requests.abandoned)?;
    }
    writeln!(to)?;
    for (reason, count) in &report.finish_reasons {
        writeln!(to, "            {count} ended by {reason}")?;
    }
    report.invalid_reasons.iter().try_for_each(|reason| writeln!(to, "INVALID     {reason}"))
}

fn outcome(report: &Report, to: &mut impl Write) -> Result<()> {
    let (throughput, tokens, goodput) = (&report.throughput, &report.tokens, &report.goodput);
    if let (Some(offered), Some(achieved)) = (report.rates.offered_per_s, report.rates.achieved_per_s) {
        writeln!(to, "rate        {offered:.2} requests/s due, {achieved:.2} sent")?;
    }
    writeln!(
        to,
        "throughput  {:.2} requests/s, {:.1} output tokens/s, {:.1} prompt tokens/s over {:.2} s",
        throughput.requests_per_s,
        throughput.output_tokens_per_s,
        throughput.prompt_tokens_per_s,
        report.span_s
    )?;
    let share = goodput.share.map_or_else(|| "-".into(), |share| format!("{:.1}%", 100.0 * share));
    writeln!(
        to,
        "goodput     {share} of requests offered, {:.2}/s; targets: {}",
        goodput.per_s,
        describe::targets(&report.scenario.targets)
    )?;
    match (report.usd_per_million_good_tokens, report.scenario.usd_per_hour) {
        (Some(usd), _) => writeln!(to, "cost        ${usd:.2} a million tokens of good requests")?,
        (None, Some(_)) => writeln!(to, "cost        no price: no request was good")?,
        (None, None) => {}
    }
    writeln!(
        to,
        "tokens      {} output, {} prompt, {} of them from a prefix cache",
        tokens.output, tokens.prompt, tokens.prompt_cached
    )?;
    let cache = report.cache;
    if cache.known() > 0 {
        writeln!(
            to,
            "cache       {} hits, {} misses, {} coalesced, {} bypassed",
            cache.hit, cache.miss, cache.coalesced, cache.bypass
        )?;
    }
    writeln!(to, "limit       {}\n", report.verdict)
}

/// Latencies from schedule and from sending, side by side.
fn anchored(report: &Report, to: &mut impl Write) -> Result<()> {
    const COLUMNS: [&str; 4] = ["p50_ms", "p90_ms", "p99_ms", "max_ms"];
    writeln!(to, "{:<31}{:^40}|{:^40}", "milliseconds", "from schedule", "from sending")?;
    write!(to, "{:<31}", "")?;
    let names = COLUMNS.map(|column| format!("{:>10}", column.trim_end_matches("_ms"))).concat();
    writeln!(to, "{names}|{names}")?;
    for (label, name) in [("time to first token", "ttft"), ("end-to-end latency", "e2e")] {
        let cells = |figures: &Figures| COLUMNS.map(|column| cell(figures, name, column)).concat();
        writeln!(to, "{label:<31}{}|{}", cells(&report.scheduled), cells(&report.sent))?;
    }
    writeln!(to)
}

fn others(report: &Report, to: &mut impl Write) -> Result<()> {
    write!(to, "{:<31}{:>10}", "milliseconds", "count")?;
    for statistic in STATISTICS {
        write!(to, "{:>10}", statistic.trim_end_matches("_ms"))?;
    }
    writeln!(to)?;
    let rows = [
        ("time per output token", "tpot", &report.between_tokens),
        ("inter-token latency", "inter_token", &report.between_tokens),
        ("inter-chunk latency", "inter_chunk", &report.between_tokens),
        ("dispatch delay (tester's own)", "dispatch_delay", &report.tester),
    ];
    for (label, name, figures) in rows {
        let count = figures.get(&format!("{name}_count")).copied().flatten().unwrap_or(0.0);
        let cells = STATISTICS.map(|statistic| cell(figures, name, statistic)).concat();
        writeln!(to, "{label:<31}{count:>10.0}{cells}")?;
    }
    Ok(())
}

fn cell(figures: &Figures, name: &str, statistic: &str) -> String {
    match figures.get(&format!("{name}_{statistic}")).copied().flatten() {
        Some(ms) => format!("{ms:>10.3}"),
        None => format!("{:>10}", "-"),
    }
}

fn tail(report: &Report, to: &mut impl Write) -> Result<()> {
    if !report.errors.is_empty() {
        writeln!(to, "\nerrors")?;
    }
    for error in &report.errors {
        writeln!(to, "{:>8}  {}: {}", error.count, error.kind, error.example)?;
    }
    if !report.events.is_empty() {
        writeln!(to, "\nevents")?;
    }
    for event in &report.events {
        let error = event.error.as_ref().map_or_else(String::new, |error| format!(" FAILED: {error}"));
        writeln!(to, "{:>6.1} s  {}{error}", event.at_s, event.what)?;
    }
    if !report.notes.is_empty() {
        writeln!(to, "\nnotes")?;
    }
    report.notes.iter().try_for_each(|note| writeln!(to, "  {note}"))
}
