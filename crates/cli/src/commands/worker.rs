//! `tenk worker`

use std::process::ExitCode;

use anyhow::Result;
use worker::{Worker, WorkerError, WorkerModel};

use crate::args::WorkerArgs;
use crate::commands;
use crate::config::Role;
use crate::models;
use crate::open_files;
use crate::shutdown::Shutdown;
use crate::simulated;

pub(super) async fn run(args: WorkerArgs) -> Result<ExitCode> {
    let names = [args.profile.as_slice(), args.model.as_slice()];
    let profile = simulated::profiles(args.engine.engine, names[0], names[1])?.pop();
    let (config, voice) = commands::set_up(&args.role, Role::Worker, |config| {
        config.worker.listen = args.listen.unwrap_or(config.worker.listen);
        config.engine.device = args.compute.device.map_or(config.engine.device, Into::into);
        config.model.name = args.model.unwrap_or_else(|| std::mem::take(&mut config.model.name));
        config.model.served_name = args.served_model_name.or(config.model.served_name.take());
        config.worker.step_log = args.step_log.or(config.worker.step_log.take());
        if let Some(profile) = &profile {
            simulated::set_limits(config, profile);
        }
    })?;
    commands::set_threads(&args.compute)?;
    let shutdown = Shutdown::listen(voice, args.role.end_with_stdin)?;
    open_files::allow(config.worker.connections_max, voice);
    let address = config.worker.listen;
    commands::try_listen(address).map_err(|source| WorkerError::Listen { address, source })?;
    let loading = config.clone();
    let model = commands::unless_ended(&shutdown, move || {
        if let Some(profile) = profile {
            return simulated::load(&loading, profile);
        }
        let found = models::pull(&loading, &loading.model.name, voice)?;
        models::load(&loading, &found, loading.model.served_name.as_ref().unwrap_or(&found.name), voice)
    });
    let Some(model) = model.await? else { return Ok(ExitCode::SUCCESS) };
    let worker = Worker::bind(config.worker, WorkerModel { model, scheduler: config.scheduler }).await?;
    voice.say(&format!("worker listening on http://{}", worker.address()));
    worker.serve(shutdown.wait()).await?;
    Ok(ExitCode::SUCCESS)
}
