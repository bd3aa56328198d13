//! What any process says about itself, under Prometheus' customary names.

use super::MetricSpec;

/// Which build runs.
pub const BUILD_INFO: MetricSpec =
    MetricSpec::gauge("tenk_build_info", "The running build, as a label; the value is 1.", &["build"]);
/// Memory in RAM.
pub const RESIDENT_MEMORY: MetricSpec =
    MetricSpec::gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", &[]);
/// CPU time used.
pub const CPU: MetricSpec =
    MetricSpec::counter("process_cpu_seconds_total", "User and system CPU time of the process.", &[]);
/// When it started.
pub const START_TIME: MetricSpec =
    MetricSpec::gauge("process_start_time_seconds", "When the process started, in seconds since 1970.", &[]);

/// The process' part of the catalogue.
pub const ALL: &[&MetricSpec] = &[&BUILD_INFO, &RESIDENT_MEMORY, &CPU, &START_TIME];
