//! Starts the binary, reads what it says, asks it over HTTP, and ends it.

use std::fmt::Debug;
use std::io::Read;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Far above what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// The binary with these arguments, deaf to the environment of whoever runs the tests and without a model.
pub(crate) fn tenk<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenk"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("TENK_CACHE_DIR", "/nonexistent/tenk").args(args);
    command
}

/// A folder with a tiny model, `tiny.gguf`, in it.
pub(crate) fn tiny_model() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, &tiny_model::Shape::default()).expect("a model");
    (folder, path)
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A process that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What a command printed that succeeded.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The one sentence of a command that could not do what was asked.
    pub(crate) fn refused(&self) -> &str {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert_eq!(self.stderr.matches("tenk: ").count(), 1, "{self:?}");
        last.strip_prefix("tenk: ").unwrap_or_else(|| panic!("its last line is no sentence: {self:?}"))
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    Process::start(command).wait()
}

/// A process and all that it has written. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Output::read(child.stdout.take().expect("piped"));
        let stderr = Output::read(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// Where it says that it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stderr.wait_for("an address", |text| {
            let (_, rest) = text.split_once("listening on http://")?;
            // The end of the line, so that the port is whole.
            rest.split_once('\n')?.0.parse().ok()
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // Not waited for yet, so the number is still its own.
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("can be asked").is_none()
    }

    pub(crate) fn wait(mut self) -> Ended {
        let status = eventually("the end of the process", || self.child.try_wait().ok().flatten());
        let (stdout, stderr) = (self.stdout.join(), self.stderr.join());
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {:?}\nstdout:\n{}\nstderr:\n{}", self.child, self.stdout.now(), self.stderr.now());
        }
    }
}

/// What a process has written so far to one of its outputs.
#[derive(Debug)]
pub(crate) struct Output {
    text: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let mut all = Vec::new();
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                all.extend_from_slice(&bytes[..count]);
                *shared.0.lock().unwrap_or_else(PoisonError::into_inner) =
                    String::from_utf8_lossy(&all).into_owned();
                shared.1.notify_all();
            }
        });
        Self { text, reader: Some(reader) }
    }

    pub(crate) fn now(&self) -> String {
        self.text.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `find` finds something in it.
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let started = Instant::now();
        let (text, changed) = &*self.text;
        let mut text = text.lock().expect("not poisoned");
        loop {
            if let Some(found) = find(&text) {
                return found;
            }
            let left = PATIENCE.saturating_sub(started.elapsed());
            let ended = self.reader.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!left.is_zero() && !ended, "no {what} (ended: {ended}) in:\n{text}");
            text = changed.wait_timeout(text, left.min(Duration::from_millis(100))).expect("not poisoned").0;
        }
    }

    fn join(&mut self) -> String {
        self.reader.take().expect("once").join().expect("reads");
        self.now()
    }
}

/// Asks again and again until the answer is there.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(PAUSE);
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("sent");
    reply(stream)
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &serde_json::Value) -> Reply {
    HalfSent::begin(address, path, body).finish()
}

/// A chat of a few tokens.
pub(crate) fn chat(model: &str) -> serde_json::Value {
    serde_json::json!({
        "model": model, "max_tokens": 4, "temperature": 0,
        "messages": [{"role": "user", "content": "hello"}],
    })
}

/// A request whose head the server has taken and whose body it waits for.
#[derive(Debug)]
pub(crate) struct HalfSent {
    stream: TcpStream,
    body: String,
}

impl HalfSent {
    pub(crate) fn begin(address: SocketAddr, path: &str, body: &serde_json::Value) -> Self {
        let mut stream = connect(address);
        let body = body.to_string();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nexpect: 100-continue\r\n\r\n",
            body.len()
        )
        .expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&head));
        Self { stream, body }
    }

    pub(crate) fn finish(self) -> Reply {
        reply(self.stream())
    }

    /// Sends the body, and gives what the answer is read from.
    pub(crate) fn stream(mut self) -> TcpStream {
        self.stream.write_all(self.body.as_bytes()).expect("sent");
        self.stream
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

fn reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it answers");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Reply { status, body: body.to_owned() }
}
