//! `tenk up`: everything in one process, over the same code paths as the roles apart.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gateway::{Gateway, GatewayError};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use worker::{Worker, WorkerError, WorkerModel};

use crate::args::UpArgs;
use crate::commands;
use crate::config::{Config, Role};
use crate::shutdown::Shutdown;

/// How long the workers may take to answer their first probe.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn run(args: UpArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let mut config = commands::set_up(&args.common, Role::Up, |config| {
        config.gateway.listen = args.listen.unwrap_or(config.gateway.listen);
        config.response_cache.redis_url = args.redis.or(config.response_cache.redis_url.take());
        // People are spoken to on the terminal; the log is for what is wrong.
        config.log.filter = std::env::var("TENK_LOG").unwrap_or_else(|_| "warn".into());
    })?;
    let shutdown = Shutdown::listen()?;
    let address = config.gateway.listen;
    commands::try_listen(address).map_err(|source| GatewayError::Listen { address, source })?;

    let names = if args.model.is_empty() { vec![config.model.name.clone()] } else { args.model };
    let mut workers = Workers::default();
    let mut served = Vec::new();
    for name in names {
        let Some(model) = commands::load(&config, name, None, &shutdown).await? else {
            return Ok(ExitCode::SUCCESS);
        };
        if served.contains(&model.name().to_owned()) {
            bail!("two models are called `{}`; rename one of the files", model.name());
        }
        served.push(model.name().to_owned());
        for _ in 0..args.workers {
            let model = WorkerModel { model: model.clone(), scheduler: config.scheduler.clone() };
            config.gateway.workers.push(workers.start(&config, model).await?);
        }
    }

    let gateway = Gateway::bind(super::gateway::parts(&config)).await?;
    let address = gateway.address();
    if !gateway.wait_ready(READY_TIMEOUT).await {
        bail!(
            "the workers did not get ready within {} s; set TENK_LOG=info to see why",
            READY_TIMEOUT.as_secs()
        );
    }
    super::gateway::watch_redis(&gateway);
    welcome(address, &config, &served, started.elapsed());
    // The gateway first: its streams come from the workers.
    gateway.serve(shutdown.wait()).await?;
    workers.end().await?;
    Ok(ExitCode::SUCCESS)
}

/// The workers of this process.
#[derive(Default)]
struct Workers {
    serving: JoinSet<Result<(), WorkerError>>,
    stop: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// On a free loopback port, whatever `[worker]` says: here workers are the gateway's alone. Returns the address.
    async fn start(&mut self, config: &Config, model: WorkerModel) -> Result<String> {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let api_key = config.gateway.worker_api_key.clone();
        let worker = Worker::bind(worker::Config { listen, api_key, ..config.worker.clone() }, model).await?;
        let address = format!("http://{}", worker.address());
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop.push(stop);
        self.serving.spawn(worker.serve(async move {
            let _ = stopped.await;
        }));
        Ok(address)
    }

    async fn end(mut self) -> Result<()> {
        for stop in self.stop {
            // A worker that has ended already needs no telling.
            let _ = stop.send(());
        }
        while let Some(ended) = self.serving.join_next().await {
            ended.context("a worker broke off")??;
        }
        Ok(())
    }
}

fn welcome(address: SocketAddr, config: &Config, models: &[String], took: Duration) {
    let base = format!("http://{address}");
    let (workers, model) = (&config.gateway.workers, &models[0]);
    let key = if config.gateway.keys.is_empty() { "" } else { " -H 'Authorization: Bearer YOUR_KEY'" };
    println!(
        "tenk is up after {:.1} s: {} workers, serving {}",
        took.as_secs_f64(),
        workers.len(),
        models.join(", ")
    );
    println!();
    println!("  {base}/v1        OpenAI's API: give it to any client as base URL");
    println!("  {base}/metrics   the gateway's metrics; each worker has its own:");
    for worker in workers {
        println!("  {worker}/metrics");
    }
    println!();
    println!("Try it:");
    println!(
        "  curl -i {base}/v1/chat/completions{key} -d '{{\"model\":\"{model}\",\"temperature\":0,\
         \"messages\":[{{\"role\":\"user\",\"content\":\"What is the capital of France?\"}}]}}'"
    );
    println!();
    println!(
        "It answers {{\"choices\":[{{\"message\":{{\"role\":\"assistant\",\"content\":\"…\"}},\
         \"finish_reason\":\"stop\"}}],\"usage\":{{…}}}}."
    );
    println!(
        "Ask twice: the second answer says `x-tenk-cache: hit`. With \"stream\":true tokens come one by one."
    );
    println!("Ctrl-C ends it.");
}
