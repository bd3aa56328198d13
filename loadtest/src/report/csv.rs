//! The timeline as CSV: one line a bucket, for spreadsheets and for plotting by other means.

use std::io::{Result, Write};

use super::Report;
use crate::scrape::names;

const COLUMNS: &str = "at_s,width_s,offered,sent,unsent,completed,failed,good,output_tokens,in_flight,ttft_p50_ms,\
    ttft_p99_ms,inter_token_p99_ms,target_running,target_waiting,target_kv_cache_usage,target_queue_depth";

/// Latencies are as in the JSON document's timeline. What the target said is the mean over the bucket; a value that is
/// not known is empty.
pub(super) fn write(report: &Report, mut to: impl Write) -> Result<()> {
    writeln!(to, "{COLUMNS}")?;
    let read = &report.target_metrics;
    let target = [
        read.sum(names::RUNNING),
        read.sum(names::WAITING),
        read.max(names::KV_USAGE),
        read.sum(names::GATEWAY_QUEUE),
    ];
    let width_s = report.timeline.width_s();
    for moment in report.timeline.moments() {
        let bucket = moment.bucket;
        let counts = [
            moment.at_s,
            width_s,
            bucket.offered,
            bucket.sent,
            bucket.unsent,
            bucket.completed,
            bucket.failed,
            bucket.good,
            bucket.output_tokens,
            moment.in_flight,
        ];
        let latencies = [moment.ttft_p50_ms, moment.ttft_p99_ms, moment.inter_token_p99_ms];
        let within = (moment.at_s as f64, (moment.at_s + width_s) as f64);
        let mut fields: Vec<String> = counts.iter().map(ToString::to_string).collect();
        fields.extend(latencies.into_iter().map(|ms| field(ms, 3)));
        fields.extend(target.iter().map(|series| field(mean_within(series, within), 4)));
        writeln!(to, "{}", fields.join(","))?;
    }
    Ok(())
}

fn mean_within(series: &[(f64, f64)], (from_s, to_s): (f64, f64)) -> Option<f64> {
    let within = || series.iter().filter(|(at_s, _)| (from_s..to_s).contains(at_s));
    let count = within().count();
    (count > 0).then(|| within().map(|(_, value)| value).sum::<f64>() / count as f64)
}

fn field(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}
