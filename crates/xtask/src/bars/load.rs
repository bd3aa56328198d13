//! Runs the load testers and reads what they found.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// `tenk loadtest run` of this target, with its report on standard output.
pub(super) fn loadtest_run(tenk: &Path, target: &str) -> Command {
    let mut command = Command::new(tenk);
    command.args(["loadtest", "run", "--json", "--target", target]);
    command
}

/// Runs a command that prints JSON to its end, and reads that.
pub(super) fn report_of(command: Command) -> Result<Value> {
    serde_json::from_str(&output_of(command)?).context("what it printed is no JSON")
}

/// Runs a command to its end, and gives what it printed.
pub(super) fn output_of(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?} did not start"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?} failed: {}{}", text(&output.stderr), text(&output.stdout));
    Ok(text(&output.stdout))
}

/// A figure of a report, by its path of keys.
pub(super) fn figure(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("the report has no {path}"))
}

/// What `wrk` found.
pub(super) struct Wrk {
    pub(super) requests_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) requests: f64,
}

/// Loads `url` with one body over some connections for some seconds.
pub(super) fn wrk(url: &str, connections: u32, seconds: u32, script: &Path) -> Result<Wrk> {
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--timeout", "10s"]);
    command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")]);
    let output = command.arg("--script").arg(script).arg(url).output().context("wrk did not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("figures "));
    let figures: Value = serde_json::from_str(line.with_context(|| format!("wrk said: {said}"))?)?;
    let get = |name: &str| figure(&figures, &format!("/{name}"));
    ensure!(get("errors")? == 0.0, "{url} answered with errors: {figures}");
    let (requests, duration_us) = (get("requests")?, get("duration_us")?);
    Ok(Wrk {
        requests_per_s: requests / duration_us * 1e6,
        p50_us: get("p50_us")?,
        p99_us: get("p99_us")?,
        requests,
    })
}

/// A script for `wrk` that posts this body, with this key, and prints its figures as JSON.
pub(super) fn wrk_script(body: &str, key: &str) -> String {
    format!(
        r#"wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format('figures {{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"errors":%d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
    )
}
