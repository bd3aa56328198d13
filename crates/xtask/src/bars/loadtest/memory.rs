//! Whether a long run keeps its memory.
//!
//! Each request in flight takes some twenty kilobytes, its connection included, and an allocator that had them once
//! seldom gives them back; nor has it the same pages for them the next time, so that it takes some fifty bursts of a
//! size until one more changes nothing. A machine that stands still for a moment makes a burst. So that none is taken
//! for a leak, no more than a thousand requests may be in flight, and in the first minute the server is paused once a
//! second until they wait. From then on nothing but the run's length is left to make memory grow.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::load::{figure, loadtest_run};
use super::super::server::{Server, free_address, memory_mib, work_folder};
use super::super::{Bench, Figure, Required};

const RATE: u32 = 5_000;
const SCENARIO: &str = "
[answers]
max_tokens = 16
streamed = 0.0
[prompts]
kind = 'synthetic'
tokens = 32
";
const PAUSES: u32 = 50;
const PAUSE_S: f64 = 0.2;
/// In ten minutes they are half a minute apart.
const SAMPLES: u32 = 20;
const SAMPLES_COMPARED: usize = 2;
/// So many are due while the server is paused.
const IN_FLIGHT_MAX: &str = "1000";
/// Ten minutes are three million requests, so a tenth of 50 MiB is less than two bytes for each.
const RATIO_MAX: f64 = 1.1;

pub(in crate::bars) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let address = free_address()?;
    let mut command = Command::new(bench.example("efficiency")?);
    command.args(["--serve", &address.to_string()]);
    let work = work_folder(&bench.target)?;
    let target = Server::start(command, address, &work.join("canned.log"))?;

    let (scenario, report_path) = (work.join("memory.toml"), work.join("memory.json"));
    std::fs::write(&scenario, scenario_toml(target.process()))?;
    let mut command = loadtest_run(&bench.tenk, &target.url());
    command.arg(&scenario).args(["--model", "canned"]);
    // What was due when too many were in flight was never sent; the rate below says that it was little.
    command.args(["--connections-max", IN_FLIGHT_MAX, "--allow-errors"]);
    command.args(["--rate", &RATE.to_string(), "--duration-s", &bench.soak.as_secs().to_string()]);
    command.stdout(std::fs::File::create(&report_path)?).stderr(Stdio::null());
    let started = Instant::now();
    let mut tester = command.spawn().context("the load tester did not start")?;
    let resident_mib = watch(tester.id(), started, bench.soak);
    let status = tester.wait()?;
    ensure!(status.success(), "the load tester ended with {status}; see {}", report_path.display());
    let report: Value = serde_json::from_slice(&std::fs::read(&report_path)?)?;
    let in_first_minute = (60.0 / (bench.soak / SAMPLES).as_secs_f64()) as usize;
    let (first, last) = first_and_last(&resident_mib?, in_first_minute);
    Ok(vec![
        Figure::new("requests sent", figure(&report, "/rates/achieved_per_s")?, "requests/s")
            .required(Required::AtLeast(0.99 * f64::from(RATE))),
        Figure::new("requests sent in all", figure(&report, "/requests/sent")?, "requests"),
        Figure::new("resident memory, first minute", first, "MiB"),
        Figure::new("resident memory, last minute", last, "MiB"),
        Figure::new("resident memory, last to first", last / first, "×")
            .required(Required::AtMost(RATIO_MAX)),
    ])
}

fn scenario_toml(server: u32) -> String {
    let pause =
        |at_s| format!("[[faults]]\naction = 'pause'\npid = {server}\nat_s = {at_s}\nfor_s = {PAUSE_S}\n");
    (1..=PAUSES).fold(SCENARIO.to_owned(), |text, at_s| text + &pause(at_s))
}

/// What a process has resident at the ends of as many equal parts of `soak`, but for the last: it may be over by then.
fn watch(process: u32, started: Instant, soak: Duration) -> Result<Vec<f64>> {
    (1..SAMPLES)
        .map(|nth| {
            let at = started + soak * nth / SAMPLES;
            while let Some(left) = at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                std::thread::park_timeout(left);
            }
            memory_mib(process, "VmRSS")
        })
        .collect()
}

/// Means of the last samples of the first minute and of all.
fn first_and_last(samples: &[f64], in_first_minute: usize) -> (f64, f64) {
    let mean_until = |end: usize| {
        let part = &samples[end.saturating_sub(SAMPLES_COMPARED)..end];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (mean_until(in_first_minute.clamp(1, samples.len())), mean_until(samples.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_minutes_last_samples_are_laid_beside_the_last_of_all() {
        assert_eq!(first_and_last(&[1.0, 3.0, 100.0, 6.0, 8.0], 2), (2.0, 7.0));
        assert_eq!(first_and_last(&[9.0, 9.0, 1.0, 3.0, 100.0, 6.0, 8.0], 4), (2.0, 7.0));
        assert_eq!(first_and_last(&[5.0, 7.0], 0), (5.0, 6.0));
        assert_eq!(first_and_last(&[5.0], 9), (5.0, 5.0));
    }
}
