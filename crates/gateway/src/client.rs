//! HTTP to workers, over connections that are kept.
//!
//! A server may close a kept connection at any moment, without a word: some do after each streamed answer. A request
//! that was on its way then was never read, and fails at once. It says nothing about the server, so it is sent once
//! more, on another connection; what happens later, or on a connection that never answered, is the server's doing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Extensions, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service;

/// Idle connections kept to each worker.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// Below the worker's own time-out for idle connections, so that it is we who close them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// A kept connection that closes later than this after a request was sent had taken the request.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// A client for all workers.
#[derive(Clone)]
pub(crate) struct WorkerClient(Client<Connector, Full<Bytes>>);

impl WorkerClient {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(Connector(http));
        Self(client)
    }

    /// Sends a request, and a second time if a kept connection was closed before any answer; `resent` hears of that.
    pub(crate) async fn send(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
        resent: impl FnOnce(),
    ) -> Result<Response<Incoming>, Error> {
        let since = Instant::now();
        let response = match self.0.request(request()).await {
            Err(error) if since.elapsed() < STALE_WITHIN && is_stale(&error) => {
                resent();
                self.0.request(request()).await?
            }
            response => response?,
        };
        if let Some(answered) = response.extensions().get::<Answered>() {
            answered.0.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }

    /// Sends a request and reads its whole answer, which is small. An error says what it comes down to.
    pub(crate) async fn fetch(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), String> {
        let response = self.send(request, || {}).await.map_err(|error| cause(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| format!("the answer broke off: {}", cause(&*error)))?;
        Ok((status, body.to_bytes()))
    }
}

/// What an error comes down to, such as "Connection refused".
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error).to_string()
}

/// A key as the value of `Authorization`, which no log shows; `None` where it cannot be one.
pub(crate) fn bearer(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether a connection that had answered before was closed before this answer began.
fn is_stale(error: &Error) -> bool {
    let mut extensions = Extensions::new();
    let Some(connection) = error.connect_info() else { return false };
    connection.get_extras(&mut extensions);
    let answered = extensions.get::<Answered>().is_some_and(|answered| answered.0.load(Ordering::Relaxed));
    answered
        && std::iter::successors(std::error::Error::source(error), |error| error.source()).any(is_closing)
}

fn is_closing(error: &(dyn std::error::Error + 'static)) -> bool {
    let http = error.downcast_ref::<hyper::Error>();
    let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
    http.is_some_and(|error| error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        || io.is_some_and(|kind| matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// Whether a connection has brought an answer; it comes along with each answer, and with each error.
#[derive(Clone, Debug, Default)]
struct Answered(Arc<AtomicBool>);

#[derive(Clone, Debug)]
struct Connector(HttpConnector);

impl Service<Uri> for Connector {
    type Response = WorkerStream;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<WorkerStream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(WorkerStream { io: connecting.await?, answered: Answered::default() }) })
    }
}

/// A connection that remembers whether it has brought an answer.
#[derive(Debug)]
struct WorkerStream {
    io: TokioIo<TcpStream>,
    answered: Answered,
}

impl Connection for WorkerStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.answered.clone())
    }
}

impl Read for WorkerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for WorkerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
