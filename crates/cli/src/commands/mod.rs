//! One file a command.

mod config;
mod gateway;
mod key;
mod loadtest;
mod model;
mod prepare;
mod up;
mod worker;

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Args, Command, Common};
use crate::config::{Flag, FlagValues, Settings};

/// Runs what was asked for.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up(args) => block_on(up::run(args)),
        Command::Gateway(args) => block_on(gateway::run(args)),
        Command::Worker(args) => block_on(worker::run(args)),
        Command::Model(command) => model::run(command),
        Command::Key(command) => key::run(command),
        Command::Config(command) => config::run(command),
        Command::Loadtest(command) => block_on(loadtest::run(command)),
    }
}

fn block_on(role: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(role);
    // A model that is still being fetched or loaded must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// The settings that `common` and `flags` mean, over the process's environment.
fn settings(common: &Common, mut flags: Vec<Flag>) -> anyhow::Result<Settings> {
    if let Some(format) = common.log_format {
        let format = match format {
            args::LogFormat::Text => "text",
            args::LogFormat::Json => "json",
        };
        flags.push(flag("--log-format", ["log", "format"], format));
    }
    // What is not Unicode can be no setting.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Settings::load(common.config.as_deref(), environment, flags)?)
}

fn flag(name: &'static str, path: [&'static str; 2], value: impl ToString) -> Flag {
    Flag { name, path, values: FlagValues::One(value.to_string()) }
}

/// Starts logging. `quiet` is for commands that tell people themselves how things stand.
fn start_log(settings: &Settings, quiet: bool) -> anyhow::Result<()> {
    let mut log = settings.config.log.clone();
    if quiet && !settings.is_set("log.filter") {
        log.filter = "warn".to_owned();
    }
    Ok(telemetry::init(&log)?)
}

/// Sets how many threads compute.
fn set_threads(threads: Option<u16>) -> anyhow::Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    anyhow::ensure!(threads > 0, "--threads is 0, but must be 1 or more");
    rayon::ThreadPoolBuilder::new()
        .num_threads(usize::from(threads))
        .build_global()
        .context("cannot start the threads that compute")
}

/// Waits for `work` unless a signal comes first.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        result = work => result.map(Some),
        () = stop.cancelled() => Ok(None),
    }
}

/// Where a client on this machine reaches `address`.
fn url(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everyone_is_shown_as_loopback() {
        assert_eq!(url(SocketAddr::from(([0, 0, 0, 0], 80))), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url("10.0.0.1:80".parse().unwrap()), "http://10.0.0.1:80");
    }
}
