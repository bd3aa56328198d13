//! Request bodies: each within a bound and a time, and all that are held together within another bound.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use protocol::{ApiError, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::INLINE_BYTES_MAX;

/// Of a body that is too large this many times its bound are still read: a client that is cut off while it writes
/// loses the answer.
const DISCARD_FACTOR: usize = 4;
/// Room is counted in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 10;

/// Reads bodies. What is below [`INLINE_BYTES_MAX`] is bounded by the number of connections; what goes beyond takes
/// room from a bound that all large bodies share, from its bytes' arrival until the body is dropped.
#[derive(Debug)]
pub struct Bodies {
    bytes_max: usize,
    timeout: Duration,
    room: Arc<Semaphore>,
}

/// A whole body, and its room.
#[derive(Clone, Debug)]
pub struct Body {
    bytes: Bytes,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Bytes> for Body {
    /// A body that takes no room.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, _room: None }
    }
}

impl Bodies {
    /// At most `bytes_max` a body, `large_bytes_max` for all large ones, `timeout` for one to arrive.
    pub fn new(bytes_max: usize, large_bytes_max: usize, timeout: Duration) -> Self {
        let pieces = (large_bytes_max / PIECE_BYTES).min(Semaphore::MAX_PERMITS);
        Self { bytes_max, timeout, room: Arc::new(Semaphore::new(pieces)) }
    }

    /// Reads a body to its end, in time.
    pub async fn read(&self, body: axum::body::Body) -> Result<Body, ApiError> {
        let read = tokio::time::timeout(self.timeout, self.read_all(body)).await;
        read.unwrap_or_else(|_| {
            Err(ApiError::new(ErrorCode::InvalidRequest, "the body took too long to arrive; send it again"))
        })
    }

    async fn read_all(&self, mut body: axum::body::Body) -> Result<Body, ApiError> {
        let mut collected = Vec::new();
        let (mut length, mut room) = (0_usize, None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                ApiError::new(ErrorCode::InvalidRequest, "the body could not be read to its end")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length <= self.bytes_max {
                self.grow(&mut room, length)?;
                collected.extend_from_slice(&data);
            } else if length > self.bytes_max.saturating_mul(DISCARD_FACTOR) {
                break;
            } else {
                (collected, room) = (Vec::new(), None);
            }
        }
        if length <= self.bytes_max {
            return Ok(Body { bytes: collected.into(), _room: room.map(Arc::new) });
        }
        let message =
            format!("the body is larger than the {} bytes that this server accepts", self.bytes_max);
        Err(ApiError::new(ErrorCode::PayloadTooLarge, message))
    }

    /// Makes room for `length` bytes in all.
    fn grow(&self, room: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), ApiError> {
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = length.saturating_sub(INLINE_BYTES_MAX).div_ceil(PIECE_BYTES);
        let Some(more) = wanted.checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more)
            .ok()
            .and_then(|more| Arc::clone(&self.room).try_acquire_many_owned(more).ok());
        let more = more.ok_or_else(|| {
            ApiError::new(ErrorCode::Overloaded, "there is no room for another large body; try again shortly")
        })?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    const LIMIT: usize = 256 << 10;

    fn bodies(large_bytes_max: usize) -> Bodies {
        Bodies::new(LIMIT, large_bytes_max, Duration::from_secs(5))
    }

    fn sent(pieces: usize, length: usize) -> axum::body::Body {
        let piece = Bytes::from(vec![b'x'; length]);
        axum::body::Body::from_stream(stream::iter(vec![Ok::<_, Infallible>(piece); pieces]))
    }

    #[tokio::test]
    async fn a_body_comes_whole_up_to_its_bound_and_not_beyond() {
        let bodies = bodies(LIMIT);
        assert_eq!(bodies.read(sent(8, LIMIT / 8)).await.unwrap().len(), LIMIT);
        for pieces in [9, 100] {
            let error = bodies.read(sent(pieces, LIMIT / 8)).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PayloadTooLarge);
        }
        assert_eq!(bodies.room.available_permits(), LIMIT / PIECE_BYTES, "room comes back");
    }

    #[tokio::test]
    async fn large_bodies_share_their_room_and_small_ones_need_none() {
        let bodies = bodies(LIMIT);
        let first = bodies.read(sent(4, LIMIT / 4)).await.unwrap();
        let copy = first.clone();
        assert_eq!(bodies.read(sent(4, LIMIT / 4)).await.unwrap_err().code, ErrorCode::Overloaded);
        assert_eq!(bodies.read(sent(1, INLINE_BYTES_MAX)).await.unwrap().len(), INLINE_BYTES_MAX);
        drop(first);
        assert!(bodies.read(sent(4, LIMIT / 4)).await.is_err(), "a copy holds the room as well");
        drop(copy);
        bodies.read(sent(4, LIMIT / 4)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = axum::body::Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let error = bodies(LIMIT).read(endless).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
    }
}
