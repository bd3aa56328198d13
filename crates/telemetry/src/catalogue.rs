//! Every metric that any role exports: its name, kind, help, labels and buckets.
//!
//! Worker metrics keep vLLM's names, so that dashboards and the Gateway API inference extension read our workers as
//! they read vLLM's. Ours are `tenk_<thing>_<unit>[_total]`, seconds and bytes, never milliseconds or megabytes.

pub mod controller;
pub mod gateway;
pub mod process;
pub mod worker;

/// What a metric is and how it is charted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricSpec {
    /// The exported name; histograms add `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricKind,
    /// One sentence for people.
    pub help: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets, ascending, without `+Inf`; empty for the other kinds.
    pub buckets: &'static [f64],
}

/// The three kinds that the text exposition knows and we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; chart its `rate`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of observations by upper bound.
    Histogram,
}

impl MetricSpec {
    const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: MetricKind::Counter, help, labels, buckets: &[] }
    }

    const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind: MetricKind::Gauge, help, labels, buckets: &[] }
    }

    const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        Self { name, kind: MetricKind::Histogram, help, labels, buckets }
    }

    /// The names under which the exposition carries this metric's samples.
    pub fn sample_names(&self) -> Vec<String> {
        match self.kind {
            MetricKind::Counter | MetricKind::Gauge => vec![self.name.to_owned()],
            MetricKind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
            }
        }
    }
}

/// The whole catalogue.
pub fn all() -> impl Iterator<Item = &'static MetricSpec> {
    worker::ALL.iter().chain(gateway::ALL).chain(controller::ALL).chain(process::ALL).copied()
}

/// The metric that a sample called `name` belongs to, histogram suffixes included.
pub fn find_sample(name: &str) -> Option<&'static MetricSpec> {
    all().find(|spec| spec.sample_names().iter().any(|sample| sample == name))
}

#[cfg(test)]
mod tests;
