//! Versions in one file. A reader sees the file as one write left it; a writer holds a lock from reading to writing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::document::Document;
use crate::error::Error;
use crate::reference::Selector;
use crate::registry::{Registered, now_ms};
use crate::version::{Measured, NewVersion, Version};

/// Far above any registry, far below what would fill memory.
const BYTES_MAX: u64 = 64 << 20;
const LOCK_POLL: Duration = Duration::from_millis(5);

/// A registry in a file.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    path: PathBuf,
    timeout_s: u64,
}

impl Embedded {
    pub(crate) fn new(path: PathBuf, timeout_s: u64) -> Self {
        Self { path, timeout_s }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn register(&self, new: &NewVersion, measured: &Measured) -> Result<Registered, Error> {
        self.change(|document| document.register(new, measured, now_ms()))
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.read()?.names())
    }

    pub(crate) fn versions(&self, name: &str) -> Result<Vec<Version>, Error> {
        Ok(self.read()?.versions(name))
    }

    pub(crate) fn get(&self, name: &str, selector: &Selector) -> Result<Version, Error> {
        self.read()?.get(name, selector)
    }

    pub(crate) fn aliases(&self, name: &str) -> Result<BTreeMap<String, u64>, Error> {
        Ok(self.read()?.aliases(name))
    }

    pub(crate) fn set_alias(&self, name: &str, alias: &str, version: u64) -> Result<(), Error> {
        self.change(|document| document.set_alias(name, alias, version))
    }

    pub(crate) fn remove_alias(&self, name: &str, alias: &str) -> Result<bool, Error> {
        self.change(|document| Ok(document.remove_alias(name, alias)))
    }

    pub(crate) fn annotate(
        &self,
        name: &str,
        version: u64,
        metrics: &BTreeMap<String, f64>,
        tags: &BTreeMap<String, String>,
    ) -> Result<Version, Error> {
        self.change(|document| document.annotate(name, version, metrics, tags))
    }

    /// What the file says; nothing where there is none yet.
    fn read(&self) -> Result<Document, Error> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
            Err(error) => return Err(Error::io("open", &self.path)(error)),
        };
        let damaged = |reason| Error::Damaged { path: self.path.clone(), reason };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("read", &self.path))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(damaged(format!("it has more than {BYTES_MAX} bytes")));
        }
        Document::parse(&bytes).map_err(damaged)
    }

    /// Reads, changes and writes while no other process can. A change that is refused or changes nothing writes nothing.
    fn change<T>(&self, change: impl FnOnce(&mut Document) -> Result<T, Error>) -> Result<T, Error> {
        let folder = folder_of(&self.path);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let _lock = self.lock()?;
        let before = self.read()?;
        let mut document = before.clone();
        let done = change(&mut document)?;
        if document != before {
            self.write(&document)?;
        }
        Ok(done)
    }

    /// Replaces the file in one step: whoever reads it, and whatever is left after a crash, is the old one or the new one.
    fn write(&self, document: &Document) -> Result<(), Error> {
        let text = document.to_text().map_err(|error| Error::io("write", &self.path)(error.into()))?;
        // Only the lock's holder writes it, so what a killed writer left behind is in nobody's way.
        let new = beside(&self.path, "new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            // The name is on disk only when the folder is.
            File::open(folder_of(&self.path))?.sync_all()
        };
        write().map_err(Error::io("write", &self.path))
    }

    /// The lock is on a file of its own, which stays: the registry's is replaced with each change, and a lock on a name
    /// that now means another file would keep nobody out.
    fn lock(&self) -> Result<File, Error> {
        let path = beside(&self.path, "lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(Error::io("create", &path))?;
        let deadline = Instant::now() + Duration::from_secs(self.timeout_s);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => pause(),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked { path: self.path.clone(), timeout_s: self.timeout_s });
                }
                // Without locks one writer's change could be lost to another's.
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.registry.json.lock` for `registry.json`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

/// The standard library's waiting lock takes no deadline, so we ask again and again.
#[expect(clippy::disallowed_methods, reason = "a change blocks its caller's thread, which runs no task")]
fn pause() {
    thread::sleep(LOCK_POLL);
}

#[cfg(test)]
mod tests;
