//! Our worker and the peer's server, as processes that end with this one.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Between two probes of a server's health.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);
/// How long a server may listen without being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// What the peer has for each of its slots.
const LLAMA_CPP_SERVER: &str = include_str!("llama_cpp_server.py");

/// How one side's server is started.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// `tenk worker`.
    Ours {
        /// The program.
        program: PathBuf,
    },
    /// llama.cpp's server.
    LlamaCpp {
        /// A Python that has it.
        python: PathBuf,
    },
}

/// What both sides' servers are started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) model: PathBuf,
    pub(crate) threads: usize,
    /// Requests at once.
    pub(crate) slots: usize,
    /// Tokens whose keys and values fit, over all slots.
    pub(crate) kv_tokens: usize,
}

/// A server that is ready.
#[derive(Debug)]
pub(crate) struct Running {
    server: loadtest::Server,
    /// From starting the process.
    pub(crate) ready_s: f64,
}

impl Side {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(
        &self,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Result<Running, Error> {
        let Settings { model, threads, slots, kv_tokens } = settings;
        let model = model.display().to_string();
        let started = Instant::now();
        let (server, health) = match self {
            Self::Ours { program } => {
                let args =
                    ["worker", "--listen", "127.0.0.1:0", "--device", "cpu", "--model", &model, "--threads"];
                let args: Vec<String> =
                    args.iter().map(ToString::to_string).chain([threads.to_string()]).collect();
                let env = [
                    ("TENK_ENGINE__KV_CACHE_TOKENS", kv_tokens.to_string()),
                    ("TENK_SCHEDULER__MAX_NUM_SEQS", slots.to_string()),
                ];
                (loadtest::Server::start(program, &args, &env, stop).await?, "/health/ready")
            }
            Self::LlamaCpp { python } => {
                let numbers = [*slots, *kv_tokens, *threads].map(|number| number.to_string());
                let args = ["-c".to_owned(), LLAMA_CPP_SERVER.to_owned(), model];
                let args: Vec<String> = args.into_iter().chain(numbers).collect();
                (loadtest::Server::start(python, &args, &[], stop).await?, "/health")
            }
        };
        let running = Running { server, ready_s: 0.0 };
        let ready = stop.run_until_cancelled(running.ready(health, started));
        let ready_s = ready.await.ok_or(Error::Interrupted)??;
        Ok(Running { ready_s, ..running })
    }
}

impl Running {
    /// `http://HOST:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    async fn ready(&self, path: &str, since: Instant) -> Result<f64, Error> {
        while !self.is_well(path).await {
            if since.elapsed() > READY_TIMEOUT {
                let address = self.address();
                return Err(Error::broken(format!("{address}{path} does not say that it is ready")));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        Ok(since.elapsed().as_secs_f64())
    }

    /// Whether `path` is answered with success.
    async fn is_well(&self, path: &str) -> bool {
        let host = self.address().trim_start_matches("http://");
        let asked = async {
            let mut stream = TcpStream::connect(host).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut status = [0; b"HTTP/1.1 200".len()];
            stream.read_exact(&mut status).await?;
            std::io::Result::Ok(status.ends_with(b" 200"))
        };
        asked.await.unwrap_or(false)
    }

    /// Memory that it has resident, and the most that it had, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<(f64, f64), Error> {
        let process = self.server.pid().ok_or_else(|| Error::broken("a server ended by itself"))?;
        let path = PathBuf::from(format!("/proc/{process}/status"));
        let status = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        let size = |name: &str| {
            mib(&status, name).ok_or_else(|| Error::broken(format!("{} has no {name}", path.display())))
        };
        Ok((size("VmRSS")?, size("VmHWM")?))
    }

    pub(crate) async fn end(self) {
        self.server.end().await;
    }
}

/// One of the sizes that the kernel tells of a process.
fn mib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

/// A process that keeps a core busy until it is dropped.
#[derive(Debug)]
pub(crate) struct Spinner(#[expect(dead_code, reason = "dropping it ends the process")] Child);

impl Spinner {
    pub(crate) fn start(program: &std::path::Path) -> Result<Self, Error> {
        let mut command = Command::new(program);
        command.args(["bench", "spin"]).stdin(Stdio::piped()).stdout(Stdio::null());
        // In a group of its own, Ctrl-C on the terminal does not end it before what it is there for.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        child.map(Self).map_err(Error::file(program))
    }
}

/// Keeps a core busy until standard input ends, as it does when whoever holds the other end is gone.
pub fn spin() {
    let waiting = std::thread::spawn(|| {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map_or(0, |read| read)
    });
    while !waiting.is_finished() {
        for _ in 0..1 << 16 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_what_the_kernel_says() {
        let status = "Name:\ttenk\nVmHWM:\t  345624 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(mib(status, "VmRSS"), Some(1.0));
        assert_eq!(mib(status, "VmHWM"), Some(345_624.0 / 1024.0));
        assert_eq!(mib(status, "VmSwap"), None);
    }
}
