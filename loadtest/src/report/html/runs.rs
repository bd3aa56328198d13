//! Several runs on one page: those of a search, of a sweep, or any.

use std::collections::BTreeMap;

use super::tables::number;
use super::{Figure, add, describe, document, figures, title};
use crate::plot::{Axis, Dot, Kind, Look, Plot, Threshold, escape};
use crate::report::Report;
use crate::scenario::Arrivals;

/// From this ratio of the largest to the least on, what varies is drawn in factors.
const LOG_FROM_RATIO: f64 = 16.0;

/// Runs side by side, and what varies between them.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    /// The page's.
    pub(crate) title: String,
    /// What came of them, in a sentence; empty for nothing to say.
    pub(crate) verdict: String,
    /// What varies, as in "against rate".
    pub(crate) by: String,
    /// The same on an axis, with its unit.
    pub(crate) axis: String,
    /// A figure's bound, such as `ttft_p99_ms`, and 500: drawn where the figure is.
    pub(crate) bounds: Vec<(String, f64)>,
    /// A table between the plots and the runs.
    pub(crate) table: String,
    /// In their order.
    pub(crate) runs: Vec<Run<'a>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) report: &'a Report,
    /// Its value of what varies, where that is a number.
    pub(crate) x: Option<f64>,
    /// The value in words.
    pub(crate) label: String,
    /// Its own page, from where this page lies.
    pub(crate) page: Option<String>,
}

impl<'a> Runs<'a> {
    /// Runs of one scenario at several loads.
    pub(super) fn by_load(reports: &'a [Report]) -> Self {
        let is_closed = |report: &Report| matches!(report.scenario.arrivals, Arrivals::ClosedLoop { .. });
        let closed = reports.iter().all(is_closed);
        let (by, axis) = if closed { ("users", "users") } else { ("rate", "requests/s offered") };
        let run =
            |report| Run { report, x: load(report), label: describe::load(&report.scenario), page: None };
        Self {
            title: reports.first().map(title).unwrap_or_default(),
            verdict: String::new(),
            by: by.to_owned(),
            axis: axis.to_owned(),
            bounds: Vec::new(),
            table: String::new(),
            runs: reports.iter().map(run).collect(),
        }
    }

    /// The whole page.
    pub(crate) fn page(&self) -> String {
        document(&self.title, &self.body())
    }

    fn body(&self) -> String {
        let mut page = format!("<h1>{}</h1>\n", escape(&self.title));
        let Some(first) = self.runs.first().map(|run| run.report) else {
            return page + "<p>No run was measured.</p>\n";
        };
        let count = self.runs.len();
        add(
            &mut page,
            format_args!(
                "<p class=\"soft\">{} · model {} · {} · prompts: {} · answers: {}{}</p>\n",
                escape(&first.target),
                escape(&first.model),
                if count == 1 { "1 run".to_owned() } else { format!("{count} runs") },
                escape(&describe::prompts(first)),
                escape(&describe::answers(&first.scenario.answers)),
                match first.scenario.targets {
                    none if none == Default::default() => String::new(),
                    targets => format!(" · targets: {}", escape(&describe::targets(&targets))),
                }
            ),
        );
        let invalid = self.runs.iter().filter(|run| !run.report.valid).count();
        if invalid > 0 {
            add(
                &mut page,
                format_args!(
                    "<div class=\"banner\"><b>INVALID</b><p>{invalid} of {count} runs: the tester did not keep its \
                     schedule. They are hollow in the plots.</p></div>\n"
                ),
            );
        }
        if !self.verdict.is_empty() {
            add(&mut page, format_args!("<p class=\"verdict\">{}</p>\n", escape(&self.verdict)));
        }
        page += &figures("Latency and throughput", &self.plots());
        page += &self.table;
        page += &self.list();
        page
    }

    fn plots(&self) -> Vec<Figure> {
        let repeats = "A dot a run; the line goes through the median of repeats.";
        let mut ttft = self.plot("Time to first token", "milliseconds", Kind::Log);
        self.curve(&mut ttft, 0, "p50, from schedule", &self.x(), |report| report.figure("ttft_p50_ms"));
        self.curve(&mut ttft, 1, "p99, from schedule", &self.x(), |report| report.figure("ttft_p99_ms"));
        if let Some(target) = self.runs.first().and_then(|run| run.report.scenario.targets.ttft_ms) {
            ttft.thresholds.push(Threshold { value: target, label: format!("TTFT target {target} ms") });
        }
        self.bound(&mut ttft, &["ttft_p50_ms", "ttft_p99_ms"]);

        let mut gaps = self.plot("Gaps between tokens", "milliseconds", Kind::Log);
        self.curve(&mut gaps, 0, "p50", &self.x(), |report| report.figure("inter_token_p50_ms"));
        self.curve(&mut gaps, 1, "p99", &self.x(), |report| report.figure("inter_token_p99_ms"));
        self.bound(&mut gaps, &["inter_token_p50_ms", "inter_token_p99_ms"]);

        let tokens = |report: &Report| Some(report.throughput.output_tokens_per_s);
        let mut throughput = self.plot("Throughput", "tokens/s", Kind::Linear);
        self.curve(&mut throughput, 0, "output tokens", &self.x(), tokens);
        self.bound(&mut throughput, &["output_tokens_per_s"]);

        let mut good = self.plot("Goodput", "% of requests offered", Kind::Linear);
        let percent = |report: &Report| report.goodput.share.map(|share| 100.0 * share);
        self.curve(&mut good, 2, "met all targets", &self.x(), percent);

        let (x, y) = (Axis::new("output tokens/s", Kind::Linear), Axis::new("milliseconds", Kind::Log));
        let mut traded = Plot::new("Throughput against latency", x, y);
        self.curve(&mut traded, 1, "TTFT p99, from schedule", &tokens, |report| report.figure("ttft_p99_ms"));
        self.curve(&mut traded, 2, "inter-token p99", &tokens, |report| report.figure("inter_token_p99_ms"));

        let mut plots = vec![Figure::new(ttft, repeats), Figure::new(gaps, repeats)];
        plots.push(Figure::new(
            traded,
            &format!(
                "A dot a run, in the order of {}: where the line turns up, more load brings only waiting.",
                self.by
            ),
        ));
        plots.push(Figure::new(throughput, repeats));
        let has_targets = self.runs.iter().any(|run| run.report.scenario.targets != Default::default());
        if has_targets || self.runs.iter().any(|run| run.report.requests.failed > 0) {
            plots.push(Figure::new(good, repeats));
        }
        plots.extend(self.bounded().map(|plot| Figure::new(plot, repeats)));
        plots
    }

    /// Plots of bounded figures that no other plot shows.
    fn bounded(&self) -> impl Iterator<Item = Plot> {
        const SHOWN: [&str; 7] = [
            "ttft_p50_ms",
            "ttft_p99_ms",
            "inter_token_p50_ms",
            "inter_token_p99_ms",
            "output_tokens_per_s",
            "goodput",
            "error_share",
        ];
        let others = self.bounds.iter().filter(|(figure, _)| !SHOWN.contains(&figure.as_str()));
        others.map(|(figure, _)| {
            let unit = if figure.ends_with("_ms") { "milliseconds" } else { figure.as_str() };
            let mut plot = self.plot(figure, unit, Kind::Linear);
            self.curve(&mut plot, 3, figure, &self.x(), |report| report.figure(figure));
            self.bound(&mut plot, &[figure.as_str()]);
            plot
        })
    }

    /// What varies lies on the x axis.
    fn plot(&self, what: &str, unit: &str, kind: Kind) -> Plot {
        let values = self.runs.iter().filter_map(|run| run.x);
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let of_factors = least > 0.0 && most >= LOG_FROM_RATIO * least;
        let x = Axis::new(&self.axis, if of_factors { Kind::Log } else { Kind::Linear });
        Plot::new(&format!("{what} against {}", self.by), x, Axis::new(unit, kind))
    }

    fn x(&self) -> impl Fn(&Report) -> Option<f64> {
        |report| self.runs.iter().find(|run| std::ptr::eq(run.report, report)).and_then(|run| run.x)
    }

    fn bound(&self, plot: &mut Plot, figures: &[&str]) {
        let within = self.bounds.iter().filter(|(figure, _)| figures.contains(&figure.as_str()));
        plot.thresholds.extend(within.map(|(figure, value)| Threshold {
            value: *value,
            label: format!("{figure}: {}", number(*value)),
        }));
    }

    /// A dot for each run, and a line through the medians of runs with the same value of what varies, in its order.
    fn curve(
        &self,
        plot: &mut Plot,
        colour: usize,
        name: &str,
        x: &dyn Fn(&Report) -> Option<f64>,
        y: impl Fn(&Report) -> Option<f64>,
    ) {
        let mut by_value: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        for run in &self.runs {
            let (Some(value), Some(x), Some(y)) = (run.x, x(run.report), y(run.report)) else { continue };
            // Bits of numbers that are not negative are in their order.
            by_value.entry(value.max(0.0).to_bits()).or_default().push((x, y));
            plot.dots.push(Dot {
                at: (x, y),
                colour,
                hollow: !run.report.valid,
                title: format!("{}: {name} {}", run.label, number(y)),
            });
        }
        let medians = by_value.into_values().filter_map(median).map(|(x, y)| (x, Some(y)));
        plot.line(name, Look { colour, dashed: false, faint: true }, medians);
    }

    /// The table of runs.
    fn list(&self) -> String {
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
        for run in &self.runs {
            let row = if run.report.valid { "<tr>" } else { "<tr class=\"bad\">" };
            let label = escape(&run.label);
            let label = match &run.page {
                Some(page) => format!("<a href=\"{}\">{label}</a>", escape(page)),
                None => label,
            };
            add(&mut rows, format_args!("{row}<td class=\"text\">{label}</td>"));
            // In a closed loop the server sets the rate: none was offered.
            let is_closed = matches!(run.report.scenario.arrivals, Arrivals::ClosedLoop { .. });
            for (name, _) in COLUMNS {
                let is_rate = ["offered_per_s", "achieved_per_s"].contains(&name);
                let value = run.report.figure(name).filter(|_| !(is_closed && is_rate));
                let value = value.map_or_else(|| "–".to_owned(), number);
                add(&mut rows, format_args!("<td>{value}</td>"));
            }
            add(
                &mut rows,
                format_args!(
                    "<td>{}</td><td class=\"text\" title=\"{}\">{}</td></tr>\n",
                    if run.report.valid { "valid" } else { "INVALID" },
                    escape(&run.report.verdict),
                    run.report.limits.first().map_or("", |finding| finding.limit.name())
                ),
            );
        }
        format!(
            "<h2>Runs</h2>\n<div class=\"scroll\"><table>\n<tr><th class=\"text\">{}</th>{heads}<th></th>\
             <th class=\"text\">limit</th></tr>\n{rows}</table></div>\n",
            escape(&self.by)
        )
    }
}

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

/// The point in the middle by its second number; of an even number of points, what lies between the two in the middle.
pub(super) fn median(mut points: Vec<(f64, f64)>) -> Option<(f64, f64)> {
    points.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    let (low, high) = (points.get(points.len().checked_sub(1)? / 2)?, points.get(points.len() / 2)?);
    Some((f64::midpoint(low.0, high.0), f64::midpoint(low.1, high.1)))
}
