//! The SHA-256 of a model, which is its version where no registry gives it another.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::download::file_name;
use crate::error::Error;
use crate::progress::{Event, Phase, Progress, Silent};

const SIDECAR_SUFFIX: &str = "sha256";
const DIRECTORY_SIDECAR: &str = ".sha256";
/// Model directories are flat or nearly so; the bound keeps a loop of links from being followed for ever.
const DEPTH_MAX: usize = 4;
const FILES_MAX: usize = 10_000;

/// The SHA-256 of a model, in lowercase hex: of a file's bytes, or, for a directory, of its files' names and SHA-256
/// in the order of their names, leaving out hidden files and those on their way.
///
/// The sum is kept beside the model (`.FILE.sha256`, or `.sha256` in the directory) under the sizes and modification
/// times that it was computed for, and is computed again when one of these differs. Where nothing can be written
/// there, it is computed each time.
///
/// # Errors
/// [`Error::Io`] where the model cannot be read, [`Error::NotAModel`] for a directory of too many files.
pub fn checksum(path: &Path) -> Result<String, Error> {
    let stamp = Stamp::of(path)?;
    if let Some(sum) = stamp.recall() {
        return Ok(sum);
    }
    let sum = if stamp.is_directory {
        let mut hasher = Sha256::new();
        for file in &stamp.files {
            hasher.update((file.name.len() as u64).to_le_bytes());
            hasher.update(file.name.as_bytes());
            hasher.update(file_checksum(&path.join(&file.name))?);
        }
        hex::encode(hasher.finalize())
    } else {
        file_checksum(path)?
    };
    stamp.remember(&sum);
    Ok(sum)
}

/// Keeps the sum of a file that was hashed on its way, so that nobody hashes it again.
pub(crate) fn remember(path: &Path, sha256: &str) {
    if let Ok(stamp) = Stamp::of(path) {
        stamp.remember(sha256);
    }
}

/// Hashes exactly `bytes` bytes of `reader`, which is left behind them.
pub(crate) fn hash_reader(
    reader: &mut impl Read,
    path: &Path,
    what: &str,
    bytes: u64,
    progress: &dyn Progress,
) -> Result<(Sha256, u64), Error> {
    progress.report(Event::Started { phase: Phase::Checking, what, bytes_total: Some(bytes) });
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut limited = reader.take(bytes);
    let mut done = 0;
    let outcome = loop {
        match limited.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                done += read as u64;
                progress.report(Event::Advanced { bytes_done: done });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(Error::io("read", path)(error)),
        }
    };
    progress.report(Event::Finished);
    outcome.map(|()| (hasher, done))
}

/// The SHA-256 of a file, with its progress told.
pub(crate) fn hash_file_with(path: &Path, progress: &dyn Progress) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let bytes = file.metadata().map_err(Error::io("look at", path))?.len();
    let (hasher, _) = hash_reader(&mut file, path, &file_name(path), bytes, progress)?;
    Ok(hex::encode(hasher.finalize()))
}

/// A file's sum, without leaving a new sidecar beside each file of a directory.
fn file_checksum(path: &Path) -> Result<String, Error> {
    if let Some(sum) = Stamp::of(path)?.recall() {
        return Ok(sum);
    }
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (hasher, _) = hash_reader(&mut file, path, "", u64::MAX, &Silent)?;
    Ok(hex::encode(hasher.finalize()))
}

/// What a model's files look like from outside: enough to tell that they have not been touched.
struct Stamp {
    is_directory: bool,
    files: Vec<StampedFile>,
    sidecar: PathBuf,
}

struct StampedFile {
    /// Relative to the directory, with `/` between segments; empty for a single file.
    name: String,
    size_bytes: u64,
    modified_ns: u128,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
        if !metadata.is_dir() {
            let sidecar = path.with_file_name(format!(".{}.{SIDECAR_SUFFIX}", file_name(path)));
            return Ok(Self { is_directory: false, files: vec![stamped(String::new(), &metadata)], sidecar });
        }
        let mut files = Vec::new();
        collect(path, "", 0, &mut files)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { is_directory: true, files, sidecar: path.join(DIRECTORY_SIDECAR) })
    }

    fn key(&self) -> String {
        let mut hasher = Sha256::new();
        for file in &self.files {
            hasher.update(format!("{}\0{}\0{}\n", file.name, file.size_bytes, file.modified_ns));
        }
        hex::encode(hasher.finalize())
    }

    /// The sum that was kept for files that look like these.
    fn recall(&self) -> Option<String> {
        let text = fs::read_to_string(&self.sidecar).ok()?;
        let (sum, key) = text.trim_end().split_once(' ')?;
        let is_sum = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        (is_sum && key == self.key()).then(|| sum.to_owned())
    }

    fn remember(&self, sum: &str) {
        if let Err(error) = fs::write(&self.sidecar, format!("{sum} {}\n", self.key())) {
            tracing::debug!(path = %self.sidecar.display(), %error, "cannot keep the checksum");
        }
    }
}

fn stamped(name: String, metadata: &fs::Metadata) -> StampedFile {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    StampedFile {
        name,
        size_bytes: metadata.len(),
        modified_ns: modified.map_or(0, |since| since.as_nanos()),
    }
}

fn collect(directory: &Path, prefix: &str, depth: usize, files: &mut Vec<StampedFile>) -> Result<(), Error> {
    let refuse = |reason: &str| Error::NotAModel { path: directory.to_owned(), reason: reason.to_owned() };
    if depth > DEPTH_MAX {
        return Err(refuse("its directories are nested too deep"));
    }
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(refuse("it holds a file whose name is no UTF-8"));
        };
        if name.starts_with('.') || name.ends_with(".part") {
            continue;
        }
        let path = entry.path();
        // Follows links, as the hub's own cache is made of them.
        let metadata = fs::metadata(&path).map_err(Error::io("look at", &path))?;
        if metadata.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), depth + 1, files)?;
        } else {
            files.push(stamped(format!("{prefix}{name}"), &metadata));
        }
        if files.len() > FILES_MAX {
            return Err(refuse("it holds too many files"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn set_modified(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_files_checksum_is_its_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, "abc").unwrap();
        assert_eq!(checksum(&path).unwrap(), ABC);
    }

    #[test]
    fn a_kept_checksum_is_used_until_size_or_time_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, "abc").unwrap();
        set_modified(&path, 1_000);
        assert_eq!(checksum(&path).unwrap(), ABC);
        // Same size and time: the sidecar answers, which shows that the file is not read again.
        fs::write(&path, "xyz").unwrap();
        set_modified(&path, 1_000);
        assert_eq!(checksum(&path).unwrap(), ABC);
        set_modified(&path, 2_000);
        assert_ne!(checksum(&path).unwrap(), ABC);
    }

    #[test]
    fn a_damaged_sidecar_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        fs::write(&path, "abc").unwrap();
        fs::write(dir.path().join(".m.gguf.sha256"), "nonsense").unwrap();
        assert_eq!(checksum(&path).unwrap(), ABC);
    }

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn a_directorys_checksum_depends_on_names_and_contents_alone() {
        let sum = |files: &[(&str, &str)]| checksum(directory(files).path()).unwrap();
        let one = sum(&[("config.json", "{}"), ("model.safetensors", "abc"), ("1_Pooling/config.json", "p")]);
        let same =
            sum(&[("1_Pooling/config.json", "p"), ("model.safetensors", "abc"), ("config.json", "{}")]);
        assert_eq!(one, same);
        let ours = [
            ("config.json", "{}"),
            ("model.safetensors", "abc"),
            ("1_Pooling/config.json", "p"),
            (".lock", ""),
            ("x.part", "half"),
        ];
        assert_eq!(one, sum(&ours));
        assert_ne!(
            one,
            sum(&[("config.json", "{}"), ("model.safetensors", "abd"), ("1_Pooling/config.json", "p")])
        );
        assert_ne!(
            one,
            sum(&[("config.json", "{}"), ("renamed.safetensors", "abc"), ("1_Pooling/config.json", "p")])
        );
    }

    #[test]
    fn a_directorys_checksum_is_kept_and_changes_with_a_file() {
        let dir = directory(&[("config.json", "{}"), ("model.safetensors", "abc")]);
        let first = checksum(dir.path()).unwrap();
        assert!(dir.path().join(".sha256").exists());
        assert_eq!(checksum(dir.path()).unwrap(), first);
        fs::write(dir.path().join("model.safetensors"), "longer").unwrap();
        assert_ne!(checksum(dir.path()).unwrap(), first);
    }
}
