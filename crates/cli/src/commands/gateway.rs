//! `tenk gateway`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use gateway::{Gateway, GatewayParts};

use crate::args::GatewayArgs;
use crate::commands;
use crate::config::{Config, Role};
use crate::open_files;
use crate::shutdown::Shutdown;
use crate::voice::Voice;

/// How long Redis may take to answer before its absence is worth a sentence.
const REDIS_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(args: GatewayArgs) -> Result<ExitCode> {
    let (config, voice) = commands::set_up(&args.role, Role::Gateway, |config| {
        config.gateway.listen = args.listen.unwrap_or(config.gateway.listen);
        config.gateway.workers.extend(args.worker);
        config.gateway.controller = args.controller.or(config.gateway.controller.take());
        config.response_cache.redis_url = args.redis.or(config.response_cache.redis_url.take());
    })?;
    if config.gateway.workers.is_empty() {
        bail!("a gateway needs workers; give --worker http://127.0.0.1:8081, or `workers` in [gateway]");
    }
    let shutdown = Shutdown::listen(voice, args.role.end_with_stdin)?;
    open_files::allow(config.gateway.connections_max, voice);
    let gateway = Gateway::bind(parts(&config)).await?;
    announce(&gateway, voice);
    gateway.serve(shutdown.wait()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The gateway's own part of the configuration.
pub(super) fn parts(config: &Config) -> GatewayParts {
    GatewayParts {
        config: config.gateway.clone(),
        routing: config.routing.clone(),
        response_cache: config.response_cache.clone(),
    }
}

/// Says where it listens, and later that the Redis that was asked for does not answer, if so.
pub(super) fn announce(gateway: &Gateway, voice: Voice) {
    voice.say(&format!("gateway listening on http://{}", gateway.address()));
    let Some(mut up) = gateway.redis_up() else { return };
    tokio::spawn(async move {
        let connected = tokio::time::timeout(REDIS_PATIENCE, up.wait_for(|up| *up)).await;
        if !matches!(connected, Ok(Ok(_))) {
            voice.warn(
                "Redis does not answer, so answers are cached in this process only; start it, or correct --redis or \
                 `redis_url` in [response_cache] (the gateway goes on trying)",
            );
        }
    });
}
