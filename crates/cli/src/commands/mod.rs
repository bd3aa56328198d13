//! One command a file.

mod bench;
mod config;
mod controller;
mod eval;
mod gateway;
mod key;
mod model;
mod profile;
mod rollout;
mod up;
mod versions;
mod worker;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::args::{Args, Command, ComputeArgs, RoleArgs};
use crate::config::{Config, Role};
use crate::shutdown::Shutdown;
use crate::voice::Voice;

/// Does what was asked.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Up(args) => up::run(args).await,
        Command::Gateway(args) => gateway::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        Command::Model(command) => model::run(command),
        Command::Controller(args) => controller::run(args).await,
        Command::Rollout(command) => rollout::run(command).await,
        Command::Eval(command) => eval::run(command),
        Command::Bench(command) => bench::run(command).await,
        Command::Profile(command) => profile::run(&command),
        Command::Key(command) => key::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Loadtest(command) => command.run(crate::tokenizer::open).await,
        Command::Lab(command) => command.run().await,
    }
}

/// The configuration with the flags over it, checked for the role, and logging started.
fn set_up(args: &RoleArgs, role: Role, flags: impl FnOnce(&mut Config)) -> Result<(Config, Voice)> {
    let config = Config::load(args.config.config.as_deref())?.with_flags(|config| {
        config.log.format = args.log_format.map_or(config.log.format, Into::into);
        flags(config);
    })?;
    config.validate(role)?;
    telemetry::init(&config.log)?;
    let voice = Voice::of(&config.log);
    Ok((config, voice))
}

/// Says how many threads compute, before the first does.
fn set_threads(args: &ComputeArgs) -> Result<()> {
    let Some(threads) = args.threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
    pool.build_global()
        .with_context(|| format!("{threads} threads cannot be started, give fewer with --threads"))
}

/// Whether an address can be listened on, before the work of loading a model.
fn try_listen(address: SocketAddr) -> std::io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// Does what blocks beside the runtime; `None` if the process was asked to end meanwhile.
async fn unless_ended<T: Send + 'static>(
    shutdown: &Shutdown,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<Option<T>> {
    tokio::select! {
        done = tokio::task::spawn_blocking(work) => done.context("loading broke off")?.map(Some),
        () = shutdown.clone().wait() => Ok(None),
    }
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}
