//! `tenk worker`

use std::process::ExitCode;

use anyhow::Result;
use worker::{Worker, WorkerError, WorkerModel};

use crate::args::WorkerArgs;
use crate::commands;
use crate::config::Role;
use crate::shutdown::Shutdown;

pub(super) async fn run(args: WorkerArgs) -> Result<ExitCode> {
    let config = commands::set_up(&args.common, Role::Worker, |config| {
        config.worker.listen = args.listen.unwrap_or(config.worker.listen);
        config.model.name = args.model.unwrap_or_else(|| std::mem::take(&mut config.model.name));
        config.model.served_name = args.served_model_name.or(config.model.served_name.take());
    })?;
    let shutdown = Shutdown::listen()?;
    let address = config.worker.listen;
    commands::try_listen(address).map_err(|source| WorkerError::Listen { address, source })?;
    let (name, served_name) = (config.model.name.clone(), config.model.served_name.clone());
    let Some(model) = commands::load(&config, name, served_name, &shutdown).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let worker = Worker::bind(config.worker, WorkerModel { model, scheduler: config.scheduler }).await?;
    eprintln!("worker listening on http://{}", worker.address());
    worker.serve(shutdown.wait()).await?;
    Ok(ExitCode::SUCCESS)
}
