//! The view's text. Pure.

use super::Plan;
use crate::metrics::Metrics;

/// The most kinds of error that are shown.
const KINDS_MAX: usize = 4;
const BAR_WIDTH: usize = 30;

/// What is known of a run that is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) warmup_ended: u64,
    pub(super) ended: u64,
    pub(super) output_tokens_per_s: f64,
    /// From schedule: p50 and p99 in milliseconds.
    pub(super) ttft_ms: Option<(f64, f64)>,
    /// The same of whole answers, for where none are streamed.
    pub(super) e2e_ms: Option<(f64, f64)>,
    pub(super) errors: Vec<(String, u64)>,
}

impl Seen {
    pub(super) fn of(metrics: &Metrics, warmup_ended: u64) -> Self {
        let median_and_p99 = |histogram: &hdrhistogram::Histogram<u64>| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
            (!histogram.is_empty()).then(|| (ms(0.5), ms(0.99)))
        };
        let mut errors: Vec<(String, u64)> =
            metrics.failures.iter().map(|(kind, (count, _))| (kind.clone(), *count)).collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        errors.truncate(KINDS_MAX);
        Self {
            warmup_ended,
            ended: metrics.ended(),
            output_tokens_per_s: metrics.per_second(metrics.counts.output_tokens),
            ttft_ms: median_and_p99(&metrics.latencies.scheduled_ttft),
            e2e_ms: median_and_p99(&metrics.latencies.scheduled_e2e),
            errors,
        }
    }
}

/// Requests on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) sent: u64,
    pub(super) in_flight: u64,
}

/// The same in one line, without the bar, for where lines are kept.
pub(super) fn one_line(lines: &[String]) -> String {
    let plain = lines.iter().map(|line| {
        let without_bar = match (line.find('['), line.find("] ")) {
            (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to + 2..]),
            _ => line.clone(),
        };
        without_bar.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    plain.collect::<Vec<_>>().join("; ")
}

/// What is shown: one line or more. `elapsed_s` is of the measured run.
pub(super) fn lines(plan: &Plan, seen: &Seen, elapsed_s: Option<f64>, flow: Flow) -> Vec<String> {
    let Some(elapsed_s) = elapsed_s else {
        return vec![format!("warm-up     {} requests ended", seen.warmup_ended)];
    };
    let mut lines = vec![progress(plan, seen, elapsed_s), rate(plan, elapsed_s, flow)];
    let latency = |name: &str, (p50, p99): (f64, f64)| {
        format!(
            "{name:<12}p50 {p50:.1} ms, p99 {p99:.1} ms from schedule, {:.0} output tokens/s",
            seen.output_tokens_per_s
        )
    };
    match (seen.ttft_ms, seen.e2e_ms) {
        (Some(ttft_ms), _) => lines.push(latency("TTFT", ttft_ms)),
        (None, Some(e2e_ms)) => lines.push(latency("end-to-end", e2e_ms)),
        (None, None) => {}
    }
    if !seen.errors.is_empty() {
        let kinds: Vec<String> = seen.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        lines.push(format!("{:<12}{}", "errors", kinds.join(", ")));
    }
    lines
}

fn progress(plan: &Plan, seen: &Seen, elapsed_s: f64) -> String {
    let by_count = plan.requests.filter(|count| *count > 0).map(|count| seen.ended as f64 / count as f64);
    let by_time = plan.duration_s.map(|duration_s| elapsed_s / duration_s);
    // With both, whichever comes first ends the run.
    let done = by_count.into_iter().chain(by_time).reduce(f64::max);
    let clock = clock(elapsed_s);
    let of_clock =
        plan.duration_s.map_or_else(String::new, |duration_s| format!(" of {}", self::clock(duration_s)));
    let of_count = plan.requests.map_or_else(String::new, |count| format!(" of {count}"));
    let bar = done.map_or_else(String::new, |done| {
        let filled = (done.clamp(0.0, 1.0) * BAR_WIDTH as f64) as usize;
        format!("[{}{}] ", "=".repeat(filled), " ".repeat(BAR_WIDTH - filled))
    });
    format!("{:<12}{bar}{clock}{of_clock}, {}{of_count} requests ended", "running", seen.ended)
}

fn rate(plan: &Plan, elapsed_s: f64, Flow { sent, in_flight }: Flow) -> String {
    let achieved = if elapsed_s > 0.0 { sent as f64 / elapsed_s } else { 0.0 };
    let planned = plan.rate.map_or_else(String::new, |rate| format!(" of {rate} planned"));
    format!("{:<12}{achieved:.1} requests/s sent{planned}, {in_flight} in flight", "rate")
}

fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { sent: 48, in_flight: 10 };

    fn seen() -> Seen {
        Seen {
            warmup_ended: 3,
            ended: 40,
            output_tokens_per_s: 1_234.4,
            ttft_ms: Some((12.34, 250.0)),
            e2e_ms: Some((100.0, 300.0)),
            errors: vec![("http_503".into(), 5), ("unsent".into(), 2)],
        }
    }

    #[test]
    fn a_run_shows_progress_rate_latency_and_errors() {
        let plan = Plan { requests: None, duration_s: Some(100.0), rate: Some(5.0) };
        let expected = [
            "running     [===                           ] 0:10 of 1:40, 40 requests ended",
            "rate        4.8 requests/s sent of 5 planned, 10 in flight",
            "TTFT        p50 12.3 ms, p99 250.0 ms from schedule, 1234 output tokens/s",
            "errors      5 http_503, 2 unsent",
        ];
        let shown = lines(&plan, &seen(), Some(10.0), FLOW);
        assert_eq!(shown, expected);
        assert_eq!(
            one_line(&shown[..2]),
            "running 0:10 of 1:40, 40 requests ended; rate 4.8 requests/s sent of 5 planned, 10 in flight"
        );
    }

    #[test]
    fn progress_follows_whichever_limit_is_nearer() {
        let plan = Plan { requests: Some(50), duration_s: Some(100.0), rate: None };
        let lines = lines(&plan, &seen(), Some(10.0), FLOW);
        assert!(
            lines[0].contains("[========================      ] 0:10 of 1:40, 40 of 50 requests"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_run_without_an_end_or_a_record_has_no_bar_and_no_latency() {
        let plan = Plan { requests: None, duration_s: None, rate: None };
        let shown = lines(&plan, &Seen::default(), Some(3_725.0), Flow::default());
        assert_eq!(
            shown,
            ["running     1:02:05, 0 requests ended", "rate        0.0 requests/s sent, 0 in flight"]
        );
    }

    #[test]
    fn answers_that_come_whole_show_their_end() {
        let seen = Seen { ttft_ms: None, ..seen() };
        let shown = lines(&Plan { requests: Some(50), duration_s: None, rate: None }, &seen, Some(1.0), FLOW);
        assert!(shown[2].starts_with("end-to-end  p50 100.0 ms"), "{shown:?}");
    }

    #[test]
    fn the_warm_up_is_said_to_be_one() {
        assert_eq!(lines(&Plan::default(), &seen(), None, FLOW), ["warm-up     3 requests ended"]);
    }
}
