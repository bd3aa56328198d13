//! The log in a folder of this machine.
//!
//! One file that only grows, a line a record, each on the disk before anyone acts by it. A lock file says who writes;
//! the system lets it go when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Taken, read};
use crate::{ControllerError, Record};

/// A folder with a log, a lock and a checkpoint.
#[derive(Debug)]
pub(crate) struct FileStore {
    folder: PathBuf,
    open: Option<Open>,
}

/// What is held while deciding.
#[derive(Debug)]
struct Open {
    log: Arc<File>,
    epoch: u64,
    _lock: File,
}

impl FileStore {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, open: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("rollouts.jsonl")
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.folder.join("evidence.json")
    }

    pub(crate) async fn take(&mut self, above: u64) -> Result<Option<Taken>, ControllerError> {
        let (folder, log, checkpoint) = (self.folder.clone(), self.log_path(), self.checkpoint_path());
        let taken = blocking(move || take(&folder, &log, &checkpoint, above)).await?;
        Ok(taken.map(|(open, taken)| {
            self.open = Some(open);
            taken
        }))
    }

    pub(crate) fn release(&mut self) {
        self.open = None;
    }

    pub(crate) async fn append(&mut self, record: &Record) -> Result<(), ControllerError> {
        let Some(open) = self.open.as_ref().filter(|open| open.epoch == record.epoch) else {
            return Err(ControllerError::Fenced);
        };
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        let (log, path) = (Arc::clone(&open.log), self.log_path());
        blocking(move || {
            let failed = |source| ControllerError::Folder { path: path.clone(), source };
            (&*log).write_all(line.as_bytes()).and_then(|()| log.sync_data()).map_err(failed)
        })
        .await
    }

    pub(crate) async fn checkpoint(&mut self, text: String) -> Result<(), ControllerError> {
        let path = self.checkpoint_path();
        blocking(move || {
            let written = path.with_extension("new");
            let failed = |source| ControllerError::Folder { path: path.clone(), source };
            std::fs::write(&written, text).and_then(|()| std::fs::rename(&written, &path)).map_err(failed)
        })
        .await
    }

    pub(crate) async fn records(&self) -> Result<Vec<Record>, ControllerError> {
        let path = self.log_path();
        blocking(move || read_log(&path).map(|(records, _)| records)).await
    }
}

fn take(
    folder: &Path,
    log: &Path,
    checkpoint: &Path,
    above: u64,
) -> Result<Option<(Open, Taken)>, ControllerError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ControllerError::Folder { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let lock_path = folder.join("lock");
    let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
    }
    let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed(log))?;
    let (records, whole) = read_log(log)?;
    // What a dying writer left of a line goes, or the next record would be a part of it.
    file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed(log))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    let epoch = records.last().map_or(0, |record| record.epoch).max(above) + 1;
    let checkpoint = std::fs::read_to_string(checkpoint).ok();
    Ok(Some((Open { log: Arc::new(file), epoch, _lock: lock }, Taken { epoch, records, checkpoint })))
}

/// The log, and its length up to a last line without an end: that one was being written when its writer died, and was
/// never decided.
fn read_log(path: &Path) -> Result<(Vec<Record>, u64), ControllerError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes.map_err(|source| ControllerError::Folder { path: path.to_owned(), source })?,
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok((read(&path.display().to_string(), text.lines())?, whole as u64))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControllerError> + Send + 'static,
) -> Result<T, ControllerError> {
    let broken = |source| ControllerError::Folder { path: PathBuf::new(), source: io::Error::other(source) };
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}
