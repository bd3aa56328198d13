//! Signals that end a measurement early, with what was measured until then.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Listens for SIGINT, which Ctrl-C sends, and SIGTERM, which time-outs and supervisors send, until it is dropped.
/// A second one ends the program, whatever keeps it. SIGHUP keeps its meaning: to catch it would undo `nohup`.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// Cancelled at the first signal.
    pub(crate) stop: CancellationToken,
    /// What shells report of a process that such a signal ended; 0 before.
    status: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self, Error> {
        let deaf = |error: std::io::Error| Error::Broken(format!("signals cannot be listened for: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(deaf)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(deaf)?;
        let (stop, status) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)));
        let task = tokio::spawn({
            let (stop, status) = (stop.clone(), Arc::clone(&status));
            async move {
                let mut next = async || {
                    tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = terminate.recv() => 143,
                    }
                };
                status.store(next().await, Ordering::Release);
                stop.cancel();
                tell("interrupted: what was measured follows; once more ends without it");
                let again = next().await;
                tell("interrupted again: ended without a report");
                std::process::exit(again.into());
            }
        });
        Ok(Self { stop, status, task })
    }

    /// What to end with, if there was a signal.
    pub(crate) fn status(&self) -> Option<ExitCode> {
        let status = self.status.load(Ordering::Acquire);
        (status != 0).then(|| ExitCode::from(status))
    }
}

#[expect(clippy::print_stderr, reason = "whoever pressed Ctrl-C wants to know that it was heard")]
fn tell(what: &str) {
    eprintln!("tenk: {what}");
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.task.abort();
    }
}
