//! Servers that are not ours, from the machine's packages.

use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::client::{Api, Reply};
use crate::files;
use crate::process::{self, Process};
use crate::wait::eventually;

/// Between finding a free port and using it another process may take it.
const STARTS_MAX: usize = 5;

/// Gives its process's methods to a server.
macro_rules! is_process {
    ($server:ident) => {
        impl Deref for $server {
            type Target = Process;

            fn deref(&self) -> &Process {
                &self.process
            }
        }

        impl DerefMut for $server {
            fn deref_mut(&mut self) -> &mut Process {
                &mut self.process
            }
        }
    };
}

is_process!(Mlflow);
is_process!(Redis);
is_process!(Nginx);
is_process!(Prometheus);

/// A Redis that keeps nothing on disk.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    /// On a free port.
    pub async fn start() -> Result<Self> {
        let (process, address) = on_a_free_port(|address, folder| async move {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--port", &address.port().to_string()]).arg("--dir").arg(folder.path());
            let mut process = Process::start("redis", command, folder)?;
            process.wait_for("it was ready", |log| log.contains("Ready to accept").then_some(())).await?;
            Ok(process)
        })
        .await?;
        Ok(Self { process, address })
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many keys it holds.
    pub async fn keys(&self) -> Result<usize> {
        let mut connection = TcpStream::connect(self.address).await?;
        connection.write_all(b"DBSIZE\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        tokio::time::timeout(crate::PATIENCE, connection.read_to_string(&mut answer)).await??;
        let count = answer.strip_prefix(':').and_then(|rest| rest.lines().next());
        count.with_context(|| format!("DBSIZE: {answer}"))?.parse().context("DBSIZE")
    }
}

/// The Python that has MLflow, which `cargo xtask test --mlflow` brings.
const MLFLOW_PYTHON: &str = "TENK_TEST_MLFLOW";

/// An MLflow server that keeps everything in a folder of its own.
#[derive(Debug)]
pub struct Mlflow {
    process: Process,
    address: SocketAddr,
}

impl Mlflow {
    /// On a free port; nothing where there is no MLflow.
    pub async fn start() -> Result<Option<Self>> {
        let Some(python) = std::env::var_os(MLFLOW_PYTHON) else { return Ok(None) };
        let (process, address) = on_a_free_port(|address, folder| {
            let mut command = Command::new(Path::new(&python).with_file_name("mlflow"));
            async move {
                let kept = folder.path().display().to_string();
                command.args(["server", "--host", "127.0.0.1", "--workers", "1"]);
                command.args(["--port", &address.port().to_string()]);
                command.args(["--backend-store-uri", &format!("sqlite:///{kept}/mlflow.db")]);
                command.args(["--artifacts-destination", &format!("{kept}/artifacts")]);
                command.env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false").current_dir(&kept);
                let mut process = Process::start("mlflow", command, folder)?.ends_with(Signal::SIGTERM);
                // It takes some 17 s on two idle cores.
                if answers(&mut process, address, "/health", 200).await.is_err() {
                    answers(&mut process, address, "/health", 200).await?;
                }
                Ok(process)
            }
        })
        .await?;
        Ok(Some(Self { process, address }))
    }

    /// For `registry.url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An nginx with the configuration that the repository ships.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
}

impl Nginx {
    /// In front of two gateways, on a free port.
    pub async fn start(gateways: [SocketAddr; 2]) -> Result<Self> {
        let template = std::fs::read_to_string(files::repository().join("deploy/nginx/tenk.conf"))?;
        let (process, address) = on_a_free_port(|address, folder| {
            let filled = template
                .replace("@LISTEN@", &address.to_string())
                .replace("@GATEWAY_A@", &gateways[0].to_string())
                .replace("@GATEWAY_B@", &gateways[1].to_string())
                .replace("@RUN_DIR@", &folder.path().display().to_string());
            async move {
                let configuration = folder.path().join("nginx.conf");
                let is_word = |rest: &str| rest.starts_with(|first: char| first.is_ascii_uppercase());
                ensure!(!filled.split('@').skip(1).any(is_word), "a word is not filled in:\n{filled}");
                // Run by root, its workers are someone else, who must get through to the folders below.
                std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
                std::fs::write(&configuration, &filled)?;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration);
                command.arg("-e").arg("stderr").args(["-g", "daemon off;"]);
                // Its workers end with it when it is asked to end, and not when it is killed.
                let mut process = Process::start("nginx", command, folder)?.ends_with(Signal::SIGTERM);
                answers(&mut process, address, "/health/live", 200).await?;
                Ok(process)
            }
        })
        .await?;
        Ok(Self { process, address })
    }

    /// A client for it.
    pub fn api(&self) -> Api {
        Api::new(self.address)
    }
}

/// A Prometheus that scrapes every second.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Scrapes these jobs' targets, and reads the repository's alerts.
    pub async fn start(jobs: &[(&str, &[SocketAddr])]) -> Result<Self> {
        let rules = files::repository().join("dashboards/alerts.yml");
        let configuration = configuration(jobs, &rules);
        let (process, address) = on_a_free_port(|address, folder| {
            let configuration = configuration.clone();
            async move {
                let file = folder.path().join("prometheus.yml");
                std::fs::write(&file, configuration)?;
                let mut command = Command::new("prometheus");
                command.arg(format!("--config.file={}", file.display()));
                command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
                command.arg(format!("--web.listen-address={address}"));
                let mut process = Process::start("prometheus", command, folder)?;
                answers(&mut process, address, "/-/ready", 200).await?;
                Ok(process)
            }
        })
        .await?;
        Ok(Self { process, address })
    }

    /// A client for it.
    pub fn api(&self) -> Api {
        Api::new(self.address)
    }

    /// Evaluates an expression now.
    pub async fn query(&self, expr: &str) -> Result<Reply> {
        self.api().get(&format!("/api/v1/query?query={}", percent_encoded(expr))).await
    }

    /// Runs `promtool`.
    pub async fn promtool(args: &[&str]) -> Result<process::Ended> {
        let mut command = Command::new("promtool");
        command.args(args).current_dir(files::repository());
        process::run(command).await
    }
}

fn configuration(jobs: &[(&str, &[SocketAddr])], rules: &Path) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n",
        rules.display()
    );
    for (job, targets) in jobs {
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        text.push_str(&format!(
            "  - job_name: {job}\n    static_configs: [{{ targets: [{}] }}]\n",
            targets.join(", ")
        ));
    }
    text
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| {
        let plain = byte.is_ascii_alphanumeric();
        if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(encode).collect()
}

/// Waits until a server answers a path with a status; an error if it ends before.
async fn answers(process: &mut Process, address: SocketAddr, path: &str, status: u16) -> Result<()> {
    let api = Api::new(address);
    let answered = eventually("the server answers", || async {
        let reply = api.get(path).await?;
        ensure!(reply.status == status, "{path}: status {}", reply.status);
        Ok::<_, anyhow::Error>(())
    });
    tokio::select! {
        answered = answered => answered,
        status = process.wait() => anyhow::bail!("the server ended ({}); its log:\n{}", status?, process.log()),
    }
}

/// Finds a free port, and another one if the server cannot have it.
async fn on_a_free_port<F>(mut start: impl FnMut(SocketAddr, TempDir) -> F) -> Result<(Process, SocketAddr)>
where
    F: Future<Output = Result<Process>>,
{
    let mut last = None;
    for _ in 0..STARTS_MAX {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        match start(address, tempfile::tempdir()?).await {
            Ok(process) => return Ok((process, address)),
            Err(error) if error.to_string().to_lowercase().contains("in use") => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.context("no server was started")?)
}

/// A script of `tests/python` that serves and says where.
#[derive(Debug)]
pub struct PythonServer {
    process: Process,
    address: SocketAddr,
}

is_process!(PythonServer);

impl PythonServer {
    /// Waits until it listens.
    pub async fn start(script: &str) -> Result<Self> {
        let mut command = Command::new(files::python()?);
        command.arg(files::repository().join("tests/python").join(script));
        let mut process = Process::start(script, command, tempfile::tempdir()?)?;
        let address = process.wait_for("it said where it listens", process::address_in).await?;
        Ok(Self { process, address })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
