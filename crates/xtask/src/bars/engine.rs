//! One worker beside llama.cpp's server: the same file, the same threads, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::{ClosedLoop, figure};
use super::server::{Server, free_address, work_folder};
use super::{Bench, Figure, median};
use crate::needs::{packages, python};

const MODEL: &str = "smollm2-135m-instruct";
const THREADS: u32 = 2;
/// Requests at once, and how many of them make one measurement.
const STREAMS: [(u32, u32); 3] = [(1, 2), (8, 16), (32, 64)];
const SLOTS: u32 = 32;
const LLAMA_CPP_SERVER: &str = include_str!("llama_cpp_server.py");

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    packages::install_missing(packages::OF_BARS, bench.unattended)?;
    let python = python::environment(&bench.target, python::OF_BARS)?;
    let work = work_folder(&bench.target)?;
    let model = q8_0(bench, &work)?;
    let script = work.join("llama_cpp_server.py");
    std::fs::write(&script, LLAMA_CPP_SERVER)?;

    let start_ours = || {
        let address = free_address()?;
        let mut command = Command::new(&bench.tenk);
        command.args(["worker", "--threads", &THREADS.to_string(), "--listen", &address.to_string()]);
        command.arg("--model").arg(&model);
        first_answer(command, address, &work.join("worker.log"))
    };
    let start_theirs = || {
        let address = free_address()?;
        let mut command = Command::new(&python);
        command.arg(&script).arg(address.port().to_string()).arg(&model);
        command.args([SLOTS.to_string(), THREADS.to_string()]);
        first_answer(command, address, &work.join("llama_cpp.log"))
    };
    let (ours, ours_start_s) = start_ours()?;
    let (theirs, theirs_start_s) = start_theirs()?;
    let sides = [ours.url(), theirs.url()];

    let mut figures = Vec::new();
    for (streams, requests) in STREAMS {
        let run = |target: &str| {
            let load = ClosedLoop { target, users: streams, requests, prompt_tokens: 90, max_tokens: 64 };
            figure(&load.run(&bench.tenk)?, "/throughput/output_tokens_per_s")
        };
        let [ours, theirs] = in_turns(bench.pairs, &sides, run)?;
        figures.extend(pair(&format!("output, {streams} streams"), [ours, theirs], "tokens/s"));
    }
    let run = |target: &str| {
        let load = ClosedLoop { target, users: 1, requests: 3, prompt_tokens: 512, max_tokens: 1 };
        figure(&load.run(&bench.tenk)?, "/sent/ttft_p50_ms")
    };
    figures.extend(pair("time to first token, 512-token prompt", in_turns(bench.pairs, &sides, run)?, "ms"));
    figures.extend(pair("most memory resident", [ours.resident_mib()?, theirs.resident_mib()?], "MiB"));
    figures.extend(pair("start to first answer", [ours_start_s, theirs_start_s], "s"));
    Ok(figures)
}

/// Medians of both sides, measured A B A B.
fn in_turns(pairs: usize, sides: &[String; 2], run: impl Fn(&str) -> Result<f64>) -> Result<[f64; 2]> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        ours.push(run(&sides[0])?);
        theirs.push(run(&sides[1])?);
    }
    Ok([median(ours), median(theirs)])
}

fn pair(name: &str, [ours, theirs]: [f64; 2], unit: &'static str) -> [Figure; 3] {
    [
        Figure::new(name, ours, unit),
        Figure::new(format!("{name}, llama.cpp"), theirs, unit),
        Figure::new(format!("{name}, ratio"), ours / theirs, "× llama.cpp"),
    ]
}

/// Starts a server, and says after how many seconds it had given its first answer.
fn first_answer(command: Command, address: std::net::SocketAddr, log: &Path) -> Result<(Server, f64)> {
    let started = Instant::now();
    let server = Server::start(command, address, log)?;
    let body = r#"{"model":"any","messages":[{"role":"user","content":"Hi"}],"max_tokens":1}"#;
    loop {
        // A server may listen before its model is there.
        let model = model_name(&server)?;
        let body = body.replace("\"any\"", &model);
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--data", &body, "--header", "content-type: application/json"])
            .arg(format!("{}/v1/chat/completions", server.url()))
            .output()
            .context("curl did not start")?;
        if output.status.success() {
            return Ok((server, started.elapsed().as_secs_f64()));
        }
        ensure!(started.elapsed() < Duration::from_secs(120), "{} gives no answer", server.url());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// As JSON; what a server calls its model before it has one does not matter.
fn model_name(server: &Server) -> Result<String> {
    let output = Command::new("curl").args(["--silent", &format!("{}/v1/models", server.url())]).output()?;
    let models: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(models["data"][0]["id"].to_string())
}

/// The default model in the type that both run best; its quality is that of the 4 bits it comes from.
fn q8_0(bench: &Bench, work: &Path) -> Result<PathBuf> {
    let output = Command::new(&bench.tenk).args(["model", "pull", MODEL]).output()?;
    ensure!(output.status.success(), "the model could not be fetched; try `tenk model pull {MODEL}`");
    let source = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    let quantized = work.join(format!("{MODEL}.Q8_0.gguf"));
    if !quantized.is_file() {
        let mut command = Command::new(&bench.tenk);
        command.args(["model", "quantize"]).arg(&source).arg(&quantized).args(["--to", "q8_0"]);
        ensure!(command.output()?.status.success(), "the model could not be quantized");
    }
    Ok(quantized)
}
