//! One answer as it comes: its head, its body, and the times of both.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use protocol::headers;

use super::link::Link;
use super::{BODY_BYTES_MAX, causes, http_failure};
use crate::answer::{Answer, Wanted};
use crate::clock::Clock;
use crate::record::{CacheStatus, Failure, FailureKind, RequestRecord};

/// The most that is read of an error's body.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a connection whose stream has said `[DONE]` may take to end its body, so that it can be used again.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// What is known of an exchange at any moment, so that one that is cut short leaves what it had.
pub(super) struct Exchange {
    pub(super) answer: Answer,
    pub(super) status: Option<u16>,
    pub(super) done_us: Option<u64>,
    pub(super) resent: bool,
    pub(super) cache: Option<CacheStatus>,
    pub(super) worker: Option<Box<str>>,
    /// Whether the connection is free for another request.
    pub(super) is_over: bool,
}

impl Exchange {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            answer: Answer::new(wanted),
            status: None,
            done_us: None,
            resent: false,
            cache: None,
            worker: None,
            is_over: false,
        }
    }

    /// Reads an answer to its end.
    pub(super) async fn read(
        &mut self,
        link: &mut Link,
        response: Response<Incoming>,
        stream: bool,
        clock: Clock,
    ) -> Result<(), Failure> {
        let (head, mut body) = response.into_parts();
        let status = head.status.as_u16();
        self.status = Some(status);
        self.take_headers(&head.headers);
        if !head.status.is_success() {
            let body = read_whole(link, &mut body, ERROR_BODY_BYTES_MAX).await;
            self.is_over = body.is_ok();
            return Err(http_failure(status, &body.unwrap_or_default()));
        }
        if stream {
            return self.read_stream(link, body, &head.headers, clock).await;
        }
        let body = read_whole(link, &mut body, BODY_BYTES_MAX).await?;
        self.done_us = Some(clock.now_us());
        self.is_over = true;
        self.answer.take_whole(&body)
    }

    fn take_headers(&mut self, headers: &HeaderMap) {
        self.cache = headers.get(headers::CACHE).and_then(|value| CacheStatus::parse(value.as_bytes()));
        let worker = headers.get(headers::WORKER).and_then(|value| value.to_str().ok());
        self.worker = worker.filter(|name| name.len() <= RequestRecord::WORKER_BYTES_MAX).map(Box::from);
    }

    async fn read_stream(
        &mut self,
        link: &mut Link,
        mut body: Incoming,
        headers: &HeaderMap,
        clock: Clock,
    ) -> Result<(), Failure> {
        let mut done = false;
        while !done {
            let Some(bytes) = link.read(&mut body).await else { break };
            let bytes = bytes.map_err(|error| Failure::new(FailureKind::Disconnected, causes(&error)))?;
            // The time is taken once a read: what the network brought together, the reader saw together.
            done = self.answer.take_stream(&bytes, clock.now_us())?;
        }
        self.done_us = Some(clock.now_us());
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        self.answer.check_stream_end(content_type.unwrap_or("no content type"))?;
        // How the body ends no longer matters; the connection is used again only if it ends soon.
        let drain = async { while let Some(Ok(_)) = link.read(&mut body).await {} };
        self.is_over = tokio::time::timeout(DRAIN_TIMEOUT, drain).await.is_ok();
        Ok(())
    }
}

/// A body of at most so many bytes.
pub(super) async fn read_whole(
    link: &mut Link,
    body: &mut Incoming,
    bytes_max: usize,
) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    while let Some(bytes) = link.read(body).await {
        let bytes = bytes.map_err(|error| Failure::new(FailureKind::Disconnected, causes(&error)))?;
        if first.len() + whole.len() + bytes.len() > bytes_max {
            return Err(Failure::new(
                FailureKind::BadAnswer,
                format!("the body is longer than {bytes_max} bytes"),
            ));
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && whole.is_empty() {
            first = bytes;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&bytes);
        }
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
}
