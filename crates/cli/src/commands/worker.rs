//! `tenk worker`

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use worker::{WorkerError, WorkerModel};

use crate::args::WorkerArgs;
use crate::commands;
use crate::config::Role;
use crate::open_files;
use crate::served::Asked;
use crate::shutdown::Shutdown;
use crate::simulated;
use crate::workers::Workers;

pub(super) async fn run(args: WorkerArgs) -> Result<ExitCode> {
    let models: Vec<String> = args.model.iter().chain(&args.also.also).cloned().collect();
    let profiles = simulated::profiles(args.engine.engine, args.profile.as_slice(), &models)?;
    let (config, voice) = commands::set_up(&args.role, Role::Worker, |config| {
        config.worker.listen = args.listen.unwrap_or(config.worker.listen);
        config.engine.device = args.compute.device.map_or(config.engine.device, Into::into);
        config.model.name = args.model.unwrap_or_else(|| std::mem::take(&mut config.model.name));
        config.model.served_name = args.served_model_name.or(config.model.served_name.take());
        config.worker.step_log = args.step_log.or(config.worker.step_log.take());
        if let Some(profile) = profiles.first() {
            simulated::set_limits(config, profile);
        }
    })?;
    commands::set_threads(&args.compute)?;
    let shutdown = Shutdown::listen(voice, args.role.end_with_stdin)?;
    let addresses = addresses(config.worker.listen, args.also.also.len(), &args.also.also_listen)?;
    open_files::allow(config.worker.connections_max * addresses.len(), voice);
    let mut configs = Vec::new();
    for (at, &listen) in addresses.iter().enumerate() {
        // Several would write to one file.
        let step_log = config.worker.step_log.clone().filter(|_| at == 0);
        let own = worker::Config { listen, step_log, ..config.worker.clone() };
        own.validate()?;
        commands::try_listen(listen).map_err(|source| WorkerError::Listen { address: listen, source })?;
        configs.push(own);
    }
    let loading = config.clone();
    let models = commands::unless_ended(&shutdown, move || {
        let asked = Asked { models: Vec::new(), also: args.also.also, profiles };
        let (first, also) = asked.find(&loading, voice)?;
        let sources = first.into_iter().chain(also);
        sources
            .map(|source| source.load(loading.clone(), Role::Worker, voice))
            .collect::<Result<Vec<WorkerModel>>>()
    });
    let Some(models) = models.await? else { return Ok(ExitCode::SUCCESS) };
    let mut workers = Workers::default();
    for (at, (config, model)) in configs.into_iter().zip(models).enumerate() {
        let what = match at {
            0 => "worker".to_owned(),
            _ => format!("version {} of {}", model.model.version(), model.model.name()),
        };
        let address = workers.start(config, model).await?;
        voice.say(&format!("{what} listening on http://{address}"));
    }
    workers.serve(shutdown.wait()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Where each engine listens: the first where it was told to, each further one where it was told to or at the next port.
fn addresses(first: SocketAddr, further: usize, given: &[SocketAddr]) -> Result<Vec<SocketAddr>> {
    ensure!(
        given.len() <= further,
        "--also-listen has {} addresses for {further} models of --also; leave some out",
        given.len()
    );
    let mut addresses = vec![first];
    for at in 0..further {
        let next = || -> Result<SocketAddr> {
            let last = addresses[at];
            let port = match last.port() {
                0 => 0,
                port => port.checked_add(1).context("there is no port after 65535; give --also-listen")?,
            };
            Ok(SocketAddr::new(last.ip(), port))
        };
        let address = given.get(at).map_or_else(next, |address| Ok(*address))?;
        addresses.push(address);
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_further_engine_listens_where_it_is_told_or_at_the_next_port() {
        let ports = |first, further, given: &[SocketAddr]| {
            addresses(at(first), further, given).map_err(|e| e.to_string())
        };
        assert_eq!(ports(8081, 0, &[]), Ok(vec![at(8081)]));
        assert_eq!(ports(8081, 2, &[]), Ok(vec![at(8081), at(8082), at(8083)]));
        assert_eq!(ports(8081, 2, &[at(9000)]), Ok(vec![at(8081), at(9000), at(9001)]));
        assert_eq!(ports(0, 1, &[]), Ok(vec![at(0), at(0)]));
        assert!(ports(65535, 1, &[]).is_err_and(|error| error.contains("--also-listen")));
        assert!(ports(1, 1, &[at(2), at(3)]).is_err_and(|error| error.contains("2 addresses for 1")));
    }
}
