//! What testers see of a target that answers nobody for one second in every ten.
//!
//! A request is due every 10 ms, so a tenth of all meet the stall, and a hundredth wait for more than 0.9 s of it. A
//! tester whose users wait for their answers sends none while it lasts: it sees a stall once a user, among hundreds of
//! quick answers, and its p99 says that all is well.

use anyhow::Result;

use super::super::load::{figure, loadtest_run};
use super::super::{Bench, Figure, Required};
use super::aiperf::Aiperf;
use super::{scripted_target, valid_report_of};

const RATE: &str = "100";
const USERS: &str = "8";
/// Whole stretches of stall and answers, so that it does not matter when the first one comes.
const SECONDS: &str = "60";
const TOKENS: u32 = 5;
/// The truth is 920: TTFT and nine tenths of the stall.
const TTFT_P99_MS_MIN: f64 = 800.0;

pub(in crate::bars) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let aiperf = Aiperf::new(bench)?;
    let times = [("--ttft-ms", 20), ("--inter-token-ms", 5), ("--tokens", TOKENS)];
    let stall = [("--stall-every", 10), ("--stall-for", 1)];
    let target = scripted_target(bench, &[times.as_slice(), &stall].concat())?;
    let url = target.url();
    let ours = |load: &[&str]| {
        let mut command = loadtest_run(&bench.tenk, &url);
        command.args(["--duration-s", SECONDS, "--prompt-tokens", "32", "--max-tokens", &TOKENS.to_string()]);
        command.args(load);
        valid_report_of(command)
    };
    let open = ours(&["--rate", RATE, "--arrivals", "constant"])?;
    let closed = ours(&["--users", USERS])?;
    let theirs = aiperf.run(&url, TOKENS, &["--concurrency", USERS, "--benchmark-duration", SECONDS])?;
    let ttft_p99 = |name: &str, ms: f64| Figure::new(format!("TTFT p99, {name}"), ms, "ms");
    Ok(vec![
        ttft_p99("100 requests/s", figure(&open, "/scheduled/ttft_p99_ms")?)
            .required(Required::AtLeast(TTFT_P99_MS_MIN)),
        ttft_p99("8 users who wait", figure(&closed, "/scheduled/ttft_p99_ms")?),
        ttft_p99("aiperf, concurrency 8", figure(&theirs, "/time_to_first_token/p99")?),
    ])
}
