//! Connections that wait for their next request. The one that was used last is taken first, so that no more are kept
//! busy than are needed.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::causes;
use super::link::Link;
use crate::record::{Failure, FailureKind};

#[derive(Debug)]
pub(super) struct Pool {
    host: String,
    port: u16,
    connect_timeout: Duration,
    keep_alive: bool,
    /// The name is looked up once: a run measures the server and not its names.
    addresses: OnceCell<Vec<SocketAddr>>,
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    pub(super) fn new((host, port): (&str, u16), connect_timeout: Duration, keep_alive: bool) -> Self {
        let (addresses, idle) = (OnceCell::new(), Mutex::default());
        Self { host: host.to_owned(), port, connect_timeout, keep_alive, addresses, idle }
    }

    /// A connection that was used before, if one is left that the server has not closed.
    pub(super) async fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.pop()?;
            if link.is_idle().await {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn put(&self, link: Link) {
        if self.keep_alive {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        let connecting = async {
            let addresses = self.addresses.get_or_try_init(|| self.look_up()).await?;
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Link::new(stream).await.map_err(Error::other)
        };
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(link) => link.map_err(|error| Failure::new(FailureKind::Connect, causes(&error))),
            Err(_) => {
                let seconds = self.connect_timeout.as_secs_f64();
                Err(Failure::new(FailureKind::Connect, format!("no connection after {seconds} s")))
            }
        }
    }

    fn pop(&self) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn look_up(&self) -> std::io::Result<Vec<SocketAddr>> {
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        if addresses.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("{} has no address", self.host)));
        }
        Ok(addresses)
    }
}
