//! `tenk worker`: one engine behind HTTP.

use std::process::ExitCode;

use ::worker::{Worker, WorkerModel};

use super::{flag, prepare, set_threads, settings, start_log, unless_stopped, url};
use crate::args::WorkerArgs;
use crate::shutdown;

const SECTIONS: [&str; 6] = ["model", "worker", "engine", "scheduler", "model_store", "log"];

pub(super) async fn run(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    let mut flags = Vec::new();
    flags.extend(args.listen.map(|listen| flag("--listen", ["worker", "listen"], listen)));
    flags.extend(args.model.map(|model| flag("--model", ["model", "name"], model)));
    flags.extend(
        args.served_model_name.map(|name| flag("--served-model-name", ["model", "served_name"], name)),
    );
    let settings = settings(&args.common, flags)?;
    settings.validate_sections(&SECTIONS)?;
    start_log(&settings, false)?;
    set_threads(args.threads)?;
    let stop = shutdown::listen()?;

    let config = settings.config;
    let served_as = config.model.served_name.clone();
    let Some(model) = unless_stopped(&stop, prepare::load(&config, &config.model.name, served_as)).await?
    else {
        return Ok(ExitCode::from(shutdown::INTERRUPTED));
    };
    let worker = Worker::bind(config.worker, WorkerModel { model, scheduler: config.scheduler }).await?;
    eprintln!("worker listening on {}", url(worker.address()));
    worker.serve(stop.cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}
