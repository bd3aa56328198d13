//! Connections from clients: accepted up to a bound, ended when they stall, drained at the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::Config;

/// The pause after a failed accept, which most often means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All open connections. Dropping it cuts them off.
pub(crate) struct Connections {
    router: Router,
    tasks: JoinSet<()>,
    connections_max: usize,
    client_timeout: Duration,
    closing: watch::Sender<bool>,
}

impl Connections {
    pub(crate) fn new(router: Router, config: &Config) -> Self {
        Self {
            router,
            tasks: JoinSet::new(),
            connections_max: config.connections_max,
            client_timeout: Duration::from_secs(config.client_timeout_s),
            closing: watch::Sender::new(false),
        }
    }

    /// Accepts until it is dropped.
    pub(crate) async fn accept(&mut self, listener: &TcpListener) -> Infallible {
        loop {
            while self.tasks.try_join_next().is_some() {}
            if self.tasks.len() >= self.connections_max {
                // What is not accepted waits in the kernel, whose own bound refuses the rest.
                self.tasks.join_next().await;
                continue;
            }
            match listener.accept().await {
                Ok((stream, _)) => self.spawn(stream),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
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
        let timeout = self.client_timeout;
        let io = TokioIo::new(Unstalled { stream, timeout, stalled: None });
        let service = TowerToHyperService::new(self.router.clone());
        let mut closing = self.closing.subscribe();
        self.tasks.spawn(async move {
            let mut http = http1::Builder::new();
            let connection = http.timer(TokioTimer::new()).header_read_timeout(timeout);
            let mut connection = std::pin::pin!(connection.serve_connection(io, service));
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

    /// Lets each connection end with the request that it is in, and cuts off what is left after `timeout`. Whether
    /// all ended by themselves.
    pub(crate) async fn drain(mut self, timeout: Duration) -> bool {
        self.closing.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(timeout, ended).await.is_ok()
    }
}

/// A stream that fails when its peer takes in nothing for too long: a client that stops reading must not hold its
/// place at a worker for ever.
struct Unstalled {
    stream: TcpStream,
    timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
