//! One file over HTTP: resumed where an earlier attempt broke off, hashed while it is written, and given its final
//! name only when size and checksum are right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use indicatif::HumanBytes;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::Response;

use crate::checksum;
use crate::config::Config;
use crate::error::Error;
use crate::http::{is_broken_off, shown_url, status_error};
use crate::layout::part_path;
use crate::progress::{Event, Phase, Progress};

const BUFFER_BYTES: usize = 128 << 10;

/// What to fetch, and how to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    /// Its name for people.
    pub(crate) what: &'a str,
    /// Where it goes; it grows beside, under a name that ends in `.part`.
    pub(crate) target: &'a Path,
    /// Its size, where it is known beforehand.
    pub(crate) size_bytes: Option<u64>,
    /// Its SHA-256 in lowercase hex. Only with one is it safe to go on from what lies there.
    pub(crate) sha256: Option<&'a str>,
    pub(crate) bearer: Option<&'a str>,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

/// Fetches files one after another over one client.
pub(crate) struct Downloader<'a> {
    agent: Agent,
    config: &'a Config,
    progress: &'a dyn Progress,
}

/// How one attempt ended short of the whole file.
enum Failure {
    /// Trying again will not help.
    Final(Error),
    /// No connection came about.
    Unreachable(String),
    /// It may go on from what has arrived.
    Broken(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl<'a> Downloader<'a> {
    pub(crate) fn new(agent: Agent, config: &'a Config, progress: &'a dyn Progress) -> Self {
        Self { agent, config, progress }
    }

    /// Brings `request.target` into being.
    ///
    /// A part from an earlier run that turns out not to belong to this file costs one fresh start, not the download.
    pub(crate) fn fetch(&self, request: &Request<'_>) -> Result<Fetched, Error> {
        let name = request.what;
        if let Some(size_bytes) = request.size_bytes.filter(|size| *size > self.config.file_bytes_max) {
            return Err(Error::WrongSize {
                what: name.to_owned(),
                expected_bytes: self.config.file_bytes_max,
                actual_bytes: size_bytes,
            });
        }
        let mut part = Part::open(request, self.progress)?;
        let inherited_bytes = part.written;
        self.progress.report(Event::Started {
            phase: Phase::Downloading,
            what: name,
            bytes_total: request.size_bytes,
        });
        let outcome = self.complete(request, &mut part).and_then(|()| {
            if inherited_bytes > 0 && !part.matches(request) {
                self.note(&format!("what was there of {name} belongs to another file; starting over"));
                part.clear()?;
                self.complete(request, &mut part)?;
            }
            Ok(())
        });
        self.progress.report(Event::Finished);
        outcome?;
        part.persist(request)
    }

    /// Attempts until the part is whole.
    fn complete(&self, request: &Request<'_>, part: &mut Part) -> Result<(), Error> {
        let mut failures = 0;
        let mut furthest = part.written;
        let mut answered = false;
        // Ends: each round either gets further than any before, which the size bounds, or counts as a failure.
        while request.size_bytes != Some(part.written) {
            let reason = match self.attempt(request, part) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Unreachable(reason)) if !answered => {
                    return Err(Error::Unreachable { url: shown_url(request.url), reason });
                }
                Err(Failure::Unreachable(reason)) => reason,
                Err(Failure::Broken(reason)) => {
                    answered = true;
                    reason
                }
            };
            failures = if part.written > furthest { 1 } else { failures + 1 };
            furthest = furthest.max(part.written);
            if failures > self.config.retries_max {
                return Err(Error::BrokenOff { url: shown_url(request.url), failures, reason });
            }
            self.note(&format!(
                "{} broke off at {} ({reason}); trying again",
                request.what,
                HumanBytes(part.written)
            ));
            pause(self.config, failures);
        }
        Ok(())
    }

    /// One request, from where the part ends.
    fn attempt(&self, request: &Request<'_>, part: &mut Part) -> Result<(), Failure> {
        if request.sha256.is_none() {
            part.clear()?;
        }
        let mut call = self.agent.get(request.url);
        if part.written > 0 {
            call = call.header("range", format!("bytes={}-", part.written));
        }
        if let Some(token) = request.bearer {
            call = call.header("authorization", format!("Bearer {token}"));
        }
        let mut response = call.call().map_err(|error| {
            if is_broken_off(&error) {
                Failure::Broken(error.to_string())
            } else {
                Failure::Unreachable(error.to_string())
            }
        })?;
        match response.status().as_u16() {
            // The server ignores ranges, and sends all of it.
            200 => part.clear()?,
            206 if range_start(&response) == Some(part.written) => {}
            206 | 416 => {
                part.clear()?;
                return Err(Failure::Broken("the server answered with another range".to_owned()));
            }
            status @ (408 | 429 | 500..=599) => {
                return Err(Failure::Broken(format!("the server answered {status}")));
            }
            status => return Err(status_error(request.url, status).into()),
        }
        let announced = response.body().content_length().map(|rest| part.written.saturating_add(rest));
        if let (Some(expected_bytes), Some(actual_bytes)) = (request.size_bytes, announced)
            && expected_bytes != actual_bytes
        {
            let what = shown_url(request.url);
            return Err(Error::WrongSize { what, expected_bytes, actual_bytes }.into());
        }
        self.receive(request, part, request.size_bytes.or(announced), &mut response.body_mut().as_reader())
    }

    /// Appends the answer's body to the part.
    fn receive(
        &self,
        request: &Request<'_>,
        part: &mut Part,
        size_bytes: Option<u64>,
        body: &mut impl Read,
    ) -> Result<(), Failure> {
        let bytes_max = size_bytes.unwrap_or(self.config.file_bytes_max).min(self.config.file_bytes_max);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Broken(error.to_string())),
            };
            let actual_bytes = part.written + read as u64;
            if actual_bytes > bytes_max {
                part.clear()?;
                let what = shown_url(request.url);
                return Err(Error::WrongSize { what, expected_bytes: bytes_max, actual_bytes }.into());
            }
            part.append(&buffer[..read])?;
            self.progress.report(Event::Advanced { bytes_done: part.written });
        }
        match size_bytes {
            Some(size_bytes) if part.written < size_bytes => {
                Err(Failure::Broken(format!("it ended after {} of {size_bytes} bytes", part.written)))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, text: &str) {
        self.progress.report(Event::Note(text));
    }
}

#[expect(clippy::disallowed_methods, reason = "a download blocks its caller's thread, which runs no task")]
fn pause(config: &Config, failures: u32) {
    thread::sleep(config.backoff(failures));
}

/// The first byte of a 206 answer's `Content-Range: bytes FIRST-LAST/TOTAL`.
fn range_start<B>(response: &Response<B>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The last component, for people.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A file that grows under its `.part` name, and the hash of what it holds.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    written: u64,
}

impl Part {
    /// Opens what lies there and hashes it; begins anew where it cannot be gone on from.
    fn open(request: &Request<'_>, progress: &dyn Progress) -> Result<Self, Error> {
        let mut part = Self::create(request.target)?;
        let metadata = part.file.metadata().map_err(Error::io("look at", &part.path))?;
        let fits = request.size_bytes.is_none_or(|size| metadata.len() <= size);
        if request.sha256.is_none() || !fits {
            part.clear()?;
        } else if metadata.len() > 0 {
            let hashed =
                checksum::hash_reader(&mut part.file, &part.path, request.what, metadata.len(), progress)?;
            (part.hasher, part.written) = hashed;
        }
        Ok(part)
    }

    /// Opens or creates the part of `target`, wherever it ends.
    pub(crate) fn create(target: &Path) -> Result<Self, Error> {
        let path = part_path(target);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Self { path, file, hasher: Sha256::new(), written: 0 })
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.file
            .set_len(0)
            .and_then(|()| io::Seek::rewind(&mut self.file))
            .map_err(Error::io("empty", &self.path))?;
        self.hasher = Sha256::new();
        self.written = 0;
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    fn matches(&self, request: &Request<'_>) -> bool {
        request.sha256.is_none_or(|expected| self.sha256() == expected)
    }

    fn persist(self, request: &Request<'_>) -> Result<Fetched, Error> {
        self.finish(request.what, request.target, request.size_bytes, request.sha256)
    }

    /// Gives it its final name, or deletes it where size or checksum are wrong.
    pub(crate) fn finish(
        self,
        what: &str,
        target: &Path,
        size_bytes: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<Fetched, Error> {
        let what = what.to_owned();
        let actual = self.sha256();
        let wrong = match (size_bytes, sha256) {
            (Some(expected_bytes), _) if expected_bytes != self.written => {
                Some(Error::WrongSize { what, expected_bytes, actual_bytes: self.written })
            }
            (_, Some(expected)) if expected != actual => {
                Some(Error::WrongChecksum { what, expected: expected.to_owned(), actual: actual.clone() })
            }
            _ => None,
        };
        if let Some(error) = wrong {
            drop(self.file);
            fs::remove_file(&self.path).map_err(Error::io("delete", &self.path))?;
            return Err(error);
        }
        self.file.sync_all().map_err(Error::io("write out", &self.path))?;
        fs::rename(&self.path, target).map_err(Error::io("rename", &self.path))?;
        Ok(Fetched { size_bytes: self.written, sha256: actual })
    }
}

#[cfg(test)]
mod tests;
