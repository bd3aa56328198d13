//! Work that takes the processor, kept off the runtime's threads: async code never computes.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

    /// Runs `work` that walks `bytes` bytes a few times: at once if they are few, and off this thread otherwise. Either
    /// way its panic fails the request alone.
    pub async fn run_over<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes > INLINE_BYTES_MAX {
            return self.run(work).await;
        }
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(broken_off("it panicked")))
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
        done.await.unwrap_or_else(|error| Err(broken_off(&error.to_string())))
    }
}

fn broken_off(why: &str) -> ApiError {
    tracing::error!(why, "a computation broke off");
    ApiError::new(ErrorCode::Internal, "the request could not be prepared")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, ThreadId};

    use super::*;

    async fn thread_over(bytes: usize) -> ThreadId {
        Compute::new().run_over(bytes, || Ok(thread::current().id())).await.expect("runs")
    }

    #[tokio::test]
    async fn only_work_on_many_bytes_leaves_the_runtimes_thread() {
        assert_eq!(thread_over(INLINE_BYTES_MAX).await, thread::current().id());
        assert_ne!(thread_over(INLINE_BYTES_MAX + 1).await, thread::current().id());
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_request_wherever_it_ran() {
        for bytes in [0, INLINE_BYTES_MAX + 1] {
            let failed = Compute::new().run_over::<()>(bytes, || panic!("on purpose")).await;
            assert_eq!(failed.expect_err("it panicked").code, ErrorCode::Internal);
        }
    }

    #[tokio::test]
    async fn no_more_than_a_turn_for_each_core_computes_at_once() {
        let compute = Compute::new();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let turns = (0..4 * cores).map(|_| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            compute.run(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        let done: Vec<_> = futures::future::join_all(turns).await;
        assert!(done.iter().all(Result::is_ok));
        assert!((1..=cores).contains(&most.load(Ordering::SeqCst)));
    }
}
