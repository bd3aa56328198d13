//! A controller's life: bind, decide, serve, end.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_server::{Bodies, Connections};
use telemetry::{ControllerMetrics, Registry};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::aliases::{AliasKeeper, Aliases};
use crate::api::{Front, router};
use crate::book::Book;
use crate::executor::{Executor, Listeners, Message, Published};
use crate::fleet::Gateways;
use crate::probe::Prober;
use crate::store::Store;
use crate::webhook::Webhook;
use crate::{Config, ControllerError};

/// Messages that wait for the task; who sends more waits.
const MESSAGES_MAX: usize = 256;
/// Gateways, owners and their dashboards.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a peer may be silent.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// A gateway's evidence of several models and its prompts.
const BODY_BYTES_MAX: usize = 16 << 20;
const BODIES_BYTES_MAX: usize = 256 << 20;
/// How long answers may take to go out at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a controller is made of.
#[derive(Debug)]
pub struct ControllerParts {
    /// `[controller]`
    pub config: Config,
    /// Where the log lies if the settings name no place.
    pub default_dir: PathBuf,
    /// Whom to tell which version is stable.
    pub aliases: Option<Arc<dyn Aliases>>,
}

/// A controller that has its address and is about to serve.
#[derive(Debug)]
pub struct Controller {
    listener: TcpListener,
    address: SocketAddr,
    front: Front,
    executor: Executor,
    messages: mpsc::Receiver<Message>,
}

impl Controller {
    /// Listens. Whether it decides is found out while it serves.
    pub async fn bind(parts: ControllerParts) -> Result<Self, ControllerError> {
        let ControllerParts { config, default_dir, aliases } = parts;
        config.validate()?;
        let listen = config.listen;
        let listen_error = |source| ControllerError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let registry = Registry::new();
        telemetry::register_process(&registry, env!("CARGO_PKG_VERSION"))?;
        let metrics = ControllerMetrics::new(&registry)?;
        let (itself, messages) = mpsc::channel(MESSAGES_MAX);
        let published =
            Arc::new(Published { table: watch::Sender::new(None), statuses: watch::Sender::default() });
        let front = Front {
            messages: itself.clone(),
            published: Arc::clone(&published),
            registry: Arc::new(registry),
            bodies: Arc::new(Bodies::new(BODY_BYTES_MAX, BODIES_BYTES_MAX, PEER_TIMEOUT)),
            api_key: config.api_key.as_deref().map(Arc::from),
        };
        let listeners = Listeners {
            webhook: config.webhook_url.clone().map(Webhook::start),
            aliases: aliases.map(AliasKeeper::start),
            metrics,
        };
        let executor = Executor {
            store: Store::new(&config, &default_dir)?,
            prober: Prober::new(&config),
            config,
            published,
            listeners,
            itself,
            deciding: false,
            book: Book::default(),
            gateways: Gateways::default(),
            live: Default::default(),
            dialogue: Default::default(),
            noted_ms: 0,
            trouble: String::new(),
            waits: false,
        };
        Ok(Self { listener, address, front, executor, messages })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the gateway through which versions are asked, unless the settings name one: it may be bound later.
    pub fn ask_through(&mut self, gateway: &str, key: Option<String>) {
        if self.executor.config.gateway.is_none() {
            self.executor.config.gateway = Some(gateway.to_owned());
            self.executor.config.gateway_api_key = key;
            self.executor.prober = Prober::new(&self.executor.config);
        }
    }

    /// Decides and serves until `shutdown` resolves, or until it can decide no more.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ControllerError> {
        let Self { listener, front, executor, messages, .. } = self;
        let ending = CancellationToken::new();
        let mut deciding = tokio::spawn(executor.run(messages, ending.clone().cancelled_owned()));
        let mut connections = Connections::new(router(front), CONNECTIONS_MAX, PEER_TIMEOUT);
        let ended = tokio::select! {
            never = connections.accept(&listener) => match never {},
            () = shutdown => None,
            // Nothing is decided without it: who asks is to hear so, and gateways keep the table that they have.
            ended = &mut deciding => Some(ended),
        };
        drop(listener);
        ending.cancel();
        let ended = match ended {
            Some(ended) => ended,
            // What it has seen is noted before the process ends.
            None => tokio::time::timeout(CLOSE_TIMEOUT, deciding).await.unwrap_or(Ok(())),
        };
        if let Err(error) = &ended {
            tracing::error!(%error, "the task that decides broke off");
        }
        connections.close(CLOSE_TIMEOUT).await;
        ended.map_err(ControllerError::BrokeOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_controller_whose_deciding_task_broke_off_serves_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
        let parts = ControllerParts { config, default_dir: folder.path().to_owned(), aliases: None };
        let mut controller = Controller::bind(parts).await.unwrap();
        // No clock ticks that often: it panics.
        controller.executor.config.interval_ms = 0;
        let served = tokio::time::timeout(Duration::from_secs(20), controller.serve(std::future::pending()));
        assert!(matches!(served.await, Ok(Err(ControllerError::BrokeOff(_)))));
    }
}
