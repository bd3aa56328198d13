//! A process that is a test's own.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::wait::{PATIENCE, eventually};

/// Of a failing test's processes, the last.
const LOG_LINES_SHOWN: usize = 100;
/// How long a dropped process may take to go.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running process with a folder of its own. Dropped, it ends; if the test is failing, its log is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    folder: TempDir,
    end_signal: Signal,
}

/// A process that came to its end.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with its output in a log. `folder` is its own and is removed after its end.
    pub(crate) fn start(name: &str, mut command: Command, folder: TempDir) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(folder.path().join(LOG))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().with_context(|| {
            format!("{} cannot be started; `cargo xtask test` brings what the tests need", program.display())
        })?;
        Ok(Self { name: name.to_owned(), child, folder, end_signal: Signal::SIGKILL })
    }

    /// What its handle sends it at the end; SIGKILL unless it has children to take along.
    pub(crate) fn ends_with(mut self, end_signal: Signal) -> Self {
        self.end_signal = end_signal;
        self
    }

    /// Its own folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until `find` finds something in the log; an error with the log if the process ends before.
    pub async fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            // Asked before the log is read, so that last words are not missed.
            let ended = self.child.try_wait()?;
            let log = self.log();
            if let Some(found) = find(&log) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) before {what}; its log:\n{log}", self.name);
            }
            if started.elapsed() > PATIENCE {
                bail!("{}: {what} not within {} s; its log:\n{log}", self.name, PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Absent once it has been waited for, so that no stranger with its number is hit.
        let id = self.child.id().with_context(|| format!("{} has ended already", self.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub async fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = self.wait().await?;
        match status.signal() {
            Some(9) => Ok(()),
            _ => bail!("{} ended by itself ({status}) before it was killed", self.name),
        }
    }

    /// Asks it to end (SIGTERM) and does not wait.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Stops it without ending it (SIGSTOP), and waits until all of it stands still.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.child.id().unwrap_or_default());
        if !std::path::Path::new("/proc/self/stat").exists() {
            return Ok(());
        }
        eventually("the process stands still", || async {
            let text = std::fs::read_to_string(&stat).map_err(|error| anyhow!("{stat}: {error}"))?;
            // The state follows the name, which is in parentheses and may hold any character.
            let state = text.rsplit(')').next().unwrap_or_default().trim().chars().next();
            if state == Some('T') { Ok(()) } else { Err(anyhow!("its state is {state:?}")) }
        })
        .await
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end within {} s", self.name, PATIENCE.as_secs()),
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // One that is paused hears only this.
        self.signal(Signal::SIGCONT)?;
        self.signal(self.end_signal)?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            if started.elapsed() > END_TIMEOUT {
                bail!("{} does not end", self.name);
            }
            // A drop cannot await.
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failing test shows what its processes said")]
    fn drop(&mut self) {
        let ended = self.end();
        if std::thread::panicking() || ended.is_err() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!(
                "--- log of {} ({} lines)\n{}\n--- its end: {ended:?}",
                self.name,
                lines.len(),
                shown.join("\n")
            );
        }
    }
}

/// In the process's own folder.
const LOG: &str = "output.log";

/// Runs a command to its end, within [`PATIENCE`].
pub(crate) async fn run(mut command: Command) -> Result<Ended> {
    let program = command.as_std().get_program().to_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .with_context(|| format!("{} did not end within {} s", program.display(), PATIENCE.as_secs()))?
        .with_context(|| {
            format!("{} cannot be started; `cargo xtask test` brings what the tests need", program.display())
        })?;
    Ok(Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Where a process says that it listens: in so many words, or as the base URL to give to clients.
pub(crate) fn address_in(log: &str) -> Option<SocketAddr> {
    // A line that is being written may hold a part of the port.
    let (lines, _) = log.rsplit_once('\n')?;
    let mut found = lines.lines().filter_map(|line| {
        let said = line.split_once("listening on http://").map(|(_, address)| address);
        let base = || line.trim().strip_prefix("http://")?.split_once("/v1").map(|(address, _)| address);
        said.or_else(base)?.split_whitespace().next()?.parse().ok()
    });
    found.next()
}
