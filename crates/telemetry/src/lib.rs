//! The one catalogue of metrics, handles that update them, and the set-up of logging.
//!
//! Dashboards and alerts break silently when a metric is renamed, so each name, help text, label and bucket list is
//! written once, in [`catalogue`]; the handles are built from it and a test reads every dashboard query against it.
//! A process that runs several roles (a gateway and its workers) gives each role a [`Registry`] of its own, so that
//! each `/metrics` page looks the same whether the roles share a process or not.
//!
//! It must not know requests, workers, models or HTTP: callers hand it numbers and bounded label values.

pub mod catalogue;
mod controller;
mod error;
mod gateway;
mod logging;
mod process;
mod series;
mod worker;

pub use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry};

pub use controller::{ControllerMetrics, ControllerSeries};
pub use error::TelemetryError;
pub use gateway::{
    CacheResult, Endpoint, GatewayMetrics, GatewaySeries, LabelLimits, VersionSeries, WorkerSeries,
};
pub use logging::{LogConfig, LogFormat, init};
pub use process::register_process;
pub use series::{InFlight, OTHER, UNKNOWN};
pub use worker::{CacheConfigInfo, SimulationMetrics, WorkerEngineSeries, WorkerMetrics};

/// The `Content-Type` of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything in `registry` as Prometheus' text exposition, sorted by name.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    for family in registry.gather() {
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&[family], &mut text) {
            tracing::error!(%error, "a metric could not be rendered and is left out");
        }
    }
    text
}
