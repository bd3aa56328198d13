//! Whether a run's figures count.

use super::Rates;
use crate::metrics::{Metrics, Span};
use crate::scenario::Arrivals;

/// The longest median dispatch delay of a valid run, in milliseconds.
pub const DISPATCH_DELAY_P50_MS_MAX: f64 = 10.0;
/// The least share of the offered rate that a valid run achieves; as much above it is as bad.
pub const ACHIEVED_SHARE_MIN: f64 = 0.99;
/// How much longer or shorter sending may take than the schedule, in seconds, whatever the share: in a brief run a
/// hundredth is nothing.
const SENDING_SLACK_S: f64 = 0.05;

/// Requests a second, between the first and the last.
pub(super) fn rates(metrics: &Metrics) -> Rates {
    let rate = |count: u64, span: Option<Span>| {
        let seconds = span.map(|span| span.seconds()).filter(|seconds| *seconds > 0.0)?;
        Some(count.saturating_sub(1) as f64 / seconds)
    };
    let sent = metrics.counts.succeeded + metrics.counts.failed;
    Rates {
        offered_per_s: rate(sent + metrics.counts.unsent, metrics.spans.due),
        achieved_per_s: rate(sent, metrics.spans.sent),
    }
}

/// Why the figures do not count; nothing when they do.
pub(super) fn reasons(metrics: &Metrics, arrivals: &Arrivals) -> Vec<String> {
    let mut reasons = Vec::new();
    if metrics.counts.unsent > 0 {
        reasons.push(format!(
            "{} requests that were due were never sent, for too many were in flight: raise connections_max, or offer \
             less",
            metrics.counts.unsent
        ));
    }
    // In a closed loop the server sets the rate, so there is none to keep.
    let open = !matches!(arrivals, Arrivals::ClosedLoop { .. });
    if let (true, Some(due), Some(sent)) = (open, metrics.spans.due, metrics.spans.sent)
        && let Rates { offered_per_s: Some(offered), achieved_per_s: Some(achieved) } = rates(metrics)
        && (sent.seconds() - due.seconds()).abs() > SENDING_SLACK_S
        && (achieved / offered - 1.0).abs() > 1.0 - ACHIEVED_SHARE_MIN
    {
        reasons.push(format!(
            "{achieved:.2} requests/s were sent where {offered:.2} were due: more than 1% amiss, so the tester did not \
             keep its schedule"
        ));
    }
    let median_us = metrics.latencies.dispatch_delay.value_at_quantile(0.5);
    if median_us as f64 > DISPATCH_DELAY_P50_MS_MAX * 1e3 {
        reasons.push(format!(
            "the tester itself was late by {} ms in the median, where {DISPATCH_DELAY_P50_MS_MAX} ms are allowed: it is \
             short of CPU time",
            median_us / 1_000
        ));
    }
    reasons
}
