//! Servers that a lab or a bench starts, as children of this process.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How long a server may take to end in good order.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of what a server said is kept, in lines.
const LINES_MAX: usize = 20;

/// What has a server end with its standard input, whose other end is this process's: it closes however this ends.
const END_WITH_STDIN: &str = "--end-with-stdin";

/// A server that listens. It ends when this is dropped, or when this process is gone.
#[derive(Debug)]
pub struct Server {
    child: Child,
    _stdin: Option<ChildStdin>,
    /// `http://HOST:PORT`.
    pub address: String,
}

/// What a server has said last.
type Lines = Arc<Mutex<VecDeque<String>>>;

impl Server {
    /// Starts `program` with `args`, and waits until it says where it listens.
    ///
    /// # Errors
    /// When it cannot be started or ends before; with what it said last.
    pub async fn start(
        program: &Path,
        args: &[String],
        env: &[(&str, String)],
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let name = format!("{} {}", program.display(), args.first().map_or("", String::as_str));
        let mut command = Command::new(program);
        // What the reader has set for servers of their own must not change what is measured.
        for (variable, _) in std::env::vars_os() {
            let variable = variable.to_string_lossy();
            if variable.starts_with("TENK_") && variable != "TENK_CACHE_DIR" {
                command.env_remove(variable.as_ref());
            }
        }
        command.args(args).arg(END_WITH_STDIN).envs(env.iter().map(|(variable, value)| (*variable, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own, Ctrl-C on the terminal reaches the lab alone, which ends the server when it is done.
        command.process_group(0).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|error| Error::Broken(format!("{name} cannot be started: {error}")))?;

        // Whoever waits for the child closes what it still holds.
        let stdin = child.stdin.take();
        let lines = Lines::default();
        let (said, mut hears) = watch::channel(None);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, Arc::clone(&lines), said.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, Arc::clone(&lines), said));
        }
        let address = tokio::select! {
            () = stop.cancelled() => return Err(Error::Interrupted),
            said = hears.wait_for(Option::is_some) => said.ok().and_then(|address| address.clone()),
            _ = child.wait() => None,
        };
        let address = address.ok_or_else(|| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            Error::Broken(format!("{name} ended before it listened; it said: {}", lines.join(" / ")))
        })?;
        Ok(Self { child, _stdin: stdin, address })
    }

    /// The process's number; none once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub async fn end(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(END_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Reads to the end, lest the server stand still with a full pipe.
async fn listen(from: impl AsyncRead + Unpin, lines: Lines, said: watch::Sender<Option<String>>) {
    let mut from = BufReader::new(from).lines();
    while let Ok(Some(line)) = from.next_line().await {
        if let Some(address) = address_in(&line) {
            said.send_replace(Some(address));
        }
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
    }
}

/// Where a server says that it listens.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on http://")?;
    let address = rest.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, stop: &CancellationToken) -> Result<Server, Error> {
        Server::start(Path::new("sh"), &["-c".to_owned(), script.to_owned()], &[], stop).await
    }

    #[tokio::test]
    async fn a_server_is_up_once_it_says_where_it_listens_and_ends_when_asked() {
        let script = "echo loading; echo 'worker listening on http://127.0.0.1:99' >&2; exec sleep 600";
        let server = shell(script, &CancellationToken::new()).await.expect("up");
        assert_eq!(server.address, "http://127.0.0.1:99");
        let pid = server.pid().expect("running");
        server.end().await;
        assert!(kill(Pid::from_raw(pid as i32), None).is_err(), "it is gone");
    }

    #[tokio::test]
    async fn a_server_that_ends_before_is_told_with_its_last_words() {
        let failed = shell("echo no such model; exit 1", &CancellationToken::new()).await.expect_err("ended");
        assert!(failed.to_string().contains("ended before it listened"), "{failed}");
        let absent = Server::start(Path::new("./absent"), &[], &[], &CancellationToken::new()).await;
        assert!(absent.expect_err("absent").to_string().contains("cannot be started"));
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_wait() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(matches!(shell("exec sleep 600", &stop).await, Err(Error::Interrupted)));
    }
}
