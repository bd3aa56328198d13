//! The plots of one run.

use hdrhistogram::Histogram;

use super::Figure;
use crate::metrics::{Bucket, Moment, Timeline, counts};
use crate::plot::{Axis, Kind, Look, MINUTES_FROM_S, Plot, Threshold};
use crate::report::Report;
use crate::scrape::{names, rates};

/// From this ratio of the largest to the least on, latencies are drawn in factors: the small would be a flat line.
const LOG_FROM_RATIO: f64 = 20.0;
/// Gaps below this many microseconds are drawn by none: what came in one read came in one moment.
const MOMENT_US: u64 = 10;
/// Distributions are drawn from this share on.
const LEAST_SHARE: f64 = 0.01;
/// The most points of a line over time: about one to two pixels.
const POINTS_MAX: usize = 300;

pub(super) const fn solid(colour: usize) -> Look {
    Look { colour, dashed: false, faint: false }
}

const fn dashed(colour: usize) -> Look {
    Look { colour, dashed: true, faint: false }
}

/// A series that was read, as means of as many values as it takes to be no finer than [`POINTS_MAX`].
fn known(series: Vec<(f64, f64)>) -> Vec<(f64, Option<f64>)> {
    let mean = |values: &[(f64, f64)]| {
        let (times, sum) =
            values.iter().fold((0.0, 0.0), |(times, sum), (at_s, value)| (times + at_s, sum + value));
        let count = values.len() as f64;
        (times / count, Some(sum / count))
    };
    series.chunks(series.len().div_ceil(POINTS_MAX).max(1)).map(mean).collect()
}

/// The plots over time share what they are drawn from: a timeline and series that are no finer than a reader can see.
struct OverTime<'a> {
    report: &'a Report,
    timeline: Timeline,
}

pub(super) fn over_time(report: &Report) -> Vec<Figure> {
    let over_time = OverTime { report, timeline: report.timeline.coarser(POINTS_MAX) };
    vec![
        over_time.latency(),
        over_time.requests(),
        over_time.queues(),
        over_time.tokens(),
        over_time.occupancy(),
        over_time.cpu(),
    ]
}

impl OverTime<'_> {
    fn plot(&self, title: &str, y: Axis) -> Plot {
        let end_s = self.timeline.buckets().len() as f64 * self.timeline.width_s() as f64;
        let unit = if end_s < MINUTES_FROM_S { "seconds" } else { "minutes:seconds" };
        let width = match self.timeline.width_s() {
            1 => String::new(),
            width_s => format!(", {width_s} s a point"),
        };
        let x = Axis::new(&format!("{unit} since the run's start{width}"), Kind::Time);
        Plot::new(title, x, y)
    }

    /// A timeline's values, each in the middle of its stretch.
    fn series<'a>(
        &'a self,
        value: impl Fn(Moment<'a>) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = (f64, Option<f64>)> + 'a {
        let middle = self.timeline.width_s() as f64 / 2.0;
        self.timeline.moments().map(move |moment| (moment.at_s as f64 + middle, value(moment)))
    }

    fn a_second(&self, count: fn(&Bucket) -> u64) -> impl Iterator<Item = (f64, Option<f64>)> {
        let width_s = self.timeline.width_s() as f64;
        self.series(move |moment| Some(count(moment.bucket) as f64 / width_s))
    }

    fn latency(&self) -> Figure {
        let moments = || self.timeline.moments();
        let values =
            moments().flat_map(|moment| [moment.ttft_p50_ms, moment.ttft_p99_ms, moment.inter_token_p99_ms]);
        let positive = values.flatten().filter(|ms| *ms > 0.0);
        let (least, most) =
            positive.fold((f64::INFINITY, 0.0_f64), |(least, most), ms| (least.min(ms), most.max(ms)));
        let kind = if most >= LOG_FROM_RATIO * least { Kind::Log } else { Kind::Linear };
        let mut plot = self.plot("Latency over time", Axis::new("milliseconds", kind));
        plot.line("TTFT p50, from schedule", solid(0), self.series(|moment| moment.ttft_p50_ms));
        plot.line("TTFT p99, from schedule", solid(1), self.series(|moment| moment.ttft_p99_ms));
        plot.line("inter-token p99", solid(2), self.series(|moment| moment.inter_token_p99_ms));
        plot.thresholds = ttft_target(self.report);
        Figure::new(
            plot,
            "TTFT of the requests that became due at that time; gaps between tokens that ended at it.",
        )
    }

    fn requests(&self) -> Figure {
        let mut plot = self.plot("Requests a second", Axis::new("requests/s", Kind::Linear));
        plot.line("offered", dashed(5), self.a_second(|bucket| bucket.offered));
        plot.line("completed", solid(0), self.a_second(|bucket| bucket.completed));
        if self.report.goodput.requests < self.report.requests.succeeded {
            plot.line("completed and good", solid(2), self.a_second(|bucket| bucket.good));
        }
        if self.report.requests.failed > 0 {
            plot.line("failed", solid(4), self.a_second(|bucket| bucket.failed));
        }
        if self.report.requests.unsent > 0 {
            plot.line("never sent", solid(3), self.a_second(|bucket| bucket.unsent));
        }
        Figure::new(plot, "Offered when they were due, completed or failed when they ended.")
    }

    fn queues(&self) -> Figure {
        let read = &self.report.target_metrics;
        let mut plot = self.plot("In flight and in queues", Axis::new("requests", Kind::Linear));
        let width_s = self.timeline.width_s() as f64;
        let in_flight = self.timeline.moments();
        let in_flight = in_flight.map(|moment| (moment.at_s as f64 + width_s, Some(moment.in_flight as f64)));
        plot.line("in flight, as the tester sees", dashed(5), in_flight);
        plot.line("running in the target's batches", solid(0), known(read.sum(names::RUNNING)));
        plot.line("waiting in the target's workers", solid(1), known(read.sum(names::WAITING)));
        plot.line("waiting in the gateway", solid(3), known(read.sum(names::GATEWAY_QUEUE)));
        let told = plot.lines.len() > 1;
        let caption = "All servers that could be read, together, once a second.";
        Figure::new(plot, if told { caption } else { "The target's /metrics told nothing of its queues." })
    }

    fn tokens(&self) -> Figure {
        let mut plot = self.plot("Output tokens a second", Axis::new("tokens/s", Kind::Linear));
        plot.line("output tokens", solid(0), self.a_second(|bucket| bucket.output_tokens));
        Figure::new(plot, "When they came, of requests that succeeded in the end.")
    }

    fn occupancy(&self) -> Figure {
        let read = &self.report.target_metrics;
        let mut plot = self.plot("KV cache", Axis::new("% of blocks in use", Kind::Linear));
        let percent = |(at_s, share): (f64, Option<f64>)| (at_s, share.map(|share| 100.0 * share));
        plot.line("fullest worker", solid(0), known(read.max(names::KV_USAGE)).into_iter().map(percent));
        let preemptions = read.growth(names::PREEMPTIONS).unwrap_or(0.0);
        Figure::new(plot, &format!("{preemptions:.0} requests lost their blocks to others during the run."))
    }

    fn cpu(&self) -> Figure {
        let read = &self.report.target_metrics;
        let mut plot = self.plot("CPU", Axis::new("CPUs in use", Kind::Linear));
        plot.line("servers", solid(0), known(read.rate(names::CPU)));
        plot.line("tester", dashed(5), known(rates(&read.of_tester(names::CPU))));
        plot.line(
            "all programs of the machine",
            dashed(1),
            known(rates(&read.of_tester(names::MACHINE_CPU))),
        );
        if let Some(cores) = read.cores {
            let label = format!("{cores} CPUs of the machine");
            plot.thresholds.push(Threshold { value: f64::from(cores), label });
        }
        Figure::new(
            plot,
            "Servers as far as their /metrics tell; what the machine has beyond them and the tester goes to other programs.",
        )
    }
}

fn ttft_target(report: &Report) -> Vec<Threshold> {
    let target = report.scenario.targets.ttft_ms;
    target.map(|value| Threshold { value, label: format!("TTFT target {value} ms") }).into_iter().collect()
}

pub(super) fn distributions(report: &Report) -> Vec<Figure> {
    vec![
        by_percentile(
            "Time to first token by percentile",
            report,
            [
                ("from schedule", solid(1), &report.histograms.scheduled_ttft),
                ("from sending", dashed(0), &report.histograms.sent_ttft),
            ],
        ),
        by_percentile(
            "End-to-end latency by percentile",
            report,
            [
                ("from schedule", solid(1), &report.histograms.scheduled_e2e),
                ("from sending", dashed(0), &report.histograms.sent_e2e),
            ],
        ),
        between_tokens(report),
        tokens_by_percentile(report),
    ]
}

fn by_percentile(title: &str, report: &Report, lines: [(&str, Look, &Histogram<u64>); 2]) -> Figure {
    let kind = kind_for(&lines.map(|(_, _, histogram)| histogram));
    let mut plot = Plot::new(title, Axis::new("percentile", Kind::Tail), Axis::new("milliseconds", kind));
    for (name, look, histogram) in lines {
        plot.line(name, look, percentiles(histogram));
    }
    if title.starts_with("Time") {
        plot.thresholds = ttft_target(report);
    }
    Figure::new(
        plot,
        "So many of 100 requests took no longer. Where the two lines part, requests were sent late.",
    )
}

/// Factors where the values span many of them.
pub(super) fn kind_for(histograms: &[&Histogram<u64>]) -> Kind {
    let measured = histograms.iter().filter(|histogram| !histogram.is_empty());
    let least = |histogram: &Histogram<u64>| histogram.value_at_quantile(LEAST_SHARE).max(MOMENT_US) as f64;
    let ratios = measured.map(|histogram| histogram.max() as f64 / least(histogram));
    if ratios.fold(0.0, f64::max) >= LOG_FROM_RATIO { Kind::Log } else { Kind::Linear }
}

/// Points along the percentile axis, denser towards the tail, as far as there are values to tell it. The least hundredth
/// is left out: one gap of a microsecond would stretch the axis and say nothing.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> Vec<(f64, Option<f64>)> {
    const STEPS: u32 = 120;
    if histogram.is_empty() {
        return Vec::new();
    }
    let value = |us: u64| (us >= MOMENT_US).then(|| us as f64 / 1e3);
    let tail_max = (histogram.len() as f64).log10().clamp(0.3, 5.0);
    let shares = (0..=STEPS).map(|step| 1.0 - 10_f64.powf(-tail_max * f64::from(step) / f64::from(STEPS)));
    shares
        .map(|share: f64| share.max(LEAST_SHARE))
        .map(|share| (share, value(histogram.value_at_quantile(share))))
        .collect()
}

/// The share of gaps that are no longer, over their length.
fn between_tokens(report: &Report) -> Figure {
    let x = Axis::new("milliseconds", Kind::Log);
    let mut plot = Plot::new("Gaps between tokens", x, Axis::new("% that are no longer", Kind::Linear));
    plot.line("inter-token", solid(0), cumulated(&report.histograms.inter_token));
    plot.line("inter-chunk", dashed(1), cumulated(&report.histograms.inter_chunk));
    let in_no_time = report.histograms.inter_token.count_between(0, MOMENT_US - 1);
    let share = 100.0 * in_no_time as f64 / report.histograms.inter_token.len().max(1) as f64;
    Figure::new(
        plot,
        &format!(
            "{share:.1}% of the gaps between tokens are nothing: tokens that came in the same moment as the one before."
        ),
    )
}

fn cumulated(histogram: &Histogram<u64>) -> Vec<(f64, Option<f64>)> {
    const POINTS_MAX: usize = 400;
    let mut seen = 0;
    let percent = |seen: u64| 100.0 * seen as f64 / histogram.len().max(1) as f64;
    let points: Vec<(f64, f64)> = counts(histogram)
        .map(|(value_us, count)| {
            seen += count;
            (value_us as f64 / 1e3, percent(seen))
        })
        .filter(|(ms, percent)| *ms * 1e3 >= MOMENT_US as f64 && *percent >= 100.0 * LEAST_SHARE)
        .collect();
    let every = points.len().div_ceil(POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate().filter(|(index, _)| index % every == 0 || *index == last);
    kept.map(|(_, (ms, percent))| (ms, Some(percent))).collect()
}

fn tokens_by_percentile(report: &Report) -> Figure {
    let kind = kind_for(&[&report.histograms.inter_token, &report.histograms.tpot]);
    let (x, y) = (Axis::new("percentile", Kind::Tail), Axis::new("milliseconds", kind));
    let mut plot = Plot::new("Times between tokens by percentile", x, y);
    plot.line("inter-token, a value a gap", solid(0), percentiles(&report.histograms.inter_token));
    plot.line("TPOT, a value a request", dashed(3), percentiles(&report.histograms.tpot));
    if let Some(value) = report.scenario.targets.tpot_ms {
        plot.thresholds.push(Threshold { value, label: format!("TPOT target {value} ms") });
    }
    Figure::new(plot, "A stall is one long gap among many: it shows in the tail of gaps, and hardly in TPOT.")
}
