use std::sync::Mutex;

use super::*;
use crate::http::agent;
use crate::progress::Silent;
use crate::test_server::{Reply, Seen, TestServer};
use crate::wheel::tests::sha256;

fn quick() -> Config {
    Config {
        connect_timeout_ms: 2_000,
        stall_timeout_ms: 2_000,
        retries_max: 2,
        retry_backoff_ms: 1,
        retry_backoff_max_ms: 1,
        proxy_from_env: false,
        ..Config::default()
    }
}

/// Bytes that differ from place to place, so that a seam in the wrong place shows.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect()
}

struct Fixture {
    dir: tempfile::TempDir,
    config: Config,
    notes: Mutex<Vec<String>>,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), config: quick(), notes: Mutex::default() }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("m.gguf")
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("m.gguf.part")
    }

    fn fetch(&self, url: &str, size_bytes: Option<u64>, sum: Option<&str>) -> Result<Fetched, Error> {
        let progress = |event: Event<'_>| {
            if let Event::Note(text) = event {
                self.notes.lock().unwrap().push(text.to_owned());
            }
        };
        let agent = agent(&self.config, self.config.connect_timeout_ms);
        let target = self.target();
        Downloader::new(agent, &self.config, &progress).fetch(&Request {
            url,
            what: "m.gguf",
            target: &target,
            size_bytes,
            sha256: sum,
            bearer: None,
        })
    }

    fn fetch_pinned(&self, server: &TestServer, body: &[u8]) -> Result<Fetched, Error> {
        self.fetch(&server.url("/m.gguf"), Some(body.len() as u64), Some(sha256(body)))
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().join("\n")
    }
}

fn starts(server: &TestServer) -> Vec<Option<usize>> {
    server.seen().into_iter().map(|seen| seen.range_start).collect()
}

#[test]
fn a_file_arrives_under_its_name_with_its_checksum() {
    let body = content(500_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| Reply::ranged(&served, seen));
    let fixture = Fixture::new();
    let fetched = fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(fetched, Fetched { size_bytes: 500_000, sha256: sha256(&body).to_owned() });
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
    assert!(!fixture.part().exists());
}

#[test]
fn a_broken_connection_is_gone_on_from_where_it_broke() {
    let body = content(300_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| match seen.nth {
        0 => Reply::ranged(&served, seen).broken_after(100_000),
        1 => Reply::ranged(&served, seen).broken_after(50_000),
        _ => Reply::ranged(&served, seen),
    });
    let fixture = Fixture::new();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
    assert_eq!(starts(&server), [None, Some(100_000), Some(150_000)]);
    assert!(fixture.notes().contains("trying again"), "{}", fixture.notes());
}

#[test]
fn any_number_of_breaks_is_survived_while_each_attempt_gets_further() {
    let body = content(20_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| Reply::ranged(&served, seen).broken_after(1_000));
    let fixture = Fixture::new();
    assert!(fixture.config.retries_max < 19);
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(server.seen().len(), 20);
}

#[test]
fn attempts_that_bring_nothing_new_are_bounded_and_what_came_is_kept() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| {
        let bytes = if seen.nth == 0 { 4_000 } else { 0 };
        Reply::ranged(&served, seen).broken_after(bytes)
    });
    let fixture = Fixture::new();
    let error = fixture.fetch_pinned(&server, &body).unwrap_err();
    assert!(matches!(error, Error::BrokenOff { failures: 3, .. }), "{error}");
    assert_eq!(starts(&server), [None, Some(4_000), Some(4_000)]);
    assert_eq!(fs::read(fixture.part()).unwrap(), body[..4_000]);
    assert!(!fixture.target().exists());
}

#[test]
fn a_part_of_an_earlier_run_is_gone_on_from() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| Reply::ranged(&served, seen));
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body[..7_000]).unwrap();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(starts(&server), [Some(7_000)]);
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
}

#[test]
fn a_part_that_is_whole_needs_no_request() {
    let body = content(10_000);
    let server = TestServer::start(|_| Reply::status(500));
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body).unwrap();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(server.seen(), []);
}

#[test]
fn a_part_of_another_file_costs_one_fresh_start() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| Reply::ranged(&served, seen));
    let fixture = Fixture::new();
    fs::write(fixture.part(), vec![9; 7_000]).unwrap();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(starts(&server), [Some(7_000), None]);
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
    assert!(fixture.notes().contains("starting over"), "{}", fixture.notes());
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |_| Reply::whole(&served));
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body[..7_000]).unwrap();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(starts(&server), [Some(7_000)]);
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
}

#[test]
fn a_server_that_ignores_ranges_and_breaks_at_one_place_is_given_up() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |_| Reply::whole(&served).broken_after(4_000));
    let fixture = Fixture::new();
    let error = fixture.fetch_pinned(&server, &body).unwrap_err();
    assert!(matches!(error, Error::BrokenOff { .. }), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn an_answer_with_another_range_is_not_appended() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| match seen.nth {
        0 => Reply::ranged(&served, &Seen { range_start: Some(5_000), ..seen.clone() }),
        _ => Reply::ranged(&served, seen),
    });
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body[..7_000]).unwrap();
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
}

#[test]
fn a_wrong_checksum_deletes_the_part_and_says_so() {
    let body = content(10_000);
    let server = TestServer::start(|_| Reply::whole(&[7; 10_000]));
    let fixture = Fixture::new();
    let error = fixture.fetch_pinned(&server, &body).unwrap_err();
    assert!(matches!(error, Error::WrongChecksum { .. }), "{error}");
    assert!(error.to_string().contains("it was deleted"), "{error}");
    assert!(!fixture.part().exists() && !fixture.target().exists());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_wrong_size_is_seen_before_the_body_is_read() {
    let body = content(10_000);
    let server = TestServer::start(|_| Reply::whole(&[7; 9_999]));
    let error = Fixture::new().fetch_pinned(&server, &body).unwrap_err();
    assert!(matches!(error, Error::WrongSize { expected_bytes: 10_000, actual_bytes: 9_999, .. }), "{error}");
}

#[test]
fn an_unknown_size_is_held_below_the_limit() {
    let server = TestServer::start(|_| Reply::whole(&[7; 9_999]));
    let mut fixture = Fixture::new();
    fixture.config.file_bytes_max = 5_000;
    let error = fixture.fetch(&server.url("/x"), None, None).unwrap_err();
    assert!(matches!(error, Error::WrongSize { expected_bytes: 5_000, .. }), "{error}");
    assert!(!fixture.target().exists());
}

#[test]
fn without_a_checksum_nothing_is_gone_on_from() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| match seen.nth {
        0 => Reply::ranged(&served, seen).broken_after(4_000),
        _ => Reply::ranged(&served, seen),
    });
    let fixture = Fixture::new();
    fs::write(fixture.part(), [9; 100]).unwrap();
    fixture.fetch(&server.url("/config.json"), None, None).unwrap();
    assert_eq!(starts(&server), [None, None]);
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
}

#[test]
fn a_missing_file_is_not_asked_for_again() {
    let server = TestServer::start(|_| Reply::status(404));
    let error = Fixture::new().fetch_pinned(&server, b"abc").unwrap_err();
    assert!(matches!(error, Error::Status { status: 404, .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let body = content(1_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| match seen.nth {
        0 => Reply::status(503),
        1 => Reply::status(429),
        _ => Reply::ranged(&served, seen),
    });
    Fixture::new().fetch_pinned(&server, &body).unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_connection_that_brings_no_byte_counts_as_broken() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| match seen.nth {
        0 => Reply::ranged(&served, seen).stalling_after(4_000),
        _ => Reply::ranged(&served, seen),
    });
    let mut fixture = Fixture::new();
    fixture.config.stall_timeout_ms = 100;
    fixture.fetch_pinned(&server, &body).unwrap();
    assert_eq!(starts(&server), [None, Some(4_000)]);
    assert_eq!(fs::read(fixture.target()).unwrap(), body);
}

#[test]
fn where_nobody_listens_there_is_one_attempt() {
    // A reserved port, as one that was just free may be another test's by now.
    let url = "http://127.0.0.1:1/m.gguf?signature=secret";
    let fixture = Fixture::new();
    let error = fixture.fetch(url, Some(3), Some(sha256(b"abc"))).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(fixture.notes(), "");
}

#[test]
fn a_redirect_keeps_the_range_and_drops_the_token() {
    let body = content(10_000);
    let served = body.clone();
    let storage = TestServer::start(move |seen| Reply::ranged(&served, seen));
    let to = storage.url("/blob");
    let hub = TestServer::start(move |_| Reply::redirect(&to));
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body[..6_000]).unwrap();
    let config = quick();
    let fetched = Downloader::new(agent(&config, 2_000), &config, &Silent).fetch(&Request {
        url: &hub.url("/m.gguf"),
        what: "m.gguf",
        target: &fixture.target(),
        size_bytes: Some(10_000),
        sha256: Some(sha256(&body)),
        bearer: Some("hf_secret"),
    });
    fetched.unwrap();
    assert_eq!(hub.seen()[0].authorization.as_deref(), Some("Bearer hf_secret"));
    assert_eq!(storage.seen()[0].authorization, None);
    assert_eq!(starts(&storage), [Some(6_000)]);
}

#[test]
fn progress_begins_where_the_part_ends_and_reaches_the_size() {
    let body = content(10_000);
    let served = body.clone();
    let server = TestServer::start(move |seen| Reply::ranged(&served, seen));
    let fixture = Fixture::new();
    fs::write(fixture.part(), &body[..6_000]).unwrap();
    let done = Mutex::new(Vec::new());
    let progress = |event: Event<'_>| match event {
        Event::Started { phase, bytes_total, .. } => {
            done.lock().unwrap().push(format!("{phase} {bytes_total:?}"));
        }
        Event::Advanced { bytes_done } => done.lock().unwrap().push(bytes_done.to_string()),
        _ => {}
    };
    let config = quick();
    Downloader::new(agent(&config, 2_000), &config, &progress)
        .fetch(&Request {
            url: &server.url("/m.gguf"),
            what: "m.gguf",
            target: &fixture.target(),
            size_bytes: Some(10_000),
            sha256: Some(sha256(&body)),
            bearer: None,
        })
        .unwrap();
    let done = done.into_inner().unwrap();
    assert_eq!(done[..3], ["checking Some(6000)", "6000", "downloading Some(10000)"]);
    assert_eq!(done.last().unwrap(), "10000");
}
