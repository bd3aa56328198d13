//! `tenk loadtest merge`: the parts of one run, measured by several processes, become one report.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::report::REPORT_FILE;

/// The files of the reports in `folders`, which are to be merged into `out`.
///
/// # Errors
/// When there are fewer than two, one is given twice or has no report, or `out` is one of them: a part that is merged
/// into itself would be counted twice the next time.
pub fn parts(folders: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, Error> {
    if folders.len() < 2 {
        return Err(Error::Config("merging takes two folders or more, one of each part of the run".into()));
    }
    let place = |folder: &Path| std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mut seen = vec![place(out)];
    let mut files = Vec::new();
    for folder in folders {
        let (place, file) = (place(folder), folder.join(REPORT_FILE));
        if seen.contains(&place) {
            return Err(Error::Config(format!(
                "{} is given twice; each part counts once, and the result needs a folder of its own",
                folder.display()
            )));
        }
        if !file.is_file() {
            return Err(Error::Config(format!(
                "{} holds no {REPORT_FILE}; give what --report-dir was given",
                folder.display()
            )));
        }
        seen.push(place);
        files.push(file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b, empty, out] = ["a", "b", "empty", "out"].map(|name| folder.path().join(name));
        for part in [&a, &b, &empty] {
            std::fs::create_dir(part).expect("made");
        }
        for part in [&a, &b] {
            std::fs::write(part.join(REPORT_FILE), "{}").expect("written");
        }
        let files = parts(&[a.clone(), b.clone()], &out).expect("two parts");
        assert_eq!(files, [a.join(REPORT_FILE), b.join(REPORT_FILE)]);
        let refused = |folders: &[&PathBuf], out: &Path| {
            let folders: Vec<PathBuf> = folders.iter().map(|&folder| folder.clone()).collect();
            parts(&folders, out).expect_err("refused").to_string()
        };
        assert!(refused(&[&a], &out).contains("two folders"));
        assert!(refused(&[&a, &folder.path().join("b/../a")], &out).contains("given twice"));
        assert!(refused(&[&a, &b], &b).contains("a folder of its own"));
        assert!(refused(&[&a, &empty], &out).contains("holds no report.json"));
    }
}
