//! Ours beside aiperf on a target whose times are known, in turns.
//!
//! aiperf's TTFT runs from the sending, and so does the one of ours beside it. Its inter-token latency is a request's
//! mean, which is our TPOT; it is laid beside our gaps between tokens, too, since all of them are alike here.

use anyhow::Result;

use super::super::load::{figure, loadtest_run};
use super::super::{Bench, Figure, Required, median};
use super::aiperf::Aiperf;
use super::{scripted_target, valid_report_of};

const TTFT_MS: u32 = 200;
const INTER_TOKEN_MS: u32 = 20;
const TOKENS: u32 = 32;
const REQUESTS: u32 = 100;
const RATE: u32 = 10;
const DIFFERENCE_PERCENT_MAX: f64 = 3.0;

/// What is compared: its name, its unit, and where the two reports have it.
const COMPARED: [(&str, &str, &str, &str); 4] = [
    ("TTFT p50, 200 by the script", "ms", "/sent/ttft_p50_ms", "/time_to_first_token/p50"),
    (
        "inter-token latency p50, 20 by the script",
        "ms",
        "/between_tokens/inter_token_p50_ms",
        "/inter_token_latency/p50",
    ),
    ("TPOT p50, 20 by the script", "ms", "/between_tokens/tpot_p50_ms", "/inter_token_latency/p50"),
    ("output throughput", "tokens/s", "/throughput/output_tokens_per_s", "/output_token_throughput/avg"),
];

pub(in crate::bars) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let aiperf = Aiperf::new(bench)?;
    let script = [("--ttft-ms", TTFT_MS), ("--inter-token-ms", INTER_TOKEN_MS), ("--tokens", TOKENS)];
    let target = scripted_target(bench, &script)?;
    let url = target.url();
    let mut measured: [[Vec<f64>; 2]; COMPARED.len()] = Default::default();
    for _ in 0..bench.pairs {
        let mut command = loadtest_run(&bench.tenk, &url);
        command.args(["--arrivals", "constant", "--rate", &RATE.to_string()]);
        command.args(["--requests", &REQUESTS.to_string()]);
        command.args(["--prompt-tokens", "32", "--max-tokens", &TOKENS.to_string()]);
        let ours = valid_report_of(command)?;

        let rate = RATE.to_string();
        let requests = REQUESTS.to_string();
        let load = ["--request-rate", &rate, "--arrival-pattern", "constant", "--request-count", &requests];
        let theirs = aiperf.run(&url, TOKENS, &load)?;
        for ((_, _, of_ours, of_theirs), [our_values, their_values]) in COMPARED.iter().zip(&mut measured) {
            our_values.push(figure(&ours, of_ours)?);
            their_values.push(figure(&theirs, of_theirs)?);
        }
    }
    let medians = measured.map(|values| values.map(median));
    Ok(COMPARED
        .iter()
        .zip(medians)
        .flat_map(|((name, unit, ..), medians)| figures(name, unit, medians))
        .collect())
}

fn figures(name: &str, unit: &'static str, [ours, theirs]: [f64; 2]) -> [Figure; 3] {
    let difference_percent = (ours / theirs - 1.0).abs() * 100.0;
    [
        Figure::new(name, ours, unit),
        Figure::new(format!("{name}, aiperf"), theirs, unit),
        Figure::new(format!("{name}, difference"), difference_percent, "%")
            .required(Required::AtMost(DIFFERENCE_PERCENT_MAX)),
    ]
}
