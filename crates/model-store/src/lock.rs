//! One fetcher a model, over all processes of the machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::download::file_name;
use crate::error::Error;
use crate::layout::LOCK;
use crate::progress::{Event, Progress};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Held while a model's directory changes. The file stays behind: to delete it would let two processes lock two files
/// of one name.
pub(crate) struct ModelLock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl ModelLock {
    /// Takes the lock of `model_dir`, which must exist; where another holds it, says so and waits.
    pub(crate) fn acquire(model_dir: &Path, timeout_s: u64, progress: &dyn Progress) -> Result<Self, Error> {
        let path = model_dir.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let model = file_name(model_dir);
        let deadline = Instant::now() + Duration::from_secs(timeout_s);
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems have no locks; a pull alone is still right there.
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(path = %path.display(), %error, "going on without a lock");
                    return Ok(Self(file));
                }
            }
            if !told {
                progress.report(Event::Note(&format!("another process is fetching {model}; waiting for it")));
                told = true;
            }
            if Instant::now() >= deadline {
                return Err(Error::Locked { model, timeout_s });
            }
            pause();
        }
    }
}

/// The standard library's waiting lock takes no deadline, so we ask again and again.
#[expect(clippy::disallowed_methods, reason = "a pull blocks its caller's thread, which runs no task")]
fn pause() {
    thread::sleep(POLL_INTERVAL);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::progress::Silent;

    #[test]
    fn the_second_to_come_says_that_it_waits_and_gives_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = ModelLock::acquire(dir.path(), 0, &Silent).unwrap();
        let notes = Cell::new(0);
        let progress = |event: Event<'_>| {
            if let Event::Note(text) = event {
                assert!(text.contains("waiting"), "{text}");
                notes.set(notes.get() + 1);
            }
        };
        assert!(matches!(ModelLock::acquire(dir.path(), 0, &progress), Err(Error::Locked { .. })));
        assert_eq!(notes.get(), 1);
        drop(held);
        assert!(ModelLock::acquire(dir.path(), 0, &Silent).is_ok());
    }
}
