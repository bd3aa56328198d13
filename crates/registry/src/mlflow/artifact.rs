//! A version's file: put on the server once, and fetched from it as often as somebody serves it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model_store::{Event, Phase, PinnedFile, Progress, fetch_pinned, pinned_path};
use serde_json::Value;
use ureq::SendBody;

use super::wire::RunInfo;
use super::{Mlflow, timeouts};
use crate::error::Error;
use crate::registry::{Cache, cannot_fetch};
use crate::version::Version;

const SCHEME: &str = "mlflow-artifacts:";

impl Mlflow {
    /// Puts a file into a run, and says under which address.
    pub(super) fn upload(
        &self,
        path: &Path,
        run: &RunInfo,
        progress: &dyn Progress,
    ) -> Result<String, Error> {
        if path.is_dir() {
            let reason = "MLflow holds one file a version here, and this is a folder; register a .gguf file";
            let source_text = path.display().to_string();
            return Err(Error::BadSource { source_text, reason: reason.to_owned() });
        }
        let name = plain_name(path);
        let address = format!("{}/{name}", run.artifact_uri);
        let Some(url) = self.artifact_url(&address) else {
            let reason = format!(
                "it keeps files at {}, where they cannot be put; start it with --serve-artifacts",
                run.artifact_uri
            );
            return Err(self.client.bad_answer(reason));
        };
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("look at", path))?.len();
        progress.report(Event::Started { phase: Phase::Uploading, what: &name, bytes_total: Some(bytes) });
        let mut body = Told { file, done: 0, progress };
        let call = self.client.agent().put(&url).content_type("application/octet-stream");
        let answer = call.header("content-length", bytes).send(SendBody::from_reader(&mut body));
        progress.report(Event::Finished);
        let done: Result<Value, _> = self.client.read(answer)?;
        done.map_err(|refusal| self.client.refused("take a file", refusal))?;
        Ok(address)
    }

    /// Brings a version's file into the models' cache.
    pub(crate) fn fetch(
        &self,
        version: &Version,
        address: &str,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<PathBuf, Error> {
        let path = cached_path(version, address, cache)?;
        let Some(url) = self.artifact_url(address) else {
            return Err(cannot_fetch(version, "only what lies on MLflow itself can be fetched".into()));
        };
        let file = PinnedFile {
            url: &url,
            name: &path.file_name().unwrap_or_default().to_string_lossy(),
            size_bytes: version.size_bytes,
            sha256: version.checksum.as_deref().unwrap_or_default(),
        };
        Ok(fetch_pinned(&cache.root, &file, &timeouts(&cache.fetch, self.timeout_s), progress)?)
    }

    /// Where the server gives and takes the bytes of an address of its own.
    fn artifact_url(&self, address: &str) -> Option<String> {
        let rest = address.strip_prefix(SCHEME)?;
        // `mlflow-artifacts://host/path` names the server a second time.
        let path = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/')?.1,
            None => rest.trim_start_matches('/'),
        };
        let is_plain =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(is_plain);
        path.split('/')
            .all(is_plain)
            .then(|| format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.url()))
    }
}

/// Where a version's file lies in the models' cache, or will.
pub(crate) fn cached_path(version: &Version, address: &str, cache: &Cache) -> Result<PathBuf, Error> {
    let Some(checksum) = &version.checksum else {
        let reason = "it was registered without a checksum, so nothing tells whether its file is right; register it \
                      with `tenk model register`";
        return Err(cannot_fetch(version, reason.into()));
    };
    let name = address.rsplit('/').next().unwrap_or_default();
    Ok(pinned_path(&cache.root, checksum, name)?)
}

/// A file's name without what addresses would have to escape.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.bytes().map(|byte| if is_plain(byte) { char::from(byte) } else { '_' }).collect();
    match name.trim_start_matches('.') {
        "" => "model.gguf".into(),
        name => name.into(),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A file that tells how far it has been read.
struct Told<'a> {
    file: File,
    done: u64,
    progress: &'a dyn Progress,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        self.progress.report(Event::Advanced { bytes_done: self.done });
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_server_stays_below_its_files() {
        let mlflow = Mlflow::new("http://h:1/", 1, &model_store::Config::default());
        let url = |address: &str| mlflow.artifact_url(address);
        let right = Some("http://h:1/api/2.0/mlflow-artifacts/artifacts/1/r/artifacts/m.gguf".to_owned());
        assert_eq!(url("mlflow-artifacts:/1/r/artifacts/m.gguf"), right);
        assert_eq!(url("mlflow-artifacts://other:9/1/r/artifacts/m.gguf"), right);
        for address in
            ["s3://b/k", "mlflow-artifacts:/1/../../x", "mlflow-artifacts:/a b", "mlflow-artifacts:/a?x=1"]
        {
            assert_eq!(url(address), None, "{address}");
        }
    }

    #[test]
    fn an_uploaded_file_has_a_name_that_needs_no_escapes() {
        assert_eq!(plain_name(Path::new("/m/my model#1.gguf")), "my_model_1.gguf");
        assert_eq!(plain_name(Path::new("/m/..")), "model.gguf");
        assert_eq!(plain_name(Path::new("/m/.é")), "__");
    }
}
