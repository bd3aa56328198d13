//! One command a file.

mod config;
mod gateway;
mod key;
mod model;
mod up;
mod worker;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use engine::LoadedModel;

use crate::args::{Args, Command, CommonArgs, LoadtestCommand};
use crate::config::{Config, Role};
use crate::models;
use crate::shutdown::Shutdown;

/// Does what was asked.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Up(args) => up::run(args).await,
        Command::Gateway(args) => gateway::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        Command::Model(command) => model::run(command),
        Command::Key(command) => key::run(&command),
        Command::Config(command) => config::run(&command),
        Command::Loadtest(LoadtestCommand::Run(args)) => Ok(loadtest::run(*args).await?.into()),
    }
}

/// The configuration with the flags over it, checked for the role, logging started and threads counted.
fn set_up(common: &CommonArgs, role: Role, flags: impl FnOnce(&mut Config)) -> Result<Config> {
    let mut config = Config::load(common)?;
    flags(&mut config);
    config.validate(role)?;
    telemetry::init(&config.log)?;
    if let Some(threads) = common.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().context("the threads that compute cannot be started")?;
    }
    Ok(config)
}

/// Whether an address can be listened on, before the work of loading a model.
fn try_listen(address: SocketAddr) -> std::io::Result<()> {
    TcpListener::bind(address).map(drop)
}

/// Loads a model beside the runtime; `None` if the process was asked to end meanwhile.
async fn load(
    config: &Config,
    name: String,
    served_name: Option<String>,
    shutdown: &Shutdown,
) -> Result<Option<Arc<LoadedModel>>> {
    let config = config.clone();
    let loading = tokio::task::spawn_blocking(move || models::load(&config, &name, served_name.as_deref()));
    tokio::select! {
        loaded = loading => loaded.context("loading broke off")?.map(Some),
        () = shutdown.clone().wait() => Ok(None),
    }
}
