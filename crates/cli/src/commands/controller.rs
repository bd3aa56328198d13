//! `tenk controller`, and the one inside `tenk up`

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use controller::{Aliases, Controller, ControllerError, ControllerParts};
use gateway::KeyConfig;
use registry::Registry;

use crate::args::ControllerArgs;
use crate::commands;
use crate::config::{Config, Role};
use crate::models::cache_root;
use crate::registered;
use crate::shutdown::Shutdown;
use crate::voice::Voice;

/// Whose requests warm a version up.
const TENANT: &str = "tenk-controller";

pub(super) async fn run(args: ControllerArgs) -> Result<ExitCode> {
    let (config, voice) = commands::set_up(&args.role, Role::Controller, |config| {
        let controller = &mut config.controller;
        controller.listen = args.listen.unwrap_or(controller.listen);
        controller.gateway = args.gateway.or(controller.gateway.take());
        controller.state_dir = args.state_dir.or(controller.state_dir.take());
        controller.redis_url = args.redis.or(controller.redis_url.take());
        controller.webhook_url = args.webhook.or(controller.webhook_url.take());
    })?;
    let shutdown = Shutdown::listen(voice, args.role.end_with_stdin)?;
    if config.controller.gateway.is_none() {
        voice.warn(
            "no gateway is named, so new versions are neither warmed up nor compared by their answers; name one with \
             --gateway",
        );
    }
    let controller = bind(&config).await?;
    voice.say(&format!("controller listening on http://{}", controller.address()));
    controller.serve(shutdown.wait()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn bind(config: &Config) -> Result<Controller> {
    let parts = ControllerParts {
        config: config.controller.clone(),
        default_dir: cache_root(config)?.join("controller"),
        aliases: Some(Arc::new(InRegistry(registered::open(config)?))),
    };
    Ok(Controller::bind(parts).await?)
}

/// One inside `tenk up`, and what the gateway needs to know about it. If its port is taken, as by another `tenk up`, it
/// takes a free one. With it comes the key that the gateway takes from it, where it wants keys.
pub(super) async fn embed(config: &mut Config, voice: Voice) -> Result<(Controller, Option<String>)> {
    let controller = match bind(config).await {
        Err(error) if is_taken(&error) && !config.is_given("controller.listen") => {
            let taken =
                std::mem::replace(&mut config.controller.listen, SocketAddr::from(([127, 0, 0, 1], 0)));
            let controller = bind(config).await?;
            voice.say(&format!(
                "{taken} is taken, so the controller listens on http://{}",
                controller.address()
            ));
            controller
        }
        bound => bound?,
    };
    config.gateway.controller = Some(format!("http://{}", controller.address()));
    config.gateway.controller_api_key = config.controller.api_key.clone();
    let key = (!config.gateway.keys.is_empty()).then(commands::key::random);
    if let Some(key) = &key {
        let sha256 = commands::key::sha256_of(key);
        config.gateway.keys.push(KeyConfig { tenant: TENANT.into(), sha256, priority_min: 0 });
    }
    Ok((controller, key))
}

fn is_taken(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ControllerError::Listen { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse
    )
}

/// `stable` and `canary` follow what is decided, of versions that the registry knows.
#[derive(Debug)]
struct InRegistry(Registry);

impl Aliases for InRegistry {
    fn get(&self, model: &str, alias: &str) -> Result<Option<String>, String> {
        registered::version_of(&self.0, model, alias).map_err(|error| error.to_string())
    }

    fn set(&self, model: &str, alias: &str, version: Option<&str>) -> Result<(), String> {
        // Versions that come from elsewhere have other names.
        let Ok(number) = version.map(str::parse::<u64>).transpose() else { return Ok(()) };
        let set = match number {
            Some(number) => self.0.set_alias(model, alias, number),
            None => self.0.remove_alias(model, alias).map(drop),
        };
        match set {
            Err(error) if registered::is_absent(&error) => Ok(()),
            set => set.map_err(|error| error.to_string()),
        }
    }
}
