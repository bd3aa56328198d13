//! Two systems on one page.

use hdrhistogram::Histogram;

use super::plots::{kind_for, percentiles, solid};
use super::{Figure, add, describe, document, figures, with_code};
use crate::assertion::rounded;
use crate::compare::{Comparison, Row, Verdict};
use crate::plot::{Axis, Kind, Look, Plot, escape};
use crate::report::Report;

/// The colours of A and of B.
const COLOURS: [usize; 2] = [0, 1];
/// The most single runs of a side that are drawn beside their sum.
const RUNS_MAX: usize = 10;

/// A page of a comparison and the runs that it is of.
pub(crate) fn comparison(comparison: &Comparison, a: &[Report], b: &[Report]) -> String {
    let title = "Is B better than A?";
    let mut page = format!("<h1>{title}</h1>\n");
    for (side, runs) in [("A", a), ("B", b)] {
        let Some(first) = runs.first() else { continue };
        let runs = if runs.len() == 1 { "1 run".to_owned() } else { format!("{} runs", runs.len()) };
        add(
            &mut page,
            format_args!(
                "<p class=\"soft\">{side}: {} · model {} · {runs} · load: {} · prompts: {} · answers: {}</p>\n",
                escape(&first.target),
                escape(&first.model),
                escape(&describe::load(&first.scenario)),
                escape(&describe::prompts(first)),
                escape(&describe::answers(&first.scenario.answers))
            ),
        );
    }
    add(&mut page, format_args!("<p class=\"verdict\"><b>{}</b></p>\n", escape(&comparison.verdict())));
    page += &table(comparison);
    if !comparison.notes.is_empty() {
        let notes: String =
            comparison.notes.iter().map(|note| format!("<li>{}</li>", with_code(note))).collect();
        add(&mut page, format_args!("<ul class=\"notes\">{notes}</ul>\n"));
    }
    page += &figures("How latencies are distributed", &plots(a, b));
    document(title, &page)
}

fn plots(a: &[Report], b: &[Report]) -> Vec<Figure> {
    type Of = fn(&Report) -> &Histogram<u64>;
    let titles: [(&str, Of); 3] = [
        ("Time to first token by percentile, from schedule", |report| &report.histograms.scheduled_ttft),
        ("End-to-end latency by percentile, from schedule", |report| &report.histograms.scheduled_e2e),
        ("Gaps between tokens by percentile", |report| &report.histograms.inter_token),
    ];
    let counts = |report: &&Report| report.valid && !report.interrupted;
    let sides = [a, b].map(|runs| runs.iter().filter(counts).collect::<Vec<_>>());
    titles
        .into_iter()
        .map(|(title, of)| {
            let all: Vec<&Histogram<u64>> = sides.iter().flatten().map(|report| of(report)).collect();
            let y = Axis::new("milliseconds", kind_for(&all));
            let mut plot = Plot::new(title, Axis::new("percentile", Kind::Tail), y);
            for ((side, runs), colour) in ["A", "B"].into_iter().zip(&sides).zip(COLOURS) {
                let Some((first, rest)) = runs.split_first() else { continue };
                let mut sum = of(first).clone();
                // Histograms of one kind add up; one that does not is left out of the line, as its own is drawn.
                for run in rest {
                    let _ = sum.add(of(run));
                }
                if !rest.is_empty() {
                    for run in runs.iter().take(RUNS_MAX) {
                        plot.line("", Look { colour, dashed: false, faint: true }, percentiles(of(run)));
                    }
                }
                plot.line(side, solid(colour), percentiles(&sum));
            }
            Figure::new(
                plot,
                "All runs of a side together; a thin line is one of them. So many of 100 took no longer.",
            )
        })
        .collect()
}

fn table(comparison: &Comparison) -> String {
    let heads =
        ["A (mean)", "B (mean)", "B vs A", "95% interval"].map(|head| format!("<th>{head}</th>")).concat();
    let rows: String = comparison.rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table>\n<tr><th class=\"text\">figure</th>{heads}<th class=\"text\">0% in the middle, \
         ±100% at the ends</th><th class=\"text\">verdict on B</th></tr>\n{rows}</table></div>\n"
    )
}

fn row(row: &Row) -> String {
    let difference = row.difference_percent.map_or("–".into(), |percent| format!("{percent:+.1}%"));
    let interval =
        row.interval_percent.map_or("–".into(), |[low, high]| format!("{low:+.1} to {high:+.1}%"));
    let class = match row.verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifferenceShown | Verdict::CannotJudge => "soft",
    };
    format!(
        "<tr><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{difference}</td><td>{interval}</td>\
         <td class=\"text\">{}</td><td class=\"text {class}\">{}</td></tr>\n",
        escape(&row.figure),
        rounded(row.a.mean),
        rounded(row.b.mean),
        whisker(row, class),
        row.verdict
    )
}

/// The interval as a line around 0, the difference as a dot on it. What lies beyond ±100% ends at the edge, and a
/// difference that does is an arrow there.
fn whisker(row: &Row, class: &str) -> String {
    const HALF: f64 = 90.0;
    let at = |percent: f64| HALF + HALF * (percent / 100.0).clamp(-1.0, 1.0);
    let mark = |difference: f64| match difference {
        beyond if beyond > 100.0 => format!("<path class=\"{class}\" d=\"M176 3L182 8L176 13\"/>"),
        beyond if beyond < -100.0 => format!("<path class=\"{class}\" d=\"M4 3L-2 8L4 13\"/>"),
        within => format!("<circle class=\"{class}\" cx=\"{:.1}\" cy=\"8\" r=\"3.5\"/>", at(within)),
    };
    let Some(difference) = row.difference_percent else { return String::new() };
    let interval = row.interval_percent.map_or_else(String::new, |[low, high]| {
        format!("<path class=\"{class}\" d=\"M{:.1} 8H{:.1}\"/>", at(low), at(high))
    });
    format!(
        "<svg class=\"whisker\" viewBox=\"-5 0 190 16\" role=\"img\" aria-label=\"{difference:+.1}%\">\
         <path class=\"axis\" d=\"M{HALF} 0V16\"/>{interval}{}</svg>",
        mark(difference)
    )
}
