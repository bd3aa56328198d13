//! The product's own processes.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::client::Api;
use crate::files;
use crate::process::{self, Ended, Process};
use crate::wait::eventually;

/// A `tenk` process that listens.
#[derive(Debug)]
pub struct Tenk {
    process: Process,
    address: SocketAddr,
}

/// A `tenk` process that is to be started.
#[derive(Debug)]
pub struct Launch {
    role: &'static str,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    config: Option<String>,
    listen: String,
}

impl Launch {
    /// `tenk worker` for the model in a file.
    pub fn worker(model: &Path) -> Self {
        // Several processes share the machine's cores.
        Self::new("worker").arg("--model").arg(model).arg("--threads").arg("1")
    }

    /// `tenk worker` that is simulated, for a version of the registry.
    pub fn simulated_worker(reference: &str) -> Self {
        Self::new("worker").arg("--engine").arg("simulated").arg("--model").arg(reference)
    }

    /// `tenk controller` that asks versions through a gateway.
    pub fn controller(gateway: &str) -> Self {
        Self::new("controller").env("TENK_CONTROLLER__INTERVAL_MS", "200").arg("--gateway").arg(gateway)
    }

    /// `tenk gateway` for these workers. It looks at them often, so that tests are quick.
    pub fn gateway<'a>(workers: impl IntoIterator<Item = &'a Tenk>) -> Self {
        Self::gateway_of(workers.into_iter().map(Tenk::url))
    }

    /// `tenk gateway` for workers at these addresses.
    pub fn gateway_of(workers: impl IntoIterator<Item = String>) -> Self {
        let gateway = Self::new("gateway").env("TENK_ROUTING__PROBE_INTERVAL_MS", "100");
        workers.into_iter().fold(gateway, |gateway, worker| gateway.arg("--worker").arg(worker))
    }

    /// `tenk up` for the model in a file.
    pub fn up(model: &Path) -> Self {
        Self::new("up").env("TENK_ROUTING__PROBE_INTERVAL_MS", "100").arg("--model").arg(model)
    }

    /// `tenk up` with so many simulated workers.
    pub fn simulated_up(workers: usize) -> Self {
        let up = Self::new("up").env("TENK_ROUTING__PROBE_INTERVAL_MS", "100");
        up.arg("--engine").arg("simulated").arg("--workers").arg(workers.to_string())
    }

    fn new(role: &'static str) -> Self {
        Self { role, args: Vec::new(), env: Vec::new(), config: None, listen: "127.0.0.1:0".into() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds a setting by its variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a configuration file.
    pub fn config(self, toml: &str) -> Self {
        Self { config: Some(toml.to_owned()), ..self }
    }

    /// Listens there instead of on a free port.
    pub fn listen(self, address: SocketAddr) -> Self {
        Self { listen: address.to_string(), ..self }
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> Result<Tenk> {
        let folder = tempfile::tempdir()?;
        let mut command = command()?;
        command.env("TENK_LOG", "info").env("TENK_CONTROLLER__STATE_DIR", folder.path().join("controller"));
        // Several tests may have one inside.
        command.env("TENK_CONTROLLER__LISTEN", "127.0.0.1:0");
        command.envs(self.env).arg(self.role);
        command.arg("--listen").arg(self.listen);
        if let Some(toml) = self.config {
            let path = folder.path().join("tenk.toml");
            std::fs::write(&path, toml)?;
            command.arg("--config").arg(path);
        }
        command.args(self.args);
        let mut process = Process::start(&format!("tenk {}", self.role), command, folder)?;
        let address = process.wait_for("it said where it listens", process::address_in).await?;
        Ok(Tenk { process, address })
    }
}

impl Tenk {
    /// `tenk worker` with defaults.
    pub async fn worker(model: &Path) -> Result<Self> {
        Launch::worker(model).start().await
    }

    /// `tenk gateway` with defaults, once all of its workers are up.
    pub async fn gateway<'a>(workers: impl IntoIterator<Item = &'a Tenk>) -> Result<Self> {
        let gateway = Launch::gateway(workers).start().await?;
        gateway.ready().await?;
        Ok(gateway)
    }

    /// `tenk up` with defaults.
    pub async fn up(model: &Path) -> Result<Self> {
        Launch::up(model).start().await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client for it.
    pub fn api(&self) -> Api {
        Api::new(self.address)
    }

    /// Waits until it is ready and, for a gateway, sees each of its workers healthy.
    pub async fn ready(&self) -> Result<()> {
        let api = self.api();
        eventually("ready", || async {
            let ready = api.get("/health/ready").await?;
            anyhow::ensure!(ready.status == 200, "{} {}", ready.status, ready.text());
            let metrics = api.get("/metrics").await?.text();
            let unhealthy = metrics
                .lines()
                .find(|line| line.starts_with("tenk_gateway_worker_healthy{") && line.ends_with(" 0"));
            anyhow::ensure!(unhealthy.is_none(), "{unhealthy:?}");
            Ok::<_, anyhow::Error>(())
        })
        .await
    }

    /// The sum of all series of a metric whose labels hold `labels`, as `/metrics` has it now.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.api().get("/metrics").await?.text();
        let mut sum = 0.0;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' '])) else {
                continue;
            };
            let (found, value) = rest.rsplit_once(' ').context("a metric has a value")?;
            if found.contains(labels) {
                sum += value.parse::<f64>().with_context(|| line.to_owned())?;
            }
        }
        Ok(sum)
    }
}

impl Deref for Tenk {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Tenk {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Runs `tenk` to its end.
pub async fn run_to_end<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Ended> {
    let mut command = command()?;
    command.args(args);
    process::run(command).await
}

/// The binary, without settings that the developer's own environment may hold.
fn command() -> Result<Command> {
    let mut command = Command::new(files::tenk()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TENK_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}
