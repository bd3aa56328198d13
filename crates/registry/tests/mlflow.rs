//! A real MLflow server, and what is registered on it. `cargo xtask test --mlflow` brings the server.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "all of it is test")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model_store::{Event, Phase, Silent};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use registry::{Cache, Config, Error, NewVersion, Registry, Selector, Source};
use tempfile::TempDir;

/// The Python that has MLflow.
const PYTHON: &str = "TENK_TEST_MLFLOW";
/// It takes some 17 s on two idle cores, and more on busy ones.
const START_TIMEOUT: Duration = Duration::from_secs(240);
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// An MLflow server on a free loopback port, with everything that it keeps in a folder of its own. It ends with this.
struct Server {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Server {
    fn start(python: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(python.with_file_name("mlflow"));
        command.args(["server", "--host", "127.0.0.1", "--workers", "1"]);
        command.args(["--port", &address.port().to_string()]);
        command.args(["--backend-store-uri", &format!("sqlite:///{}/mlflow.db", folder.path().display())]);
        command.arg("--artifacts-destination").arg(folder.path().join("artifacts"));
        command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false").current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        // A group of its own, so that its children end with it.
        let child = command.process_group(0).spawn().expect("MLflow starts");
        let mut server = Self { child, address, folder };
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait().expect("can be asked");
            assert!(ended.is_none() && started.elapsed() < START_TIMEOUT, "{ended:?}: {}", server.log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn registry(&self, cache: &Path) -> Registry {
        let config =
            Config { url: Some(format!("http://{}/", self.address)), timeout_s: 60, ..Config::default() };
        let fetch = model_store::Config { proxy_from_env: false, ..model_store::Config::default() };
        Registry::open_in(&config, Cache { root: cache.to_owned(), fetch }).expect("opens")
    }

    /// Files that were put on it.
    fn artifacts(&self) -> Vec<PathBuf> {
        let mut open = vec![self.folder.path().join("artifacts")];
        let mut files = Vec::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(path).expect("listed").map(|entry| entry.expect("listed").path()));
            } else {
                files.push(path);
            }
        }
        files
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        // Not waited for yet, so the number is still its own.
        let _ = killpg(group, Signal::SIGTERM);
        let started = Instant::now();
        while started.elapsed() < END_TIMEOUT && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of MLflow\n{}", self.log());
        }
    }
}

/// A file of so many bytes that no compression makes small, and a version of `tiny` made of it.
fn new_version(folder: &Path, name: &str, bytes: usize, seed: u64) -> NewVersion {
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let path = folder.join(name);
    fs::write(&path, noise.take(bytes).collect::<Vec<u8>>()).expect("written");
    NewVersion::new("tiny", Source::Path(path))
}

#[test]
fn a_real_mlflow_keeps_versions_aliases_and_files_and_gives_them_back_to_the_bit() {
    let Some(python) = std::env::var_os(PYTHON) else {
        eprintln!("passed over: {PYTHON} is not set; `cargo xtask test --mlflow` sets it");
        return;
    };
    let started = Instant::now();
    let server = Server::start(Path::new(&python));
    eprintln!("MLflow answered after {:.1} s", started.elapsed().as_secs_f64());
    let folder = tempfile::tempdir().expect("a folder");
    let caches = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let registry = server.registry(caches[0].path());

    nothing_is_there_yet(&registry);
    versions_are_registered(&registry, &server, folder.path());
    aliases_move_and_go(&registry);
    notes_are_added(&registry);
    files_come_back(&registry, &server.registry(caches[1].path()), caches[1].path(), &server);
    eprintln!("all of it took {:.1} s", started.elapsed().as_secs_f64());
}

fn nothing_is_there_yet(registry: &Registry) {
    assert_eq!(registry.names().expect("answered"), [""; 0]);
    assert_eq!(registry.versions("tiny").expect("answered"), []);
    assert_eq!(registry.aliases("tiny").expect("answered"), BTreeMap::new());
    assert!(!registry.remove_alias("tiny", "stable").expect("answered"));
    for selector in [Selector::Number(1), Selector::Alias("stable".into())] {
        assert!(matches!(registry.get("tiny", &selector), Err(Error::UnknownModel { .. })), "{selector}");
    }
    assert!(matches!(registry.set_alias("tiny", "stable", 1), Err(Error::UnknownModel { .. })));
}

fn versions_are_registered(registry: &Registry, server: &Server, folder: &Path) {
    let mut first = new_version(folder, "my tiny.gguf", 3_000_000, 1);
    first.quantization = Some("q8_0".into());
    first.metrics = BTreeMap::from([("perplexity".into(), 0.1 + 0.2)]);
    first.tags = BTreeMap::from([("team".into(), "search & \"rank\"".into())]);
    let made = registry.register_with(&first, &Silent).expect("registered");
    assert!(made.is_new && made.version.version == 1, "{made:?}");
    let first_back = registry.get("tiny", &Selector::Number(1)).expect("there");
    assert_eq!(first_back, made.version);
    assert_eq!((&first_back.metrics, &first_back.tags), (&first.metrics, &first.tags));
    assert_eq!((first_back.size_bytes, first_back.quantization.as_deref()), (3_000_000, Some("q8_0")));
    assert!(first_back.source.to_string().starts_with("mlflow-artifacts:/"), "{first_back:?}");
    assert_eq!(server.artifacts().len(), 1);

    let again = registry.register_with(&first, &Silent).expect("registered");
    assert_eq!((again.is_new, &again.version), (false, &first_back));
    assert_eq!(server.artifacts().len(), 1, "nothing is put there twice");

    let second = registry.register(&new_version(folder, "second.gguf", 10, 2)).expect("registered");
    let simulated = registry.register(&NewVersion::new("tiny", Source::Simulated)).expect("registered");
    assert_eq!((second.version, simulated.version), (2, 3));
    assert_eq!((&simulated.source, &simulated.checksum), (&Source::Simulated, &None));
    let all = registry.versions("tiny").expect("answered");
    assert_eq!(all, [first_back, second, simulated.clone()]);
    assert_eq!(registry.names().expect("answered"), ["tiny"]);
    assert!(matches!(registry.fetch(&simulated, &Silent), Err(Error::Simulated { .. })));

    let folder = NewVersion::new("tiny", Source::Path(folder.to_owned()));
    assert!(matches!(registry.register(&folder), Err(Error::BadSource { .. })), "a folder is no file");
}

fn aliases_move_and_go(registry: &Registry) {
    let stable = Selector::Alias("stable".into());
    registry.set_alias("tiny", "stable", 1).expect("set");
    registry.set_alias("tiny", "canary-2", 2).expect("set");
    assert_eq!(registry.get("tiny", &stable).expect("there").version, 1);
    registry.set_alias("tiny", "stable", 2).expect("moved");
    assert_eq!(registry.get("tiny", &stable).expect("there").version, 2);
    let aliases = BTreeMap::from([("canary-2".into(), 2), ("stable".into(), 2)]);
    assert_eq!(registry.aliases("tiny").expect("answered"), aliases);
    assert!(registry.remove_alias("tiny", "canary-2").expect("removed"));
    assert!(!registry.remove_alias("tiny", "canary-2").expect("gone already"));
    let absent = registry.get("tiny", &Selector::Alias("canary-2".into())).expect_err("gone").to_string();
    assert!(absent.contains("versions 1 to 3 and the aliases stable (version 2)"), "{absent}");
    assert!(matches!(registry.set_alias("tiny", "stable", 9), Err(Error::UnknownVersion { version: 9, .. })));
    assert!(matches!(registry.get("tiny", &Selector::Number(9)), Err(Error::UnknownVersion { .. })));
}

fn notes_are_added(registry: &Registry) {
    let before = registry.get("tiny", &Selector::Number(2)).expect("there");
    let metrics = BTreeMap::from([("loss".to_owned(), 2.5), ("perplexity".to_owned(), 9.0)]);
    let tags = BTreeMap::from([("team".to_owned(), "other".to_owned())]);
    let after = registry.annotate("tiny", 2, &metrics, &tags).expect("annotated");
    assert_eq!((&after.metrics, &after.tags), (&metrics, &tags));
    assert_eq!((after.checksum, after.source), (before.checksum, before.source));
    assert!(matches!(registry.annotate("tiny", 9, &metrics, &tags), Err(Error::UnknownVersion { .. })));
}

/// `elsewhere` has a cache of its own, as another machine would.
fn files_come_back(registry: &Registry, elsewhere: &Registry, cache: &Path, server: &Server) {
    let version = registry.get("tiny", &Selector::Number(1)).expect("there");
    let original =
        server.artifacts().into_iter().find(|path| path.ends_with("my_tiny.gguf")).expect("put there");
    let bytes = fs::read(&original).expect("readable");
    assert_eq!(elsewhere.local_path(&version), None);

    // What an earlier fetch left: half the file, from which the next one goes on.
    let sum = version.checksum.clone().expect("a sum");
    let target = cache.join("models").join(format!("sha256@{sum}")).join("my_tiny.gguf");
    fs::create_dir_all(target.parent().expect("a folder")).expect("made");
    fs::write(target.with_added_extension("part"), &bytes[..1_000_000]).expect("written");
    let least = std::cell::Cell::new(u64::MAX);
    let progress = |event: Event<'_>| match event {
        Event::Started { phase: Phase::Downloading, .. } => least.set(u64::MAX),
        Event::Advanced { bytes_done } => least.set(least.get().min(bytes_done)),
        _ => {}
    };
    let path = elsewhere.fetch(&version, &progress).expect("fetched");
    assert_eq!((&path, fs::read(&path).expect("readable")), (&target, bytes.clone()));
    assert!(least.get() > 1_000_000, "it went on from what was there, and began at {}", least.get());
    assert_eq!(elsewhere.local_path(&version), Some(path.clone()));

    // A file that was changed on the server is refused, and is not left lying about.
    let mut changed = bytes;
    changed[2_000_000] ^= 1;
    fs::write(&original, &changed).expect("written");
    assert_eq!(elsewhere.fetch(&version, &Silent).expect("the cache's"), path);
    fs::remove_file(&path).expect("removed");
    let refused = elsewhere.fetch(&version, &Silent).expect_err("another file").to_string();
    assert!(refused.contains(&sum) && refused.matches("SHA-256").count() == 1, "{refused}");
    assert!(!path.exists());
}
