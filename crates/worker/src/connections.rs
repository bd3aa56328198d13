//! The sockets: how many there may be, how long one may stay silent, and their end.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long to wait after a failed accept, which as a rule means that the process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Every open connection. Dropping it cuts them all.
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    closing: CancellationToken,
    router: Router,
    max: usize,
    idle_timeout: Duration,
}

impl Connections {
    pub(crate) fn new(router: Router, max: usize, idle_timeout: Duration) -> Self {
        Self { tasks: JoinSet::new(), closing: CancellationToken::new(), router, max, idle_timeout }
    }

    /// Takes connections for as long as it is polled. While all places are taken new ones wait in the listener.
    pub(crate) async fn accept(&mut self, listener: &TcpListener) -> Infallible {
        loop {
            tokio::select! {
                Some(_) = self.tasks.join_next() => {}
                accepted = listener.accept(), if self.tasks.len() < self.max => match accepted {
                    Ok((stream, _)) => self.serve(stream),
                    Err(error) if is_of_one_client(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    fn serve(&mut self, stream: TcpStream) {
        // A token is a small packet that must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle_timeout)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()));
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }

    /// Closes what is idle at once and the rest after the answer under way; cuts what is left after `timeout`.
    pub(crate) async fn close(mut self, timeout: Duration) {
        self.closing.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// The client left between connecting and being accepted.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
