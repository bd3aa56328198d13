//! Connections that are accepted: their number, their stalls, their end.

mod unstalled;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use unstalled::Unstalled;

/// The pause after a failed accept, which most often means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All open connections. Dropping it cuts them off.
#[derive(Debug)]
pub struct Connections {
    router: Router,
    tasks: JoinSet<()>,
    connections_max: usize,
    timeout: Duration,
    closing: watch::Sender<bool>,
}

impl Connections {
    /// Serves `router` to at most `connections_max` connections at a time. `timeout` is how long one may take for a
    /// request's head, the first or the next, and to take in a piece of an answer.
    pub fn new(router: Router, connections_max: usize, timeout: Duration) -> Self {
        Self { router, tasks: JoinSet::new(), connections_max, timeout, closing: watch::Sender::new(false) }
    }

    /// Accepts for as long as it is polled. While all places are taken, new ones wait in the kernel, whose own bound
    /// refuses the rest.
    pub async fn accept(&mut self, listener: &TcpListener) -> Infallible {
        loop {
            tokio::select! {
                Some(_) = self.tasks.join_next() => {}
                accepted = listener.accept(), if self.tasks.len() < self.connections_max => match accepted {
                    Ok((stream, _)) => self.spawn(stream),
                    Err(error) if is_of_one_peer(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn spawn(&mut self, stream: TcpStream) {
        // Events are small and must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it began");
            return;
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.timeout)
            .serve_connection(
                TokioIo::new(Unstalled::new(stream, self.timeout)),
                TowerToHyperService::new(self.router.clone()),
            );
        let mut closing = self.closing.subscribe();
        self.tasks.spawn(async move {
            let mut connection = pin!(connection);
            let close = async {
                let _ = closing.wait_for(|closing| *closing).await;
            };
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = close => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }

    /// Closes what is idle at once and the rest after the answer under way; cuts off what is left after `timeout`.
    /// Whether all ended by themselves.
    pub async fn close(mut self, timeout: Duration) -> bool {
        self.closing.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(timeout, all).await.is_ok();
        self.tasks.shutdown().await;
        ended
    }
}

/// The peer left between connecting and being accepted.
fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests;
