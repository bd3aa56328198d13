//! Signals that end a measurement early, with what was measured until then.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Where each bit is a signal that this process ignores.
const STATUS: &str = "/proc/self/status";

/// Listens for SIGINT, which Ctrl-C sends, SIGTERM, which time-outs and supervisors send, and SIGHUP, which a terminal
/// sends that is closed, until it is dropped. A second SIGINT or SIGTERM ends the program, whatever keeps it; a second
/// SIGHUP does not, for the terminal's shell may send its own. Under `nohup`, SIGHUP stays ignored.
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
        let mut hangup = hears_hangup().then(|| signal(SignalKind::hangup())).transpose().map_err(deaf)?;
        let (stop, status) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)));
        let task = tokio::spawn({
            let (stop, status) = (stop.clone(), Arc::clone(&status));
            async move {
                let mut next = async |hangup: Option<&mut Signal>| {
                    tokio::select! {
                        _ = interrupt.recv() => 130,
                        _ = terminate.recv() => 143,
                        () = received(hangup) => 129,
                    }
                };
                status.store(next(hangup.as_mut()).await, Ordering::Release);
                stop.cancel();
                tell("interrupted: what was measured follows; once more ends without it");
                let again = next(None).await;
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

/// Never, where nobody listens.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP reaches this process. To listen for it where `nohup` had it ignored would undo that, so it stays alone
/// where nothing tells.
fn hears_hangup() -> bool {
    std::fs::read_to_string(STATUS).ok().and_then(|status| is_ignored(&status, SIGHUP)) == Some(false)
}

const SIGHUP: u32 = nix::sys::signal::Signal::SIGHUP as u32;

/// Whether the process with this `/proc/PID/status` ignores a signal.
fn is_ignored(status: &str, signal: u32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    Some(u64::from_str_radix(mask.trim(), 16).ok()? >> (signal - 1) & 1 == 1)
}

/// Whoever pressed Ctrl-C wants to know that it was heard; a terminal that is closed takes no more.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "tenk: {what}");
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_ignored_whose_bit_is_set() {
        let status =
            |mask: &str| format!("Name:\ttenk\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0\n");
        assert_eq!(is_ignored(&status("0000000000000001"), SIGHUP), Some(true));
        assert_eq!(is_ignored(&status("0000000000001006"), SIGHUP), Some(false));
        assert_eq!((is_ignored(&status("x"), SIGHUP), is_ignored("", SIGHUP)), (None, None));
    }
}
