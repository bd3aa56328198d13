//! Work that takes the processor, kept off the runtime's threads: async code never computes.

use std::num::NonZero;
use std::sync::Arc;

use protocol::{ApiError, ErrorCode};
use tokio::sync::Semaphore;

/// Work on at most this many bytes, such as parsing them, costs less than handing it to another thread.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Parsing, templating, tokenization and the writing of large answers, one at a time for each core.
#[derive(Debug)]
pub struct Compute(Arc<Semaphore>);

impl Default for Compute {
    fn default() -> Self {
        Self::new()
    }
}

impl Compute {
    /// As many turns as there are cores.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Runs `work` that walks `bytes` bytes a few times: at once if they are few, and off this thread otherwise.
    pub async fn run_over<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= INLINE_BYTES_MAX { work() } else { self.run(work).await }
    }

    /// Runs `work` to its end, even if nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a computation broke off");
            Err(ApiError::new(ErrorCode::Internal, "the request could not be prepared"))
        })
    }
}
