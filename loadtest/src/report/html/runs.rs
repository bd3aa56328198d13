//! Several runs on one page, such as a sweep over rates.

use std::collections::BTreeMap;

use super::tables::number;
use super::{Figure, add, describe, figures, title};
use crate::plot::{Axis, Dot, Kind, Look, Plot, Threshold, escape};
use crate::report::Report;
use crate::scenario::Arrivals;

/// A run's place on the axis of load.
fn load(report: &Report) -> Option<f64> {
    match &report.scenario.arrivals {
        Arrivals::Constant { rate } | Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } => {
            Some(*rate)
        }
        Arrivals::ClosedLoop { users, .. } => Some(f64::from(*users)),
        _ => report.rates.offered_per_s,
    }
}

pub(super) fn several(reports: &[Report]) -> String {
    let first = &reports[0];
    let mut page = format!("<h1>{}</h1>\n", escape(&title(first)));
    add(
        &mut page,
        format_args!(
            "<p class=\"soft\">{} · model {} · {} runs · prompts: {} · answers: {} · targets: {}</p>\n",
            escape(&first.target),
            escape(&first.model),
            reports.len(),
            escape(&describe::prompts(first)),
            escape(&describe::answers(&first.scenario.answers)),
            escape(&describe::targets(&first.scenario.targets))
        ),
    );
    let invalid = reports.iter().filter(|report| !report.valid).count();
    if invalid > 0 {
        add(
            &mut page,
            format_args!(
                "<div class=\"banner\"><b>INVALID</b><p>{invalid} of {} runs: the tester did not keep its schedule. They \
                 are hollow in the plots.</p></div>\n",
                reports.len()
            ),
        );
    }
    page += &figures("Latency and throughput", &plots(reports));
    page += &table(reports);
    page
}

fn plots(reports: &[Report]) -> Vec<Figure> {
    let closed = reports.iter().all(|report| matches!(report.scenario.arrivals, Arrivals::ClosedLoop { .. }));
    let (by, load_label) = if closed { ("users", "users") } else { ("rate", "requests/s offered") };
    let ttft_target = reports[0].scenario.targets.ttft_ms;

    let y = Axis::new("milliseconds", Kind::Log);
    let mut ttft =
        Plot::new(&format!("Time to first token against {by}"), Axis::new(load_label, Kind::Linear), y);
    curve(&mut ttft, reports, 0, "p50, from schedule", load, |report| report.figure("ttft_p50_ms"));
    curve(&mut ttft, reports, 1, "p99, from schedule", load, |report| report.figure("ttft_p99_ms"));
    ttft.thresholds
        .extend(ttft_target.map(|value| Threshold { value, label: format!("TTFT target {value} ms") }));

    let (x, y) = (Axis::new("output tokens/s", Kind::Linear), Axis::new("milliseconds", Kind::Log));
    let mut traded = Plot::new("Throughput against latency", x, y);
    let tokens = |report: &Report| Some(report.throughput.output_tokens_per_s);
    curve(&mut traded, reports, 1, "TTFT p99, from schedule", tokens, |report| report.figure("ttft_p99_ms"));
    curve(&mut traded, reports, 2, "inter-token p99", tokens, |report| report.figure("inter_token_p99_ms"));

    let (x, y) = (Axis::new(load_label, Kind::Linear), Axis::new("% of requests offered", Kind::Linear));
    let mut good = Plot::new(&format!("Goodput against {by}"), x, y);
    curve(&mut good, reports, 2, "met all targets", load, |report| {
        report.goodput.share.map(|share| 100.0 * share)
    });

    let (x, y) = (Axis::new(load_label, Kind::Linear), Axis::new("tokens/s", Kind::Linear));
    let mut throughput = Plot::new(&format!("Throughput against {by}"), x, y);
    curve(&mut throughput, reports, 0, "output tokens", load, tokens);

    let repeats = "A dot a run; the line goes through the median of repeats.";
    vec![
        Figure::new(ttft, repeats),
        Figure::new(
            traded,
            "A dot a run, in the order of load: where the line turns up, more load brings only waiting.",
        ),
        Figure::new(good, repeats),
        Figure::new(throughput, repeats),
    ]
}

/// A dot for each run, and a line through the medians of runs with equal load, in the order of load.
fn curve(
    plot: &mut Plot,
    reports: &[Report],
    colour: usize,
    name: &str,
    x: impl Fn(&Report) -> Option<f64>,
    y: impl Fn(&Report) -> Option<f64>,
) {
    let mut by_load: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for report in reports {
        let (Some(load), Some(x), Some(y)) = (load(report), x(report), y(report)) else { continue };
        // Rates are positive, so their bits are in their order.
        by_load.entry(load.to_bits()).or_default().push((x, y));
        plot.dots.push(Dot {
            at: (x, y),
            colour,
            hollow: !report.valid,
            title: format!("{}: {name} {}", describe::load(&report.scenario), number(y)),
        });
    }
    let medians = by_load.into_values().map(|mut points| {
        points.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
        let (x, y) = points[points.len() / 2];
        (x, Some(y))
    });
    plot.line(name, Look { colour, dashed: false, faint: true }, medians);
}

fn table(reports: &[Report]) -> String {
    const COLUMNS: [(&str, &str); 9] = [
        ("offered_per_s", "offered/s"),
        ("achieved_per_s", "sent/s"),
        ("ttft_p50_ms", "TTFT p50 ms"),
        ("ttft_p99_ms", "TTFT p99 ms"),
        ("sent.ttft_p99_ms", "TTFT p99 ms, from sending"),
        ("inter_token_p99_ms", "inter-token p99 ms"),
        ("output_tokens_per_s", "tokens/s"),
        ("goodput", "goodput"),
        ("error_share", "errors"),
    ];
    let heads: String = COLUMNS.iter().map(|(_, head)| format!("<th>{head}</th>")).collect();
    let mut rows = String::new();
    for report in reports {
        let row = if report.valid { "<tr>" } else { "<tr class=\"bad\">" };
        add(
            &mut rows,
            format_args!("{row}<td class=\"text\">{}</td>", escape(&describe::load(&report.scenario))),
        );
        for (name, _) in COLUMNS {
            add(
                &mut rows,
                format_args!("<td>{}</td>", report.figure(name).map_or_else(|| "–".to_owned(), number)),
            );
        }
        let valid = if report.valid { "valid" } else { "INVALID" };
        add(
            &mut rows,
            format_args!(
                "<td>{valid}</td><td class=\"text\" title=\"{}\">{}</td></tr>\n",
                escape(&report.verdict),
                report.limits.first().map_or("", |finding| finding.limit.name())
            ),
        );
    }
    format!(
        "<h2>Runs</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"text\">load</th>{heads}<th></th>\
         <th class=\"text\">limit</th></tr>\n{rows}</table></div>\n"
    )
}
