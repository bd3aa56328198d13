use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

fn fault(at_s: f64, action: FaultAction) -> Fault {
    Fault { at_s, action }
}

/// A process that does nothing, ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep is there"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    async fn is_in(&self, state: char) {
        while process::state(self.pid()) != Some(state) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn steps_come_in_order_of_time_and_a_pause_is_two() {
    let faults = [
        fault(5.0, FaultAction::Kill { pid: 7 }),
        fault(1.0, FaultAction::Pause { pid: 8, for_s: 4.0 }),
        fault(0.5, FaultAction::Inject { worker: "http://localhost:1".into(), fault: json!({"hang": true}) }),
    ];
    let steps = steps(&faults).expect("sound");
    let told: Vec<(f64, &str)> = steps.iter().map(|step| (step.at_s, step.what.as_str())).collect();
    assert_eq!(
        told,
        [
            (0.5, "tell http://localhost:1 {\"hang\":true}"),
            (1.0, "pause process 8 for 4 s"),
            (5.0, "kill process 7"),
            (5.0, "let process 8 go on"),
        ]
    );
}

#[test]
fn what_is_not_ones_own_or_not_here_is_refused_before_the_run() {
    let refused =
        |action: FaultAction| Timeline::new(&[fault(0.0, action)]).expect_err("refused").to_string();
    assert!(refused(FaultAction::Kill { pid: 1 }).contains("not one to be disturbed"));
    assert!(refused(FaultAction::Kill { pid: 0 }).contains("not one to be disturbed"));
    assert!(refused(FaultAction::Kill { pid: u32::MAX }).contains("no process number"));
    assert!(refused(FaultAction::Kill { pid: i32::MAX as u32 }).contains("cannot be signalled"));
    assert!(refused(FaultAction::Kill { pid: std::process::id() }).contains("the tester itself"));
    let inject = |worker: &str| FaultAction::Inject { worker: worker.into(), fault: json!({}) };
    assert!(refused(inject("http://10.0.0.1:80")).contains("loopback"));
    assert!(refused(inject("http://127.0.0.1.example:80")).contains("loopback"));
    assert!(refused(inject("https://127.0.0.1")).contains("http://"));
    for worker in ["http://127.0.0.1:80", "http://[::1]:80/", "http://localhost:80"] {
        Timeline::new(&[fault(0.0, inject(worker))]).expect("on this machine");
    }
    let late = Timeline::new(&[fault(f64::NAN, inject("http://localhost"))]);
    assert!(late.expect_err("refused").to_string().contains("at_s"));
}

#[tokio::test]
async fn a_process_is_killed_at_its_time() {
    let mut sleeper = Sleeper::start();
    let timeline = Timeline::new(&[fault(0.0, FaultAction::Kill { pid: sleeper.pid() })]).expect("ours");
    let events = timeline.run(Instant::now(), &CancellationToken::new()).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].error, None);
    assert_eq!(sleeper.0.wait().expect("ended").signal(), Some(9));
}

#[tokio::test]
async fn a_process_that_has_ended_is_left_alone_and_told() {
    let mut sleeper = Sleeper::start();
    let timeline = Timeline::new(&[fault(0.0, FaultAction::Kill { pid: sleeper.pid() })]).expect("ours");
    sleeper.0.kill().expect("killed");
    sleeper.0.wait().expect("ended");
    let events = timeline.run(Instant::now(), &CancellationToken::new()).await;
    assert_eq!(events[0].error.as_deref(), Some("the process has ended"));
}

#[tokio::test]
async fn a_pause_ends_after_its_time() {
    let sleeper = Sleeper::start();
    let pause = FaultAction::Pause { pid: sleeper.pid(), for_s: 0.01 };
    let timeline = Timeline::new(&[fault(0.0, pause)]).expect("ours");
    let events = timeline.run(Instant::now(), &CancellationToken::new()).await;
    assert_eq!(events.iter().filter(|event| event.error.is_some()).count(), 0, "{events:?}");
    assert_eq!(events.len(), 2);
    assert!(events[0].what.contains("pause") && events[1].at_s >= 0.01, "{events:?}");
    sleeper.is_in('S').await;
}

#[tokio::test]
async fn a_paused_process_goes_on_when_the_run_is_stopped() {
    let sleeper = Sleeper::start();
    let pause = FaultAction::Pause { pid: sleeper.pid(), for_s: 3_600.0 };
    let timeline = Timeline::new(&[fault(0.0, pause)]).expect("ours");
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { timeline.run(Instant::now(), &stop).await }
    });
    sleeper.is_in('T').await;
    stop.cancel();
    let events = running.await.expect("no panic");
    sleeper.is_in('S').await;
    assert!(events[1].what.contains("for the run is over"), "{events:?}");
}

#[tokio::test]
async fn a_paused_process_goes_on_when_the_timeline_is_dropped() {
    let sleeper = Sleeper::start();
    let pause = FaultAction::Pause { pid: sleeper.pid(), for_s: 3_600.0 };
    let timeline = Timeline::new(&[fault(0.0, pause)]).expect("ours");
    let running = tokio::spawn(async move { timeline.run(Instant::now(), &CancellationToken::new()).await });
    sleeper.is_in('T').await;
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    sleeper.is_in('S').await;
}

/// A server that takes faults, and refuses those that say so; its address, and what it was told.
async fn worker() -> (String, mpsc::Receiver<(String, serde_json::Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (told, hears) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let told = told.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let told = told.clone();
                async move {
                    let path = format!("{} {}", request.method(), request.uri().path());
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let fault: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                    let status = if fault["refuse"] == true { 400 } else { 200 };
                    told.send((path, fault)).await.expect("heard");
                    let response =
                        Response::builder().status(status).body(Full::new(Bytes::from("no\nsuch fault")));
                    Ok::<_, http::Error>(response.expect("a response"))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    });
    (address, hears)
}

#[tokio::test]
async fn a_fault_is_posted_to_a_worker_and_a_refusal_is_told() {
    let (worker, mut hears) = worker().await;
    let inject = |fault: serde_json::Value| FaultAction::Inject { worker: worker.clone(), fault };
    let faults = [
        fault(0.0, inject(json!({"kind": "slow", "factor": 3}))),
        fault(0.0, inject(json!({"refuse": true}))),
        fault(0.0, FaultAction::Inject { worker: "http://127.0.0.1:1".into(), fault: json!({}) }),
    ];
    let timeline = Timeline::new(&faults).expect("on this machine");
    let events = timeline.run(Instant::now(), &CancellationToken::new()).await;
    let mut heard = [hears.recv().await.expect("told"), hears.recv().await.expect("told")];
    heard.sort_by_key(|(_, fault)| fault["refuse"] == true);
    assert_eq!(heard[0], ("POST /admin/faults".to_owned(), json!({"kind": "slow", "factor": 3})));
    let error_of = |what: &str| {
        events.iter().find(|event| event.what.contains(what)).and_then(|event| event.error.clone())
    };
    assert_eq!(error_of("slow"), None);
    assert_eq!(error_of("refuse").as_deref(), Some("400: no such fault"));
    assert!(error_of("http://127.0.0.1:1 ").is_some());
}
