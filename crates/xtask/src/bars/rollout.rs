//! Rollouts: the judge on made-up worlds, and real processes whose new version is good, slow, failing or wrong.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::load::{figure, loadtest_run, output_of, report_of};
use super::server::{Server, free_address, work_folder};
use super::{Bench, Figure, Required};

/// Rollouts of each made-up version.
const RUNS: &str = "1000";
/// Long enough for any rollout of these; the load is ended before.
const LOAD_S: &str = "900";
/// How long a rollout may take.
const PATIENCE: Duration = Duration::from_secs(840);

/// Made-up rollouts by the thousand.
pub(super) fn simulated(bench: &Bench) -> Result<Vec<Figure>> {
    let mut command = Command::new(&bench.tenk);
    command.args(["rollout", "simulate", "--runs", RUNS, "--json"]);
    let report = report_of(command)?;
    let of = |scenario: &str, path: &str| figure(&report, &format!("/scenarios/{scenario}{path}"));
    let reverted = |scenario: &str| of(scenario, "/reverted_share");
    let mut figures = vec![
        Figure::new("no difference: reverted", reverted("aa")?, "").required(Required::AtMost(0.05)),
        Figure::new("times 10% longer: reverted", reverted("latency_10")?, ""),
        Figure::new("0.5% errors: reverted", reverted("errors_05")?, ""),
    ];
    for (scenario, name) in [("latency_50", "times 50% longer"), ("errors_2", "2% errors")] {
        let median_s = of(scenario, "/detection_s/median")?;
        figures.extend([
            Figure::new(format!("{name}: reverted"), reverted(scenario)?, "")
                .required(Required::AtLeast(0.99)),
            Figure::new(format!("{name}: in half of the runs within"), median_s, "s")
                .required(Required::AtMost(60.0)),
            Figure::new(format!("{name}: users who met it"), of(scenario, "/users_exposed")?, ""),
        ]);
    }
    Ok(figures)
}

/// A new version of simulated GPUs, as good as the old one or not.
pub(super) fn live(bench: &Bench) -> Result<Vec<Figure>> {
    let judge = json!({"quality": {"samples_per_s": 5.0}});
    let mut figures = Vec::new();
    for (name, fault, action) in [
        ("a good version", None, "promoted"),
        ("steps take 1.5 times as long", Some(json!({"kind": "slow", "factor": 1.5})), "reverted"),
        ("2% errors", Some(json!({"kind": "error_rate", "share": 0.02})), "reverted"),
        ("garbage", Some(json!({"kind": "garbage"})), "reverted"),
    ] {
        let fleet = Fleet::start(bench, &["simulated:", "simulated:"], 2, &["--engine", "simulated"])?;
        if let Some(fault) = fault {
            fleet.workers[2..]
                .iter()
                .try_for_each(|worker| post(&format!("{}/admin/faults", worker.url()), &fault))?;
        }
        let load = fleet.load(&[
            "--rate",
            "50",
            "--max-tokens",
            "32",
            "--prompt-tokens",
            "64",
            "--streamed",
            "0.7",
        ])?;
        figures.extend(fleet.roll_out(name, &[5.0, 100.0], &judge, action, load)?);
    }
    Ok(figures)
}

/// The default model in four bits takes the users of the same in eight.
pub(super) fn model(bench: &Bench) -> Result<Vec<Figure>> {
    let folder = work_folder(&bench.target)?;
    let four_bits = default_model(bench)?;
    let eight_bits = folder.join("rollout-q8_0.gguf");
    let mut quantize = Command::new(&bench.tenk);
    quantize.args(["model", "quantize", "--to", "q8_0", "--force"]).arg(&four_bits).arg(&eight_bits);
    output_of(quantize)?;
    let paths = [&eight_bits, &four_bits].map(|path| path.display().to_string());
    let fleet = Fleet::start(bench, &[&paths[0], &paths[1]], 1, &["--threads", "2"])?;
    let load =
        fleet.load(&["--rate", "5", "--max-tokens", "12", "--prompt-tokens", "24", "--streamed", "1"])?;
    // Answers are cut on purpose, nearly all of them: to know that to 5 points takes some 500 users a step.
    let judge = json!({"margin": 0.5, "error_margin": 0.05, "answer_margin": 0.25});
    fleet.roll_out("the default model, Q8_0 to Q4_1", &[25.0, 50.0, 100.0], &judge, "promoted", load)
}

/// Where the default model lies; it is fetched if it is not there.
fn default_model(bench: &Bench) -> Result<PathBuf> {
    let mut pull = Command::new(&bench.tenk);
    pull.args(["model", "pull", "smollm2-135m-instruct"]);
    let said = output_of(pull)?;
    let path = said.lines().rev().map(|line| PathBuf::from(line.trim())).find(|path| path.is_file());
    path.with_context(|| format!("`tenk model pull` names no file: {said}"))
}

/// Workers of two versions behind a gateway that has a controller.
struct Fleet {
    tenk: PathBuf,
    folder: PathBuf,
    controller: Server,
    gateway: Server,
    /// Those of version 1, then those of version 2.
    workers: Vec<Server>,
}

impl Fleet {
    fn start(bench: &Bench, sources: &[&str], workers_each: usize, of_workers: &[&str]) -> Result<Self> {
        let folder = work_folder(&bench.target)?.join("rollout");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let config = folder.join("tenk.toml");
        fs::write(&config, format!("[registry]\npath = {:?}\n", folder.join("registry.json")))?;
        let tenk = |arguments: &[&str]| {
            let mut command = Command::new(&bench.tenk);
            command.args(arguments).arg("--config").arg(&config);
            command
        };
        for source in sources {
            output_of(tenk(&["model", "register", "chat", source]))?;
        }
        let start = |name: &str, address: SocketAddr, arguments: &[&str]| {
            let mut command = tenk(arguments);
            command.args(["--listen", &address.to_string()]);
            Server::start(command, address, &folder.join(format!("{name}.log")))
        };
        let mut workers = Vec::new();
        for version in 1..=sources.len() {
            for index in 0..workers_each {
                let model = format!("registry:chat@{version}");
                let arguments = [&["worker", "--model", &model], of_workers].concat();
                let worker = start(&format!("worker-{version}-{index}"), free_address()?, &arguments)?;
                workers.push(worker.ready("/health/ready")?);
            }
        }
        let [gateway, controller] = [free_address()?, free_address()?];
        let controller_url = format!("http://{controller}");
        let urls: Vec<String> = workers.iter().map(Server::url).collect();
        let behind = urls.iter().flat_map(|url| ["--worker", url]);
        let arguments: Vec<&str> =
            ["gateway", "--controller", &controller_url].into_iter().chain(behind).collect();
        let gateway = start("gateway", gateway, &arguments)?;
        let state = folder.join("state").display().to_string();
        let arguments = ["controller", "--gateway", &gateway.url(), "--state-dir", &state];
        let controller = start("controller", controller, &arguments)?;
        let fleet = Self { tenk: bench.tenk.clone(), folder: folder.clone(), controller, gateway, workers };
        fleet.until("version 1 is not known to be stable", |status| status["stable"] == "1")?;
        Ok(fleet)
    }

    fn load(&self, arguments: &[&str]) -> Result<Load> {
        let mut command = loadtest_run(&self.tenk, &self.gateway.url());
        command.args(["--duration-s", LOAD_S]).args(arguments);
        let report = self.folder.join("load.json");
        command.stdout(File::create(&report)?).stderr(File::create(self.folder.join("load.log"))?);
        Ok(Load { child: command.spawn().context("the load tester did not start")?, report })
    }

    /// Rolls version 2 out in these steps, and says how that ended.
    fn roll_out(
        &self,
        name: &str,
        steps: &[f64],
        judge: &Value,
        action: &str,
        load: Load,
    ) -> Result<Vec<Figure>> {
        let step = |percent: &f64| json!({"percent": percent, "time_min_s": 15});
        let steps: Vec<Value> = steps.iter().map(step).collect();
        let spec = json!({
            "model": "chat", "to": "2", "judge": judge, "strategy": {"kind": "canary", "steps": steps},
        });
        post(&format!("{}/v1/rollouts", self.controller.url()), &spec)?;
        let ended = self.until("it is not over", |status| status["rollout"]["phase"]["kind"] == "done");
        let failed = load.end()?;
        ended?;
        let history = get(&format!("{}/v1/rollouts/chat/history", self.controller.url()))?;
        let at_s = |action: &str| {
            let record = history.as_array()?.iter().find(|record| record["action"] == action)?;
            Some(record["at_ms"].as_f64()? / 1e3)
        };
        let decided = if action == "promoted" { "promoting" } else { "reverting" };
        let seconds = at_s(decided).zip(at_s("stepped")).map(|(end, begin)| end - begin);
        eprintln!("{name}: {}", reason(&history, decided));
        let was = at_s(action).is_some();
        Ok(vec![
            Figure::new(format!("{name}: {action}"), f64::from(u8::from(was)), "")
                .required(Required::AtLeast(1.0)),
            Figure::new(format!("{name}: after its first user"), seconds.unwrap_or(f64::NAN), "s"),
            Figure::new(format!("{name}: requests failed"), failed, "").required(Required::AtMost(0.0)),
        ])
    }

    fn until(&self, not_yet: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let url = format!("{}/v1/rollouts/chat", self.controller.url());
        let started = Instant::now();
        loop {
            let status = get(&url).unwrap_or_default();
            if is_so(&status) {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "{not_yet} after {} s: {status}", PATIENCE.as_secs());
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }
}

fn reason(history: &Value, action: &str) -> String {
    let found = history.as_array().into_iter().flatten().find(|record| record["action"] == action);
    found.and_then(|record| record["reason"].as_str()).unwrap_or("it came to nothing").to_owned()
}

/// A load that goes on until it is ended.
struct Load {
    child: Child,
    report: PathBuf,
}

impl Load {
    /// How many requests failed.
    fn end(mut self) -> Result<f64> {
        let mut interrupt = Command::new("kill");
        interrupt.args(["-INT", &self.child.id().to_string()]);
        output_of(interrupt)?;
        self.child.wait()?;
        let report = fs::read_to_string(&self.report)?;
        let report = serde_json::from_str(&report).context("the load tester's report is no JSON")?;
        figure(&report, "/requests/failed")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(url: &str) -> Result<Value> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail-with-body", url]);
    report_of(command)
}

fn post(url: &str, body: &Value) -> Result<()> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--header",
        "content-type: application/json",
    ]);
    command.args(["--data", &body.to_string(), url]);
    output_of(command).map(drop)
}
