//! One connection, driven by whoever uses it: no task of its own runs beside it, so that an answer wakes one task and
//! not two.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::wire::{Heard, Wire};

pub(super) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Boxed, for it is big, and is passed around for each request.
    connection: Box<http1::Connection<TokioIo<Wire>, Full<Bytes>>>,
    /// A connection that has ended must not be driven again.
    has_ended: bool,
    heard: Heard,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

/// What became of a request before its answer's head came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{}", super::causes(.0))]
    Hyper(hyper::Error),
    #[error("the connection was closed before the request was sent")]
    Closed,
}

impl Link {
    pub(super) async fn new(stream: TcpStream) -> hyper::Result<Self> {
        let (wire, heard) = Wire::new(stream);
        let (sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        Ok(Self { sender, connection: Box::new(connection), has_ended: false, heard })
    }

    /// Whether a request can be sent. It looks at the socket, so that one which the server has closed meanwhile is
    /// found out here and not by a request.
    pub(super) async fn is_idle(&mut self) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(!self.drive(cx))).await && self.sender.is_ready()
    }

    /// Whether the server has said anything since the last request was sent.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.anything()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Broken> {
        self.heard.reset();
        let mut answer = pin!(self.sender.send_request(request));
        let (connection, has_ended) = (&mut self.connection, &mut self.has_ended);
        std::future::poll_fn(move |cx| {
            drive(connection, has_ended, cx);
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(Broken::Hyper)),
                Poll::Pending if *has_ended => Poll::Ready(Err(Broken::Closed)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The next bytes of an answer's body; nothing at its end.
    pub(super) async fn read(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        std::future::poll_fn(|cx| {
            loop {
                let mut frame = Pin::new(&mut *body).poll_frame(cx);
                if frame.is_pending() {
                    self.drive(cx);
                    frame = Pin::new(&mut *body).poll_frame(cx);
                }
                match frame {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                        Err(_trailers) => {}
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.connection, &mut self.has_ended, cx)
    }
}

/// Lets a connection read and write what it can; true when it has ended. How it ended is told to the request and to the
/// body that it serves.
fn drive(
    connection: &mut http1::Connection<TokioIo<Wire>, Full<Bytes>>,
    has_ended: &mut bool,
    cx: &mut Context<'_>,
) -> bool {
    *has_ended = *has_ended || Pin::new(connection).poll(cx).is_ready();
    *has_ended
}
