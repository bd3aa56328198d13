//! `tenk loadtest`

use nix::sys::signal::Signal;

use crate::harness::{Process, eventually, get, tenk};

#[test]
fn a_load_test_that_is_asked_to_end_reports_what_it_measured() {
    let worker = Process::start(&mut tenk(["worker", "--engine", "simulated", "--listen", "127.0.0.1:0"]));
    let address = worker.address();
    let target = format!("http://{address}");
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let generated = || {
            let metrics = get(address, "/metrics").body;
            let count = metrics.lines().find(|line| line.starts_with("vllm:generation_tokens_total"));
            count.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
        };
        let before = generated();
        let run =
            ["loadtest", "run", "--target", &target, "--duration-s", "600", "--max-tokens", "2", "--json"];
        let run = Process::start(&mut tenk(run));
        eventually("some answers", || (generated() > before + 100.0).then_some(()));
        run.signal(signal);
        let ended = run.wait();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("a report");
        assert_eq!(report["interrupted"], true);
        assert!(report["requests"]["succeeded"].as_u64() >= Some(10), "{report}");
    }
}
