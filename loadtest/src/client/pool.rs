//! Connections that wait for their next request. The one that was used last is taken first, so that no more are kept
//! busy than are needed, and those that a burst left behind are closed after a while: each costs some twenty kilobytes
//! here and a file at the server.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::causes;
use super::link::Link;
use crate::record::{Failure, FailureKind};

/// How long a connection may wait for a request.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Those that wait, with since when; the one that came last is at the back.
#[derive(Debug)]
struct Idle<T>(VecDeque<(T, Instant)>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Idle<T> {
    /// Keeps one, and lets go of one that has waited for too long. One each time is enough to get rid of all of them,
    /// and no request has to wait until a thousand are closed.
    fn push(&mut self, one: T, now: Instant) {
        self.0.push_back((one, now));
        if self.0.front().is_some_and(|(_, since)| now.duration_since(*since) > IDLE_MAX) {
            self.0.pop_front();
        }
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop_back().map(|(one, _)| one)
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    host: String,
    port: u16,
    connect_timeout: Duration,
    keep_alive: bool,
    /// The name is looked up once: a run measures the server and not its names.
    addresses: OnceCell<Vec<SocketAddr>>,
    idle: Mutex<Idle<Link>>,
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
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link, Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_came_goes_first_and_what_has_waited_too_long_is_let_go() {
        let start = Instant::now();
        let at_s = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::default();
        ["a", "b", "c"].into_iter().for_each(|one| idle.push(one, start));
        for seconds in 1..=10 {
            assert_eq!(idle.pop(), Some("c"), "a and b are not needed");
            idle.push("c", at_s(seconds));
        }
        assert_eq!(idle.0.len(), 3);
        for (seconds, left) in [(11, 2), (12, 1), (13, 1)] {
            assert_eq!(idle.pop(), Some("c"));
            idle.push("c", at_s(seconds));
            assert_eq!(idle.0.len(), left);
        }
    }
}
