//! One file whose checksum is known before it is fetched, from wherever it may be.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checksum::{checksum, remember};
use crate::config::Config;
use crate::download::{Downloader, Request};
use crate::error::Error;
use crate::http::agent;
use crate::layout::models_dir;
use crate::lock::ModelLock;
use crate::progress::{Event, Progress};
use crate::reference::is_safe_file_name;

/// A file, and how to know it.
#[derive(Clone, Copy, Debug)]
pub struct PinnedFile<'a> {
    /// Where it is fetched from.
    pub url: &'a str,
    /// What it is called in the cache; one plain name.
    pub name: &'a str,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its SHA-256, in lowercase hex.
    pub sha256: &'a str,
}

/// Where a file of that checksum lies under the cache root, whether it is there or not: in a folder that is named for
/// its bytes, so that whoever wants the same bytes finds them, and that [`crate::list`] passes over.
///
/// # Errors
/// [`Error::BadPin`] for a checksum or a name that is none, as they may come from a server.
pub fn pinned_path(root: &Path, sha256: &str, name: &str) -> Result<PathBuf, Error> {
    let is_sum = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_sum {
        return Err(Error::BadPin {
            what: sha256.to_owned(),
            expected: "a SHA-256 of 64 lowercase hex digits",
        });
    }
    if !is_safe_file_name(name) || name.contains('/') {
        return Err(Error::BadPin { what: name.to_owned(), expected: "a file's plain name" });
    }
    Ok(models_dir(root).join(format!("sha256@{sha256}")).join(name))
}

/// Brings a file into the cache, unless it is there with this very checksum. Blocks, for minutes where it is large;
/// what a broken fetch leaves behind, the next one goes on from.
///
/// # Errors
/// [`Error::WrongChecksum`] and [`Error::WrongSize`] for a file that is another one, the network's errors, and
/// [`Error::Io`].
pub fn fetch_pinned(
    root: &Path,
    file: &PinnedFile<'_>,
    config: &Config,
    progress: &dyn Progress,
) -> Result<PathBuf, Error> {
    config.validate()?;
    let target = pinned_path(root, file.sha256, file.name)?;
    let is_there = || target.is_file() && checksum(&target).is_ok_and(|sum| sum == file.sha256);
    if is_there() {
        return Ok(target);
    }
    let folder = target.parent().unwrap_or(root);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let _lock = ModelLock::acquire(folder, config.lock_timeout_s, progress)?;
    if is_there() {
        return Ok(target);
    }
    if target.exists() {
        progress.report(Event::Note(&format!("{} in the cache was changed; fetching it again", file.name)));
    }
    let downloader = Downloader::new(agent(config, config.connect_timeout_ms), config, progress);
    let fetched = downloader.fetch(&Request {
        url: file.url,
        what: file.name,
        target: &target,
        size_bytes: Some(file.size_bytes),
        sha256: Some(file.sha256),
        bearer: None,
    })?;
    remember(&target, &fetched.sha256);
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::test_server::{Reply, TestServer};
    use crate::wheel::tests::sha256;

    fn config() -> Config {
        Config { retry_backoff_ms: 1, retry_backoff_max_ms: 1, proxy_from_env: false, ..Config::default() }
    }

    #[test]
    fn a_file_is_fetched_once_and_a_broken_fetch_goes_on_where_it_stopped() {
        let bytes = vec![7; 100_000];
        let body = bytes.clone();
        let server = TestServer::start(move |seen| match seen.nth {
            0 => Reply::ranged(&body, seen).broken_after(40_000),
            _ => Reply::ranged(&body, seen),
        });
        let root = tempfile::tempdir().unwrap();
        let url = server.url("/m.gguf");
        let file = PinnedFile { url: &url, name: "m.gguf", size_bytes: 100_000, sha256: sha256(&bytes) };
        let path = fetch_pinned(root.path(), &file, &config(), &Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let again = fetch_pinned(root.path(), &file, &config(), &Silent).unwrap();
        assert_eq!((again, server.seen().len()), (path, 2));
        assert!(server.seen()[1].range_start.is_some_and(|start| start > 0), "{:?}", server.seen());
    }

    #[test]
    fn a_file_that_was_changed_in_the_cache_is_fetched_again() {
        let bytes = b"the model".to_vec();
        let body = bytes.clone();
        let server = TestServer::start(move |seen| Reply::ranged(&body, seen));
        let root = tempfile::tempdir().unwrap();
        let url = server.url("/m.gguf");
        let file = PinnedFile { url: &url, name: "m.gguf", size_bytes: 9, sha256: sha256(&bytes) };
        let path = fetch_pinned(root.path(), &file, &config(), &Silent).unwrap();
        fs::write(&path, "something else").unwrap();
        assert_eq!(fetch_pinned(root.path(), &file, &config(), &Silent).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_name_or_a_checksum_that_could_leave_the_cache_is_refused() {
        let sum = "0".repeat(64);
        for (sum, name) in
            [(sum.as_str(), "../m.gguf"), (&sum, "a/b"), (&sum, ".hidden"), ("../..", "m.gguf")]
        {
            assert!(matches!(pinned_path(Path::new("/c"), sum, name), Err(Error::BadPin { .. })), "{name}");
        }
    }
}
