//! One series at a time, with its label values fixed when it is made.
//!
//! The prometheus crate's own vectors look label values up by a hash of their concatenation, in which
//! (`m1`, `2`) and (`m`, `12`) are one series. Here each series is registered alone, under a hash that keeps values
//! apart, and callers hold on to it: an update is one atomic addition.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use crate::TelemetryError;
use crate::catalogue::MetricSpec;

/// The label value of everything beyond a bound.
pub const OTHER: &str = "other";
/// The label value for a request that ended before its model or version was known.
pub const UNKNOWN: &str = "unknown";

/// A kind of series that can be made from a spec and label values.
pub(crate) trait Series: Collector + Clone + 'static {
    fn of(spec: &MetricSpec, values: &[&str]) -> prometheus::Result<Self>;
}

fn opts(spec: &MetricSpec, values: &[&str]) -> Opts {
    assert_eq!(spec.labels.len(), values.len(), "one value a label of {}", spec.name);
    let labels =
        spec.labels.iter().zip(values).map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
    Opts::new(spec.name, spec.help).const_labels(labels.collect())
}

impl Series for IntCounter {
    fn of(spec: &MetricSpec, values: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(opts(spec, values))
    }
}

impl Series for IntGauge {
    fn of(spec: &MetricSpec, values: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(opts(spec, values))
    }
}

impl Series for Gauge {
    fn of(spec: &MetricSpec, values: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(opts(spec, values))
    }
}

impl Series for Histogram {
    fn of(spec: &MetricSpec, values: &[&str]) -> prometheus::Result<Self> {
        Self::with_opts(HistogramOpts::from(opts(spec, values)).buckets(spec.buckets.to_vec()))
    }
}

/// Makes a series that no page shows.
pub(crate) fn detached<S: Series>(spec: &MetricSpec, values: &[&str]) -> Result<S, TelemetryError> {
    S::of(spec, values).map_err(|source| TelemetryError::Register { name: spec.name, source })
}

/// Makes a series and puts it on `registry`'s page.
pub(crate) fn register<S: Series>(
    registry: &Registry,
    spec: &MetricSpec,
    values: &[&str],
) -> Result<S, TelemetryError> {
    let series: S = detached(spec, values)?;
    registry
        .register(Box::new(series.clone()))
        .map_err(|source| TelemetryError::Register { name: spec.name, source })?;
    Ok(series)
}

/// Takes a series off `registry`'s page.
pub(crate) fn unregister<S: Series>(registry: &Registry, series: S) {
    if let Err(error) = registry.unregister(Box::new(series)) {
        tracing::warn!(%error, "a metric could not be taken off its page");
    }
}

/// The series of one spec whose last label varies; made as values turn up, at most `values_max` of them and then
/// [`OTHER`].
#[derive(Debug)]
pub(crate) struct Family<S> {
    registry: Registry,
    spec: &'static MetricSpec,
    leading: Vec<String>,
    values_max: usize,
    /// None once the family is off the page for good.
    series: RwLock<Option<HashMap<Box<str>, S>>>,
    /// Takes the updates of a series that is not shown, so that no hot path can fail.
    spare: S,
}

impl<S: Series> Family<S> {
    pub(crate) fn new(
        registry: &Registry,
        spec: &'static MetricSpec,
        leading: &[&str],
        values_max: usize,
    ) -> Result<Self, TelemetryError> {
        let values: Vec<&str> = leading.iter().copied().chain([OTHER]).collect();
        Ok(Self {
            registry: registry.clone(),
            spec,
            leading: leading.iter().map(|value| (*value).to_owned()).collect(),
            values_max,
            series: RwLock::new(Some(HashMap::new())),
            spare: detached(spec, &values)?,
        })
    }

    pub(crate) fn get(&self, value: &str) -> S {
        {
            let series = read(&self.series);
            let Some(series) = series.as_ref() else { return self.spare.clone() };
            let overflow = || if series.len() > self.values_max { series.get(OTHER) } else { None };
            if let Some(known) = series.get(value).or_else(overflow) {
                return known.clone();
            }
        }
        let mut series = write(&self.series);
        let Some(series) = series.as_mut() else { return self.spare.clone() };
        let value = if series.len() < self.values_max || series.contains_key(value) { value } else { OTHER };
        if let Some(known) = series.get(value) {
            return known.clone();
        }
        let values: Vec<&str> = self.leading.iter().map(String::as_str).chain([value]).collect();
        match register::<S>(&self.registry, self.spec, &values) {
            Ok(made) => {
                series.insert(value.into(), made.clone());
                made
            }
            Err(error) => {
                tracing::error!(%error, value, "a metric is not shown");
                self.spare.clone()
            }
        }
    }

    /// Takes the family off the page for good; later updates go nowhere.
    pub(crate) fn close(&self) {
        for (_, series) in write(&self.series).take().into_iter().flatten() {
            unregister(&self.registry, series);
        }
    }
}

/// Counts of something are never left half-written, so a panic elsewhere does not spoil them.
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Holds a gauge one higher for as long as it lives, whichever way its owner ends.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl InFlight {
    /// Raises `gauge` by one until the value is dropped.
    pub fn enter(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
