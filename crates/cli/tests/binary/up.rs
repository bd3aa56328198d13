//! `tenk up`

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{HalfSent, Process, chat, eventually, get, post, run, tenk, text, tiny_model};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn the_curl_that_it_prints_is_answered_and_the_second_time_from_the_cache() {
    let (_folder, path) = tiny_model();
    let up = ["up", "--listen", "127.0.0.1:0", "--workers", "2", "--model", text(&path)];
    let mut up = Process::start(&mut tenk(up));
    let printed =
        up.stdout.wait_for("the last line", |text| text.contains("Ctrl-C").then(|| text.to_owned()));
    let address = up.address();
    assert!(printed.contains("2 workers, serving tiny"), "{printed}");
    assert!(printed.contains(&format!("http://{address}/v1")), "{printed}");
    assert!(get(address, "/metrics").body.contains("tenk_gateway"));
    let workers = worker_addresses(&printed);
    assert_eq!(workers.len(), 2, "{printed}");
    for worker in workers {
        assert_eq!(get(worker, "/metrics").status, 200, "without keys everything is open");
    }
    let answer = post(address, CHAT, &chat("tiny"));
    assert_eq!((answer.status, &answer.json()["model"]), (200, &"tiny".into()), "{answer:?}");

    let curl = printed.lines().find_map(|line| line.strip_prefix("  curl ")).expect("something to try");
    if Command::new("curl").arg("--version").output().is_ok() {
        for cache in ["x-tenk-cache: miss", "x-tenk-cache: hit"] {
            let output = Command::new("sh").args(["-c", &format!("curl -s {curl}")]).output().expect("runs");
            let output = String::from_utf8_lossy(&output.stdout);
            assert!(output.starts_with("HTTP/1.1 200"), "{output}");
            assert!(output.contains(cache), "{output}");
            assert!(output.contains("\"choices\":[{"), "{output}");
        }
    }

    // Workers end after the gateway, so that a request under way has its answer.
    let request = HalfSent::begin(address, CHAT, &chat("tiny"));
    up.signal(Signal::SIGTERM);
    up.stderr.wait_for("word that it ends", |text| text.contains("ending").then_some(()));
    assert!(up.is_running());
    assert_eq!(request.finish().status, 200);
    assert_eq!(up.wait().code, Some(0));
}

/// Where the workers listen, as it prints them.
fn worker_addresses(printed: &str) -> Vec<SocketAddr> {
    let indented =
        printed.lines().filter_map(|line| line.strip_prefix("  http://")?.strip_suffix("/metrics"));
    indented.map(|address| address.parse().expect("an address")).collect()
}

#[test]
fn with_keys_nobody_goes_round_the_gateway_to_its_workers() {
    let (_folder, path) = tiny_model();
    let keys = format!("[{{ tenant = \"a\", sha256 = \"{}\" }}]", "0".repeat(64));
    let mut command = tenk(["up", "--listen", "127.0.0.1:0", "--workers", "1", "--model", text(&path)]);
    let up = Process::start(command.env("TENK_GATEWAY__KEYS", keys));
    // It is up only once the gateway, which knows the key, has asked the worker how it is.
    let printed =
        up.stdout.wait_for("the last line", |text| text.contains("Ctrl-C").then(|| text.to_owned()));
    assert!(printed.contains("each worker has its own, behind `worker_api_key`"), "{printed}");
    for worker in worker_addresses(&printed) {
        assert_eq!(get(worker, "/v1/models").status, 401);
        assert_eq!(get(worker, "/metrics").status, 401);
        assert_eq!(get(worker, "/health/ready").status, 200);
    }
    assert_eq!(get(up.address(), "/v1/models").status, 401);
}

#[test]
fn several_models_are_served_side_by_side_each_by_workers_of_its_own() {
    let (folder, path) = tiny_model();
    let other = folder.path().join("other.gguf");
    tiny_model::write(&other, &tiny_model::Shape { seed: 2, ..Default::default() }).expect("a model");
    let models = ["--model", text(&path), "--model", text(&other)];
    let up = Process::start(tenk(["up", "--listen", "127.0.0.1:0", "--workers", "1"]).args(models));
    let printed =
        up.stdout.wait_for("the last line", |text| text.contains("Ctrl-C").then(|| text.to_owned()));
    assert!(printed.contains("2 workers, serving tiny, other"), "{printed}");
    let address = up.address();
    let content = |model: &str| {
        // It is up with the first worker that is.
        let answer = eventually("an answer", || {
            let answer = post(address, CHAT, &chat(model));
            (answer.status == 200).then_some(answer)
        });
        assert_eq!(answer.json()["model"], *model);
        answer.json()["choices"][0]["message"]["content"].clone()
    };
    assert_ne!(content("tiny"), content("other"), "they have different weights");
}

#[test]
fn two_models_of_one_name_are_refused_before_either_is_loaded() {
    let (_one, first) = tiny_model();
    let (_two, second) = tiny_model();
    let models = ["--model", text(&first), "--model", text(&second)];
    let ended = run(tenk(["up", "--listen", "127.0.0.1:0"]).args(models));
    assert!(ended.refused().contains("two models are called `tiny`; rename one of the files"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    let other = _one.path().join("other.gguf");
    std::fs::copy(&first, &other).expect("copied");
    let mut command =
        tenk(["up", "--listen", "127.0.0.1:0", "--model", text(&first), "--model", text(&other)]);
    let ended = run(command.env("TENK_MODEL__SERVED_NAME", "one"));
    assert!(ended.refused().contains("`model.served_name` names one model"), "{ended:?}");
}

#[test]
fn the_configuration_says_which_model_what_it_is_called_and_what_is_logged() {
    let (folder, path) = tiny_model();
    let config = folder.path().join("tenk.toml");
    let toml = format!(
        "[gateway]\nlisten = \"127.0.0.1:0\"\n[model]\nname = {path:?}\nserved_name = \"Mine\"\n[log]\nfilter = \"debug\"\n"
    );
    std::fs::write(&config, toml).expect("written");
    let up = Process::start(&mut tenk(["up", "--config", text(&config)]));
    let address = up.address();
    let mine = || (get(address, "/v1/models").json()["data"][0]["id"] == "Mine").then_some(());
    eventually("the model", mine);
    assert!(up.stderr.now().contains("DEBUG"), "{}", up.stderr.now());
}

#[test]
fn a_redis_that_does_not_answer_is_a_warning() {
    let (_folder, path) = tiny_model();
    // While this holds the number, nobody listens on it.
    let held = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let redis = format!("redis://127.0.0.1:{}", held.local_addr().expect("an address").port());
    let up = ["up", "--listen", "127.0.0.1:0", "--workers", "1", "--redis", &redis, "--model", text(&path)];
    let up = Process::start(&mut tenk(up));
    up.stderr.wait_for("a warning", |text| {
        let warning = text.lines().find(|line| line.starts_with("warning: Redis does not answer"))?;
        warning.contains("--redis").then_some(())
    });
    assert_eq!(post(up.address(), CHAT, &chat("tiny")).status, 200);
    let ended = run(&mut tenk(["up", "--listen", "127.0.0.1:0", "--redis", "memcached://127.0.0.1"]));
    assert!(ended.refused().contains("`response_cache.redis_url` cannot be used"), "{ended:?}");
}

#[test]
fn it_can_be_ended_while_it_waits_for_a_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("models").join("smollm2-135m-instruct");
    std::fs::create_dir_all(&model).expect("created");
    // Another process is fetching it, as far as this one can tell.
    let lock = std::fs::File::create(model.join(".lock")).expect("created");
    lock.lock().expect("locked");
    let mut command = tenk(["up", "--listen", "127.0.0.1:0"]);
    let up = Process::start(command.env("TENK_CACHE_DIR", folder.path()));
    up.stderr.wait_for("word that it waits", |text| (!text.is_empty()).then_some(()));
    up.signal(Signal::SIGTERM);
    assert_eq!(up.wait().code, Some(0));
}
