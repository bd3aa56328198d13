//! The tables of one run.

use super::add;
use crate::plot::escape;
use crate::report::figures::{ANCHORED, BETWEEN_TOKENS, SINGLES, TESTER};
use crate::report::{Definition, Figures, Report};

/// What most readers look for.
pub(super) fn tiles(report: &Report) -> String {
    let ms =
        |name: &str| report.figure(name).map_or_else(|| "–".to_owned(), |ms| format!("{} ms", number(ms)));
    let percent =
        |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{:.1}%", 100.0 * share));
    let mut tiles = vec![
        (ms("ttft_p50_ms"), "TTFT p50, from schedule".to_owned()),
        (ms("ttft_p99_ms"), "TTFT p99, from schedule".to_owned()),
        (ms("inter_token_p99_ms"), "inter-token p99".to_owned()),
        (format!("{}/s", number(report.throughput.output_tokens_per_s)), "output tokens".to_owned()),
        (format!("{}/s", number(report.throughput.requests_per_s)), "requests that succeeded".to_owned()),
        (percent(report.goodput.share), "goodput: met all targets".to_owned()),
        (percent(report.figure("error_share")), "failed or never sent".to_owned()),
    ];
    if let Some(usd) = report.usd_per_million_good_tokens {
        tiles.push((format!("${usd:.2}"), "a million good tokens".to_owned()));
    }
    let tiles: String = tiles
        .iter()
        .map(|(value, name)| {
            format!("<div class=\"tile\"><b>{value}</b><small>{}</small></div>\n", escape(name))
        })
        .collect();
    format!("<div class=\"tiles\">\n{tiles}</div>\n")
}

pub(super) fn events(report: &Report) -> String {
    if report.events.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for (index, event) in report.events.iter().enumerate() {
        let error = event.error.as_deref().map_or_else(String::new, |error| format!(" FAILED: {error}"));
        add(
            &mut rows,
            format_args!(
                "<tr><td>{}</td><td>{:.1} s</td><td class=\"text wrap\">{}{}</td></tr>\n",
                index + 1,
                event.at_s,
                escape(&event.what),
                escape(&error)
            ),
        );
    }
    format!(
        "<h2>Faults</h2>\n<div class=\"scroll\"><table><tr><th>mark</th><th>at</th><th class=\"text\">what</th></tr>\n\
         {rows}</table></div>\n"
    )
}

/// Every figure with its definition.
pub(super) fn figures(report: &Report) -> String {
    const COLUMNS: [&str; 7] = ["count", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"];
    let mut page = "<h2>Latencies in milliseconds</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"text\">figure</th>"
        .to_owned();
    for column in COLUMNS {
        add(&mut page, format_args!("<th>{}</th>", column.trim_end_matches("_ms")));
    }
    page += "<th class=\"text\">definition</th></tr>\n";
    let groups: [(&str, &Figures, &[Definition]); 4] = [
        ("scheduled.", &report.scheduled, &ANCHORED),
        ("sent.", &report.sent, &ANCHORED),
        ("", &report.between_tokens, &BETWEEN_TOKENS),
        ("", &report.tester, &TESTER),
    ];
    for (group, figures, definitions) in groups {
        for definition in definitions {
            add(&mut page, format_args!("<tr><td class=\"text\">{group}{}</td>", definition.name));
            for column in COLUMNS {
                let value = figures.get(&format!("{}_{column}", definition.name)).copied().flatten();
                add(&mut page, format_args!("<td>{}</td>", value.map_or_else(|| "–".to_owned(), number)));
            }
            add(
                &mut page,
                format_args!("<td class=\"text wrap\">{}</td></tr>\n", escape(definition.meaning)),
            );
        }
    }
    page += "</table></div>\n<h2>Other figures</h2>\n<div class=\"scroll\"><table>\n\
             <tr><th class=\"text\">figure</th><th>value</th><th class=\"text\">definition</th></tr>\n";
    for (definition, value) in SINGLES {
        let value = value(report).map_or_else(|| "–".to_owned(), number);
        add(
            &mut page,
            format_args!(
                "<tr><td class=\"text\">{}</td><td>{value}</td><td class=\"text wrap\">{}</td></tr>\n",
                definition.name,
                escape(definition.meaning)
            ),
        );
    }
    page += "</table></div>\n";
    page
}

/// Errors, finish reasons, notes, further limits.
pub(super) fn counts(report: &Report) -> String {
    let mut page = String::new();
    if !report.errors.is_empty() {
        page += "<h2>Errors</h2>\n<div class=\"scroll\"><table><tr><th class=\"text\">kind</th><th>count</th>\
                 <th class=\"text\">the first one</th></tr>\n";
        for error in &report.errors {
            add(
                &mut page,
                format_args!(
                    "<tr><td class=\"text\">{}</td><td>{}</td><td class=\"text wrap\">{}</td></tr>\n",
                    escape(&error.kind),
                    error.count,
                    escape(&error.example)
                ),
            );
        }
        page += "</table></div>\n";
    }
    let mut notes: Vec<String> = report.notes.clone();
    let reasons: Vec<String> =
        report.finish_reasons.iter().map(|(reason, count)| format!("{count} by {reason}")).collect();
    if !reasons.is_empty() {
        notes.push(format!("answers ended: {}", reasons.join(", ")));
    }
    if report.cache.known() > 0 {
        let cache = report.cache;
        notes.push(format!(
            "response cache: {} hits, {} misses, {} coalesced, {} bypassed",
            cache.hit, cache.miss, cache.coalesced, cache.bypass
        ));
    }
    let further = report.limits.iter().skip(1);
    notes.extend(
        further.map(|finding| format!("limits as well: {}: {}", finding.limit.name(), finding.evidence)),
    );
    if !notes.is_empty() {
        let notes: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
        add(&mut page, format_args!("<h2>Notes</h2>\n<ul class=\"notes\">{notes}</ul>\n"));
    }
    page
}

/// A number with as many digits as mean something.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e6 || size >= 1_000.0 {
        grouped(value.round() as i64)
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0 { format!("-{grouped}") } else { grouped }
}
