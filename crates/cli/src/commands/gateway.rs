//! `tenk gateway`: the front door over workers that run elsewhere.

use std::process::ExitCode;
use std::time::Duration;

use ::gateway::{Gateway, GatewayParts};
use anyhow::ensure;

use super::{flag, settings, start_log, url};
use crate::args::GatewayArgs;
use crate::config::{Config, Flag, FlagValues};
use crate::shutdown;

const SECTIONS: [&str; 4] = ["gateway", "routing", "response_cache", "log"];

/// How long to wait for a worker, and for Redis, before saying that there is none.
const PATIENCE: Duration = Duration::from_millis(1500);

pub(super) async fn run(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    let mut flags = Vec::new();
    flags.extend(args.listen.map(|listen| flag("--listen", ["gateway", "listen"], listen)));
    flags.extend(redis_flag(args.redis));
    if !args.workers.is_empty() {
        let values = FlagValues::Many(args.workers);
        flags.push(Flag { name: "--worker", path: ["gateway", "workers"], values });
    }
    let settings = settings(&args.common, flags)?;
    settings.validate_sections(&SECTIONS)?;
    start_log(&settings, false)?;
    let config = settings.config;
    ensure!(
        !config.gateway.workers.is_empty(),
        "there is no worker to ask; give one with --worker http://HOST:PORT, start one with `tenk worker`, or run \
         everything at once with `tenk up`"
    );
    let stop = shutdown::listen()?;
    let gateway = Gateway::bind(parts(&config)).await?;
    eprintln!("gateway listening on {}", url(gateway.address()));
    if !gateway.wait_ready(PATIENCE).await {
        eprintln!(
            "warning: no worker answers yet ({}); requests are refused until one does. Is each running, and is this \
             its address?",
            config.gateway.workers.join(", ")
        );
    }
    warn_without_redis(&gateway, &config).await;
    gateway.serve(stop.cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}

/// The sections that a gateway is made of.
pub(super) fn parts(config: &Config) -> GatewayParts {
    GatewayParts {
        config: config.gateway.clone(),
        routing: config.routing.clone(),
        response_cache: config.response_cache.clone(),
    }
}

pub(super) fn redis_flag(url: Option<String>) -> Option<Flag> {
    url.map(|url| flag("--redis", ["response_cache", "redis_url"], url))
}

/// Redis is a convenience: without it the gateway serves, and says what is missing.
pub(super) async fn warn_without_redis(gateway: &Gateway, config: &Config) {
    let Some(mut up) = gateway.redis_up() else { return };
    let connected = tokio::time::timeout(PATIENCE, up.wait_for(|up| *up)).await;
    if connected.is_ok_and(|up| up.is_ok()) {
        return;
    }
    // Serialized, the address has no password.
    let address = toml::Table::try_from(&config.response_cache)
        .ok()
        .and_then(|section| section.get("redis_url")?.as_str().map(str::to_owned))
        .unwrap_or_default();
    eprintln!(
        "warning: Redis at {address} does not answer, so answers are cached in this process alone until it does; \
         start it (`redis-server`), correct the address, or leave it out"
    );
}
