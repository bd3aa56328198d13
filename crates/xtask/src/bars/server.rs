//! A server that is started to be measured, and ended by its handle.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a server may take to listen: a model is read before.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server. Dropped, it ends.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts a command that will listen at `address`, and waits until it does. Its output goes to `log`.
    pub(super) fn start(mut command: Command, address: SocketAddr, log: &Path) -> Result<Self> {
        let output = File::create(log)?;
        let program = command.get_program().to_owned();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("{} did not start", program.display()))?;
        let mut server = Self { child, address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{} ended ({status}) before it listened: {said}", program.display());
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("{} does not listen after {} s", program.display(), START_TIMEOUT.as_secs());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Waits until it answers `path` with success: a server may listen before it is ready.
    pub(super) fn ready(self, path: &str) -> Result<Self> {
        let url = format!("{}{path}", self.url());
        let started = Instant::now();
        while !Command::new("curl")
            .args(["--silent", "--fail", "--output", "/dev/null", &url])
            .status()?
            .success()
        {
            if started.elapsed() > START_TIMEOUT {
                bail!("{url} does not succeed after {} s", START_TIMEOUT.as_secs());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(self)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of it and of its children until now, in microseconds.
    pub(super) fn cpu_us(&self) -> Result<f64> {
        let mut total = cpu_ticks(self.child.id())?;
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        for child in fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            total += cpu_ticks(child.parse()?)?;
        }
        // The kernel counts in hundredths of a second on every Linux that is in use.
        Ok(total * 10_000.0)
    }
}

/// One of the sizes of a process that the kernel tells, in MiB.
pub(super) fn memory_mib(process: u32, which: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let kib = line.with_context(|| format!("{which} is not there"))?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<f64>().with_context(|| which.to_owned())? / 1024.0)
}

fn cpu_ticks(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which is in parentheses and may hold blanks: state is field 3, utime 14, stime 15.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(fields.next().context("stat is cut short")?.parse()?) };
    Ok(next()? + next()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: a master that is killed leaves its workers.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let started = Instant::now();
        while asked.is_ok() && started.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens at.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A folder for a measurement's logs and configurations.
pub(super) fn work_folder(target: &Path) -> Result<PathBuf> {
    let folder = target.join("bars");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
