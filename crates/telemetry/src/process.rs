//! What the kernel says about this process, read from `/proc` when the page is asked for. Elsewhere than on Linux
//! these series are absent.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts, Registry};

use crate::TelemetryError;
use crate::catalogue::MetricSpec;
use crate::catalogue::process as specs;
use crate::series::register;

/// Linux reports CPU and start times in hundredths of a second, whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds `tenk_build_info` and the process' memory, CPU time and start to `registry`'s page. `build` is the binary's
/// version.
pub fn register_process(registry: &Registry, build: &str) -> Result<(), TelemetryError> {
    let info: IntGauge = register(registry, &specs::BUILD_INFO, &[build])?;
    info.set(1);
    let failed = |source| TelemetryError::Register { name: specs::CPU.name, source };
    let collector = ProcessCollector::new().map_err(failed)?;
    registry.register(Box::new(collector)).map_err(failed)
}

struct ProcessCollector {
    descriptions: Vec<Desc>,
}

impl ProcessCollector {
    fn new() -> prometheus::Result<Self> {
        let describe = |spec: &MetricSpec| {
            Desc::new(
                spec.name.to_owned(),
                spec.help.to_owned(),
                Vec::new(),
                std::collections::HashMap::new(),
            )
        };
        let specs = [&specs::RESIDENT_MEMORY, &specs::CPU, &specs::START_TIME];
        Ok(Self { descriptions: specs.into_iter().map(describe).collect::<prometheus::Result<_>>()? })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(usage) = Usage::read() else { return Vec::new() };
        let gauge = |spec: &MetricSpec, value: f64| {
            Gauge::with_opts(Opts::new(spec.name, spec.help)).map(|gauge| {
                gauge.set(value);
                gauge.collect()
            })
        };
        let cpu = Counter::with_opts(Opts::new(specs::CPU.name, specs::CPU.help)).map(|counter| {
            counter.inc_by(usage.cpu_s);
            counter.collect()
        });
        let families = [
            gauge(&specs::RESIDENT_MEMORY, usage.resident_bytes),
            cpu,
            gauge(&specs::START_TIME, usage.started_s),
        ];
        families.into_iter().flatten().flatten().collect()
    }
}

#[derive(Debug, PartialEq)]
struct Usage {
    resident_bytes: f64,
    cpu_s: f64,
    started_s: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        let text = |path| fs::read_to_string(path).ok();
        Self::parse(&text("/proc/self/stat")?, &text("/proc/self/status")?, &text("/proc/stat")?)
    }

    fn parse(own_stat: &str, own_status: &str, stat: &str) -> Option<Self> {
        // The program's name stands in parentheses and may itself hold spaces and parentheses.
        let (_, after_name) = own_stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<f64>().ok()
        };
        Some(Self {
            resident_bytes: field(own_status, "VmRSS:")? * 1024.0,
            cpu_s: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            started_s: field(stat, "btime ")? + ticks(19)? / TICKS_PER_SECOND,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let own_stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 12345 0 0";
        let own_status = "Name:\ta (b) c\nVmHWM:\t  9999 kB\nVmRSS:\t  2048 kB\n";
        let stat = "cpu  1 2 3\nbtime 1700000000\nprocesses 7\n";
        let usage = Usage::parse(own_stat, own_status, stat);
        let expected = Usage { resident_bytes: 2_097_152.0, cpu_s: 3.0, started_s: 1_700_000_123.45 };
        assert_eq!(usage, Some(expected));
        assert_eq!(Usage::parse("42 (cut", own_status, stat), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_memory_and_started_in_the_past() {
        let usage = Usage::read().expect("/proc is there");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        assert!(usage.resident_bytes > 100_000.0, "{usage:?}");
        assert!(usage.started_s > now - 3600.0 && usage.started_s < now + 2.0, "{usage:?} at {now}");
    }
}
