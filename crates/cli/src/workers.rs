//! The workers of one process.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use worker::{Worker, WorkerError, WorkerModel};

/// Workers that serve, each at an address of its own.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    serving: JoinSet<Result<(), WorkerError>>,
    stop: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts one more and says where it listens.
    pub(crate) async fn start(&mut self, config: worker::Config, model: WorkerModel) -> Result<SocketAddr> {
        let worker = Worker::bind(config, model).await?;
        let address = worker.address();
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop.push(stop);
        self.serving.spawn(worker.serve(async move {
            let _ = stopped.await;
        }));
        Ok(address)
    }

    /// Goes on until `shutdown` resolves or one of them breaks off, which ends the others in good order: half a process
    /// would look whole to whoever restarts it.
    pub(crate) async fn serve(mut self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let first = tokio::select! {
            () = shutdown => None,
            first = self.serving.join_next() => first,
        };
        self.stop();
        let mut outcome = first.map_or(Ok(()), ended);
        while let Some(next) = self.serving.join_next().await {
            let next = ended(next);
            outcome = outcome.and(next);
        }
        outcome
    }

    /// Ends all of them; one that has crashed has ended.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.stop();
        while let Some(ended) = self.serving.join_next().await {
            match ended.context("a worker broke off")? {
                Err(WorkerError::Crashed) => {}
                ended => ended?,
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        for stop in self.stop.drain(..) {
            let _ = stop.send(());
        }
    }
}

/// How a worker's task ended.
fn ended(joined: Result<Result<(), WorkerError>, JoinError>) -> Result<()> {
    Ok(joined.context("a worker broke off")??)
}
