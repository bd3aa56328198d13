//! `tenk up`: everything in one process.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::gateway::Gateway;
use ::worker::{Worker, WorkerModel};
use anyhow::{Context, anyhow, bail};
use engine::LoadedModel;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gateway::{parts, redis_flag, warn_without_redis};
use super::{flag, prepare, set_threads, settings, start_log, unless_stopped, url};
use crate::args::UpArgs;
use crate::config::Config;
use crate::shutdown;

/// How long the gateway may take to see a worker of this process.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let mut flags = Vec::new();
    flags.extend(args.listen.map(|listen| flag("--listen", ["gateway", "listen"], listen)));
    flags.extend(redis_flag(args.redis));
    let settings = settings(&args.common, flags)?;
    let mut config = settings.config.clone();
    settings.validate()?;
    start_log(&settings, true)?;
    set_threads(args.threads)?;
    refuse_taken(config.gateway.listen)?;
    let stop = shutdown::listen()?;

    let Some(models) = unless_stopped(&stop, load(&config, &args.models)).await? else {
        return Ok(ExitCode::from(shutdown::INTERRUPTED));
    };
    let mut workers = Workers::start(&config, &models, args.workers).await?;
    config.gateway.workers.extend(workers.addresses.iter().map(|address| format!("http://{address}")));
    if config.gateway.worker_api_key.is_none() {
        config.gateway.worker_api_key = config.worker.api_key.clone();
    }
    let gateway = Gateway::bind(parts(&config)).await?;
    let ready = async { Ok(gateway.wait_ready(READY_TIMEOUT).await) };
    match unless_stopped(&stop, ready).await? {
        Some(true) => {}
        Some(false) => bail!("no worker was up after {} s; see the log above", READY_TIMEOUT.as_secs()),
        None => return Ok(ExitCode::from(shutdown::INTERRUPTED)),
    }
    warn_without_redis(&gateway, &config).await;
    eprintln!("gateway listening on {}", url(gateway.address()));
    println!("{}", guide(gateway.address(), &models, &config, args.workers));

    // The gateway drains first, while its workers still answer.
    let served = tokio::select! {
        result = gateway.serve(stop.cancelled_owned()) => result.map_err(anyhow::Error::from),
        error = workers.failed() => Err(error),
    };
    workers.stop().await?;
    served.map(|()| ExitCode::SUCCESS)
}

/// Says so before a model is loaded, not after. That the port is free now does not reserve it.
fn refuse_taken(listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(source) => Err(::gateway::GatewayError::Listen { address: listen, source }.into()),
    }
}

async fn load(config: &Config, names: &[String]) -> anyhow::Result<Vec<Arc<LoadedModel>>> {
    let configured = [config.model.name.clone()];
    let (names, served_as) = match names {
        [] => (&configured[..], config.model.served_name.clone()),
        names => (names, None),
    };
    let mut models: Vec<Arc<LoadedModel>> = Vec::new();
    for name in names {
        let model = prepare::load(config, name, served_as.clone()).await?;
        if models.iter().any(|other| other.name() == model.name()) {
            bail!("two models would both be served as `{}`; rename a file, or leave one out", model.name());
        }
        models.push(model);
    }
    Ok(models)
}

/// The workers of this process.
struct Workers {
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts `count` workers for each model, on free ports of loopback.
    async fn start(config: &Config, models: &[Arc<LoadedModel>], count: u16) -> anyhow::Result<Self> {
        let mut workers =
            Self { addresses: Vec::new(), tasks: JoinSet::new(), stop: CancellationToken::new() };
        for model in models.iter().flat_map(|model| (0..count).map(move |_| model)) {
            let listen = SocketAddr::from(([127, 0, 0, 1], 0));
            let model = WorkerModel { model: Arc::clone(model), scheduler: config.scheduler.clone() };
            let worker = Worker::bind(::worker::Config { listen, ..config.worker.clone() }, model).await?;
            workers.addresses.push(worker.address());
            let stop = workers.stop.clone();
            workers.tasks.spawn(async move { Ok(worker.serve(stop.cancelled_owned()).await?) });
        }
        Ok(workers)
    }

    /// Resolves when a worker ends, which none does before it is told to.
    async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error.context("a worker failed"),
            Some(Err(error)) => anyhow!(error).context("a worker failed"),
            Some(Ok(Ok(()))) | None => anyhow!("a worker ended by itself; see the log above"),
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a worker failed")??;
        }
        Ok(())
    }
}

/// What to open, what to try, and what to expect of it.
fn guide(address: SocketAddr, models: &[Arc<LoadedModel>], config: &Config, workers: u16) -> String {
    let url = url(address);
    let served: Vec<String> =
        models.iter().map(|model| format!("{} (version {})", model.name(), model.version())).collect();
    let name = models.first().map_or("", |model| model.name());
    let key = if config.gateway.keys.is_empty() { "" } else { " -H 'authorization: Bearer KEY'" };
    let each = if models.len() > 1 { " each" } else { "" };
    let plural = if workers == 1 { "" } else { "s" };
    format!(
        "
tenk is up: {served}, {workers} worker{plural}{each}

  models    {url}/v1/models
  metrics   {url}/metrics

Try it:

  curl {url}/v1/chat/completions{key} -H 'content-type: application/json' \\
    -d '{{\"model\": \"{name}\", \"messages\": [{{\"role\": \"user\", \"content\": \"Say hello.\"}}]}}'

The answer has this shape:

  {{\"id\": \"chatcmpl-…\", \"object\": \"chat.completion\", \"created\": …, \"model\": \"{name}\",
   \"choices\": [{{\"index\": 0, \"message\": {{\"role\": \"assistant\", \"content\": \"…\"}}, \"finish_reason\": \"stop\"}}],
   \"usage\": {{\"prompt_tokens\": …, \"completion_tokens\": …, \"total_tokens\": …}}}}

With \"stream\": true it comes token by token. Ctrl-C ends everything; answers under way are finished first.",
        served = served.join(", "),
    )
}
