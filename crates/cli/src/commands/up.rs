//! `tenk up`: everything in one process, over the same code paths as the roles apart.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gateway::{Gateway, GatewayError};

use crate::args::UpArgs;
use crate::commands;
use crate::config::{Config, Role};
use crate::open_files;
use crate::served::{Asked, Source};
use crate::shutdown::Shutdown;
use crate::simulated;
use crate::voice::Voice;
use crate::workers::Workers;

/// How long the workers may take to answer their first probe.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How many workers the welcome names.
const METRICS_SHOWN_MAX: usize = 8;

pub(super) async fn run(args: UpArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let models: Vec<String> = args.model.iter().chain(&args.also.also).cloned().collect();
    let profiles = simulated::profiles(args.engine.engine, &args.profile, &models)?;
    let (mut config, voice) = commands::set_up(&args.role, Role::Up, |config| {
        config.gateway.listen = args.listen.unwrap_or(config.gateway.listen);
        config.engine.device = args.compute.device.map_or(config.engine.device, Into::into);
        config.response_cache.redis_url = args.redis.or(config.response_cache.redis_url.take());
        // People are spoken to on the terminal; the log is for what is wrong.
        if !config.is_given("log.filter") {
            config.log.filter = "warn".into();
        }
        // Nobody balances in front of a laptop.
        if !config.is_given("gateway.drain_delay_ms") {
            config.gateway.drain_delay_ms = 0;
        }
        if let Some(profile) = profiles.first() {
            simulated::set_limits(config, profile);
        }
    })?;
    if !config.gateway.keys.is_empty() {
        // Without one anybody on this machine could go round the gateway, and pass for any tenant.
        config.gateway.worker_api_key.get_or_insert_with(commands::key::random);
    }
    commands::set_threads(&args.compute)?;
    let shutdown = Shutdown::listen(voice, args.role.end_with_stdin)?;
    open_files::allow(config.gateway.connections_max, voice);
    let address = config.gateway.listen;
    commands::try_listen(address).map_err(|source| GatewayError::Listen { address, source })?;

    let finding = config.clone();
    let asked = Asked { models: args.model, also: args.also.also, profiles };
    let found = commands::unless_ended(&shutdown, move || asked.find(&finding, voice));
    let Some((first, also)) = found.await? else { return Ok(ExitCode::SUCCESS) };
    let first = first.into_iter().map(|source| (source, args.workers));
    let also = also.into_iter().map(|source| (source, args.also.also_workers));
    let mut workers = Workers::default();
    let served = start(first.chain(also), &mut config, &mut workers, &shutdown, voice);
    let Some(served) = served.await? else { return Ok(ExitCode::SUCCESS) };

    let controller =
        if args.no_controller { None } else { Some(super::controller::embed(&mut config, voice).await?) };
    let gateway = Gateway::bind(super::gateway::parts(&config)).await?;
    let address = gateway.address();
    let deciding = controller.map(|(mut controller, key)| {
        controller.ask_through(&format!("http://{address}"), key);
        tokio::spawn(controller.serve(shutdown.clone().wait()))
    });
    super::gateway::announce(&gateway, voice);
    let ready = tokio::select! {
        ready = gateway.wait_ready(READY_TIMEOUT) => ready,
        () = shutdown.clone().wait() => return Ok(ExitCode::SUCCESS),
    };
    if !ready {
        let waited_s = READY_TIMEOUT.as_secs();
        bail!("the workers did not get ready within {waited_s} s; set TENK_LOG=info to see why");
    }
    commands::print(&welcome(address, &config, &served, started.elapsed()))?;
    // The gateway first: its streams come from the workers.
    gateway.serve(shutdown.wait()).await?;
    if let Some(deciding) = deciding {
        deciding.await.context("the controller broke off")??;
    }
    workers.end().await?;
    Ok(ExitCode::SUCCESS)
}

/// Loads each source and starts so many workers of it, whose addresses the gateway is told. Gives the models' names, or
/// nothing if the process was asked to end meanwhile.
async fn start(
    sources: impl Iterator<Item = (Source, u16)>,
    config: &mut Config,
    workers: &mut Workers,
    shutdown: &Shutdown,
    voice: Voice,
) -> Result<Option<Vec<String>>> {
    let mut served: Vec<String> = Vec::new();
    for (source, count) in sources {
        let loading = config.clone();
        let load = move || source.load(loading, Role::Up, voice);
        let Some(model) = commands::unless_ended(shutdown, load).await? else { return Ok(None) };
        let name = model.model.name();
        if !served.iter().any(|other| other == name) {
            served.push(name.to_owned());
        }
        for _ in 0..count {
            let address = workers.start(config.embedded_worker(), model.clone()).await?;
            config.gateway.workers.push(format!("http://{address}"));
        }
    }
    Ok(Some(served))
}

/// What to open, what to try, and what comes back.
fn welcome(address: SocketAddr, config: &Config, models: &[String], took: Duration) -> String {
    let base = format!("http://{address}");
    let workers = &config.gateway.workers;
    let key = if config.gateway.keys.is_empty() { "" } else { " -H 'Authorization: Bearer YOUR_KEY'" };
    let wanted = if config.gateway.worker_api_key.is_none() { "" } else { ", behind `worker_api_key`" };
    let mut metrics: String =
        workers.iter().take(METRICS_SHOWN_MAX).map(|worker| format!("  {worker}/metrics\n")).collect();
    if let Some(more) = workers.len().checked_sub(METRICS_SHOWN_MAX + 1) {
        metrics += &format!("  … and {} more\n", more + 1);
    }
    format!(
        "tenk is up after {took:.1} s: {workers}, serving {models}

  {base}/v1        OpenAI's API: give it to any client as base URL
  {base}/metrics   the gateway's metrics; each worker has its own{wanted}:
{metrics}{rollouts}
Try it:
  curl -i {base}/v1/chat/completions{key} -d {body}

It answers {{\"choices\":[{{\"message\":{{\"role\":\"assistant\",\"content\":\"…\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{…}}}}.
Ask twice: the second answer says `x-tenk-cache: hit`. With \"stream\":true tokens come one by one.
Ctrl-C ends it.
",
        took = took.as_secs_f64(),
        rollouts = config.gateway.controller.as_ref().map_or_else(String::new, |controller| {
            format!("  {controller}      the controller; `tenk rollout --help` shows how versions get users\n")
        }),
        workers = if workers.len() == 1 { "1 worker".to_owned() } else { format!("{} workers", workers.len()) },
        body = body_for_shell(&models[0]),
        models = models.join(", "),
    )
}

/// A chat for this model, as one word of a shell's command line.
fn body_for_shell(model: &str) -> String {
    let model = serde_json::Value::from(model);
    let body = format!(
        "{{\"model\":{model},\"temperature\":0,\"messages\":[{{\"role\":\"user\",\
         \"content\":\"What is the capital of France?\"}}]}}"
    );
    format!("'{}'", body.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_models_name_stays_inside_the_shells_word() {
        let body = body_for_shell("it's \"mine\"");
        assert!(body.starts_with(r#"'{"model":"it'\''s \"mine\"","#) && body.ends_with('\''), "{body}");
    }
}
