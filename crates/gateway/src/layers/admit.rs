//! Admission: how many requests may be with workers, and how many may wait for that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use protocol::{ApiError, ErrorCode};
use tokio::sync::OwnedSemaphorePermit;
use tower::ServiceExt;

use super::layer;
use crate::call::{Answer, Call, CallService, Piece, Pieces};
use crate::error::CallError;

layer! {
    /// Lets a bounded number through and a bounded number wait.
    AdmitLayer => Admit
}

impl<S: CallService> Admit<S> {
    async fn run(self, call: Call) -> Result<Answer, CallError> {
        if !self.state.pool.any_up(&call.model) {
            self.state.metrics.rejected("no_worker").inc();
            return Err(CallError::new(
                ErrorCode::Unavailable,
                "no worker for this model is up; try again shortly",
            ));
        }
        let permit = match Arc::clone(&self.state.in_flight).try_acquire_owned() {
            Ok(permit) => permit,
            // A copy takes no place in line from a request.
            Err(_) if call.is_copy => {
                return Err(CallError::new(ErrorCode::Overloaded, "the gateway is busy"));
            }
            Err(_) => self.wait(&call).await?,
        };
        match self.inner.oneshot(call).await? {
            Answer::Stream(pieces) => Ok(Answer::Stream(Box::pin(Held { pieces, _permit: permit }))),
            whole => Ok(whole),
        }
    }

    /// Takes a place in line if there is one, and waits for a bounded time.
    async fn wait(&self, call: &Call) -> Result<OwnedSemaphorePermit, CallError> {
        let state = &self.state;
        let Ok(_place) = state.queue.try_acquire() else {
            state.metrics.rejected("queue_full").inc();
            return Err(CallError::new(ErrorCode::Overloaded, "the queue is full; try again shortly"));
        };
        let _depth = telemetry::InFlight::enter(&state.metrics.queue_depth);
        let since = Instant::now();
        let timeout = Duration::from_millis(state.config.queue_timeout_ms);
        let acquired = tokio::time::timeout(timeout, Arc::clone(&state.in_flight).acquire_owned()).await;
        call.trail.waited(since.elapsed());
        state.metrics.queue_wait.observe(since.elapsed().as_secs_f64());
        match acquired {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(CallError::new(ErrorCode::Unavailable, "the gateway is shutting down")),
            Err(_) => {
                state.metrics.rejected("queue_timeout").inc();
                Err(CallError::new(
                    ErrorCode::Overloaded,
                    "the request waited in the queue for too long; try again",
                ))
            }
        }
    }
}

/// A stream that keeps its place until it ends or its client leaves.
struct Held {
    pieces: Pieces,
    _permit: OwnedSemaphorePermit,
}

impl Stream for Held {
    type Item = Result<Piece, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(context)
    }
}
