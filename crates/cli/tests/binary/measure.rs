//! `tenk loadtest`, `tenk lab` and `tenk bench`

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use ::tiny_model::Shape;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Process, eventually, get, run, tenk, text, tiny_model};

#[test]
fn a_load_test_that_is_asked_to_end_reports_what_it_measured() {
    let worker = Process::start(&mut tenk(["worker", "--engine", "simulated", "--listen", "127.0.0.1:0"]));
    let address = worker.address();
    let target = format!("http://{address}");
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        if is_ignored(signal) {
            continue;
        }
        let before = generated(address);
        let run =
            ["loadtest", "run", "--target", &target, "--duration-s", "600", "--max-tokens", "2", "--json"];
        let run = Process::start(&mut tenk(run));
        eventually("some answers", || (generated(address) > before + 100.0).then_some(()));
        run.signal(signal);
        let ended = run.wait();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a report");
        assert_eq!(report["interrupted"], true);
        assert!(report["requests"]["succeeded"].as_u64() >= Some(10), "{report}");
    }
}

#[test]
fn a_load_test_under_nohup_goes_on_when_its_terminal_closes() {
    let worker = Process::start(&mut tenk(["worker", "--engine", "simulated", "--listen", "127.0.0.1:0"]));
    let address = worker.address();
    let line = format!(
        "trap '' HUP; exec {} loadtest run --target http://{address} --duration-s 600 --max-tokens 2 --json",
        env!("CARGO_BIN_EXE_tenk")
    );
    let run = Process::start(std::process::Command::new("sh").args(["-c", &line]));
    for _ in 0..2 {
        let before = generated(address);
        eventually("some answers", || (generated(address) > before + 100.0).then_some(()));
        run.signal(Signal::SIGHUP);
    }
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code, Some(143));
}

/// How many tokens a worker has made.
fn generated(worker: SocketAddr) -> f64 {
    let metrics = get(worker, "/metrics").body;
    let count = metrics.lines().find(|line| line.starts_with("vllm:generation_tokens_total"));
    count.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
}

#[test]
fn a_run_a_search_and_a_sweep_count_prompts_by_the_tokenizer_that_is_given() {
    let worker = Process::start(&mut tenk(["worker", "--engine", "simulated", "--listen", "127.0.0.1:0"]));
    let target = format!("http://{}", worker.address());
    let (folder, model) = tiny_model();
    let loadtest = |command: &[&str], tokenizer: &str, dir: &std::path::Path| {
        let common =
            ["--target", &target, "--max-tokens", "2", "--prompt-tokens", "800", "--tokenizer", tokenizer];
        run(tenk(["loadtest"]).args(command).args(common).args(["--report-dir", text(dir)]))
    };
    for (command, report) in [
        (&["run", "--requests", "4"][..], "report.json"),
        (
            &[
                "search",
                "--assert",
                "e2e_max_ms < 60000",
                "--requests",
                "2",
                "--repeats",
                "1",
                "--runs-max",
                "1",
            ],
            "run-000/report.json",
        ),
        (&["sweep", "--requests", "2", "--field", "users", "--values", "1,2"], "run-001/report.json"),
    ] {
        let dir = folder.path().join(command[0]);
        let ended = loadtest(command, text(&model), &dir);
        let report = std::fs::read(dir.join(report)).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let report: serde_json::Value = serde_json::from_slice(&report).expect("a report");
        assert_eq!(report["prompt_basis"]["kind"], "tokenizer");
        // The file has a token a byte, the worker's own vocabulary has not.
        let number = |part: &str, name: &str| report[part][name].as_f64().expect("a number");
        let prompt_tokens = number("tokens", "prompt") / number("requests", "succeeded");
        assert!(prompt_tokens < 600.0, "{report}");
        let absent = loadtest(command, "absent.gguf", &dir);
        let why = "absent.gguf must be a tokenizer.json, the folder of one, or a .gguf file, but its tokenizer cannot be \
                   used: No such file or directory (os error 2)";
        assert_eq!(absent.refused(), why);
    }
}

#[test]
fn a_labs_server_ends_with_the_lab_however_that_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, pid_file) = (folder.path().join("program"), folder.path().join("pid"));
    // In place of the model that a lab serves, a simulated one that is slow enough to be there until the end.
    let script = format!(
        "#!/bin/sh\nshift 3\necho $$ > {}\nexec {} worker --engine simulated --profile cpu-smollm2-135m \"$@\"\n",
        text(&pid_file),
        env!("CARGO_BIN_EXE_tenk")
    );
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("may be run");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        if is_ignored(signal) {
            continue;
        }
        let _ = std::fs::remove_file(&pid_file);
        let lab = ["lab", "run", "kv-cache", "--yes", "--program", text(&program), "--report-dir"];
        let lab = Process::start(tenk(lab).arg(folder.path().join("report")));
        let pid = eventually("a server", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        lab.stdout.wait_for("a load", |text| (text.matches('…').count() > 1).then_some(()));
        lab.signal(signal);
        let code = lab.wait().code;
        let caught = [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129)];
        assert_eq!(code, caught.iter().find(|(caught, _)| *caught == signal).map(|(_, code)| *code));
        eventually("the server's end", || has_ended(pid).then_some(()));
    }
}

/// Whether a process has ended. Where nobody collects orphans, one that has keeps its number.
fn has_ended(pid: i32) -> bool {
    let is_uncollected =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    kill(Pid::from_raw(pid), None).is_err() || is_uncollected()
}

#[test]
fn a_bench_starts_workers_of_its_own_and_writes_what_it_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, report) = (folder.path().join("tiny.gguf"), folder.path().join("report.json"));
    let shape = Shape { context_len: 4096, ..Shape::default() };
    ::tiny_model::write(&model, &shape).expect("writes");
    let mut command = tenk(["bench", "engine", "--only", "prefill,http,prefix,memory,start", "--pairs", "1"]);
    command.args(["--threads", "2", "--model", text(&model), "--json", text(&report)]);
    let ended = run(&mut command);
    assert_eq!(ended.stderr, "", "no progress where nobody looks");
    let table = ended.succeeded();
    assert!(table.contains("start to ready") && !table.contains("in process"), "{table}");

    let report = std::fs::read_to_string(&report).expect("written");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["peaks"].is_null(), "nothing was measured in that process");
    let figures = report["figures"].as_array().expect("figures");
    let ids: Vec<&str> = figures.iter().filter_map(|figure| figure["id"].as_str()).collect();
    let expected = ["prefill", "prefill_ttft", "http_8", "prefix_ttft", "resident", "most_resident", "ready"];
    assert_eq!(ids, expected);
    for figure in figures {
        assert!(figure["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{figure}");
        assert_eq!(
            figure["ratio"].is_null(),
            figure["id"] != "prefix_ttft",
            "nobody else was measured: {figure}"
        );
    }
}

#[test]
fn a_bench_that_is_interrupted_ends_what_it_started() {
    let (_folder, model) = tiny_model();
    let bench = ["bench", "engine", "--only", "prefill", "--pairs", "1000000", "--threads", "1", "--model"];
    let bench = Process::start(tenk(bench).arg(&model));
    let workers = children_of(bench.id());
    bench.signal(Signal::SIGINT);
    let ended = bench.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{ended:?}");
    assert!(ended.stderr.contains("nothing is reported"), "{ended:?}");
    for worker in workers {
        eventually("the worker's end", || has_ended(worker).then_some(()));
    }
}

/// The processes that one has started, once there are some.
fn children_of(process: u32) -> Vec<i32> {
    eventually("a child", || {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let read = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children"));
        let children: String = threads.flatten().flat_map(read).collect();
        let children: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        (!children.is_empty()).then_some(children)
    })
}

#[test]
fn what_keeps_a_core_busy_ends_with_its_standard_input() {
    let mut spinner = tenk(["bench", "spin"]);
    let mut spinner = spinner.stdin(std::process::Stdio::piped()).spawn().expect("starts");
    assert!(
        spinner.try_wait().expect("is a child").is_none(),
        "it goes on while somebody holds the other end"
    );
    drop(spinner.stdin.take());
    assert!(spinner.wait().expect("ends").success());
}

/// Whether this process, and so those that it starts, do not hear a signal: `nohup` does that to SIGHUP.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("it is in there");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("hexadecimal");
    mask >> (signal as u32 - 1) & 1 == 1
}
