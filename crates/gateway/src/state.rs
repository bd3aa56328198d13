//! What every layer shares.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use http_server::{Bodies, Compute};
use response_cache::ResponseCache;
use telemetry::{GatewayMetrics, Registry};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::client::{WorkerClient, bearer};
use crate::layers::authenticate::Keys;
use crate::observe::Observer;
use crate::pool::Pool;
use crate::{Config, GatewayError, GatewayParts};

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) bodies: Bodies,
    pub(crate) compute: Compute,
    pub(crate) keys: Keys,
    pub(crate) worker_authorization: Option<HeaderValue>,
    pub(crate) controller_authorization: Option<HeaderValue>,
    pub(crate) client: WorkerClient,
    pub(crate) pool: Pool,
    pub(crate) observer: Observer,
    pub(crate) cache: ResponseCache,
    pub(crate) cache_enabled: bool,
    pub(crate) registry: Registry,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) queue: Semaphore,
    /// In seconds since 1970. Clients sort models by age; all of ours are as old as the gateway, near enough.
    pub(crate) started_at: u64,
    /// Held while counters are carried over to the registry.
    pub(crate) scrape: Mutex<()>,
}

impl State {
    pub(crate) fn new(parts: GatewayParts) -> Result<Self, GatewayError> {
        let GatewayParts { config, routing, response_cache } = parts;
        config.validate()?;
        routing.validate()?;
        response_cache.validate()?;
        let registry = Registry::new();
        telemetry::register_process(&registry, env!("CARGO_PKG_VERSION"))?;
        let metrics = GatewayMetrics::new(&registry)?;
        let [worker_authorization, controller_authorization] =
            [&config.worker_api_key, &config.controller_api_key].map(|key| bearer(key.as_deref()?));
        let random = || [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
        let salt_secret =
            config.salt_secret.as_ref().map_or_else(random, |secret| secret.as_bytes().to_vec());
        let client_timeout = Duration::from_secs(config.client_timeout_s);
        Ok(Self {
            bodies: Bodies::new(config.body_bytes_max, config.large_bodies_bytes_max, client_timeout),
            compute: Compute::new(),
            keys: Keys::new(&config.keys, &salt_secret),
            worker_authorization,
            controller_authorization,
            client: WorkerClient::new(Duration::from_millis(config.connect_timeout_ms)),
            pool: Pool::new(&config.workers, &routing, &metrics),
            observer: Observer::default(),
            cache_enabled: response_cache.enabled,
            cache: ResponseCache::start(response_cache)?,
            registry,
            metrics,
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            queue: Semaphore::new(config.queue_max),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
            scrape: Mutex::new(()),
            config,
        })
    }
}
