//! Work that takes the processor, kept off the runtime's threads: async code never computes.

use std::num::NonZero;
use std::sync::Arc;

use protocol::{ApiError, ErrorCode};
use tokio::sync::Semaphore;

/// Parsing, templating, tokenization and the writing of large answers, one at a time for each core.
#[derive(Debug)]
pub(crate) struct Compute(Arc<Semaphore>);

impl Compute {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// Runs `work` to its end, even if nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(
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
