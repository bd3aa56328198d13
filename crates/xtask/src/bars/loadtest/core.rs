//! How much one core of the tester does: what the load tester's `efficiency` example says of its processor time.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::load::figure;
use super::super::{Bench, Figure, Required};

const REQUESTS_MIN: f64 = 20_000.0;
const TOKENS_MIN: f64 = 100_000.0;
/// At 20,000 a second, a machine that stands still for half a second has more in flight than may be. What is left of
/// the run still tells the processor time of a request.
const SHARE_FAILED_MAX: f64 = 0.02;

/// Of the example's names: a schedule is dearer than users who wait, and tokens that come one by one are dearer than
/// bursts, so these are what is kept to.
const REQUESTS: &str = "whole answers, 20,000/s for 5 s";
const TOKENS: &str = "a token every 20 ms, 200/s for 20 s";

pub(in crate::bars) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let example = bench.example("efficiency")?;
    let mut figures = Vec::new();
    for line in lines(&example)? {
        let what = line["what"].as_str().context("a line without a name")?;
        let failed = share_failed(&line)?;
        ensure!(failed <= SHARE_FAILED_MAX, "{what}: {failed} of all failed: {}", line["failed"]);
        let requests = Figure::new(what, figure(&line, "/requests_per_cpu_s")?, "requests/s of a core");
        let tokens =
            line["tokens_per_cpu_s"].as_f64().map(|tokens| Figure::new(what, tokens, "tokens/s of a core"));
        figures.push(match (what, tokens) {
            (REQUESTS, _) => requests.required(Required::AtLeast(REQUESTS_MIN)),
            (TOKENS, Some(tokens)) => tokens.required(Required::AtLeast(TOKENS_MIN)),
            (_, tokens) => tokens.unwrap_or(requests),
        });
    }
    let kept = figures.iter().filter(|figure| figure.required.is_some()).count();
    ensure!(kept == 2, "the example measures neither “{REQUESTS}” nor “{TOKENS}” any more");
    Ok(figures)
}

fn share_failed(line: &Value) -> Result<f64> {
    let failed = line["failed"].as_array().context("no failures, not even none")?;
    let failed: f64 = failed.iter().filter_map(|kind| kind[0].as_f64()).sum();
    Ok(failed / (failed + figure(line, "/succeeded")?))
}

fn lines(example: &std::path::Path) -> Result<Vec<Value>> {
    let output = Command::new(example).arg("--json").output().context("the example did not start")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    said.lines().map(|line| serde_json::from_str(line).context("a line that is no JSON")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn failures_are_counted_over_all_kinds() {
        let share = |failed: Value| share_failed(&json!({"succeeded": 90, "failed": failed})).expect("whole");
        assert_eq!(share(json!([])), 0.0);
        assert_eq!(share(json!([[4, "a"], [6, "b"]])), 0.1);
        assert!(share_failed(&json!({"succeeded": 90})).is_err());
    }
}
