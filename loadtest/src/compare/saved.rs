//! Reports of earlier runs, as they lie in files.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::figures::Figures;
use crate::report::{REPORT_FILE, Report};

/// A report that was read back.
#[derive(Clone, Debug)]
pub struct SavedReport {
    /// Where it lies.
    pub path: PathBuf,
    report: Report,
}

impl SavedReport {
    /// Reads one file.
    ///
    /// # Errors
    /// When it cannot be read, or is no report of this version.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), report: Report::load(path)? })
    }

    /// What it says.
    pub(crate) const fn report(&self) -> &Report {
        &self.report
    }
}

impl Figures for SavedReport {
    fn figure(&self, name: &str) -> Option<f64> {
        self.report.figure(name)
    }

    fn valid(&self) -> bool {
        self.report.valid
    }

    fn interrupted(&self) -> bool {
        self.report.interrupted
    }
}

/// The reports that an argument means: a file, a run's folder, or a folder of such folders, whose runs are repeats.
pub fn find(argument: &Path) -> Result<Vec<PathBuf>, Error> {
    if argument.is_file() {
        return Ok(vec![argument.to_owned()]);
    }
    let own = argument.join(REPORT_FILE);
    if own.is_file() {
        return Ok(vec![own]);
    }
    let failed = |source| Error::File { path: argument.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(argument).map_err(failed)? {
        let report = entry.map_err(failed)?.path().join(REPORT_FILE);
        if report.is_file() {
            found.push(report);
        }
    }
    if found.is_empty() {
        return Err(Error::Config(format!(
            "{} holds no {REPORT_FILE}, nor does a folder in it; give what --report-dir was given",
            argument.display()
        )));
    }
    found.sort();
    Ok(found)
}

/// Reads all reports that the arguments mean.
pub fn read_all(arguments: &[PathBuf]) -> Result<Vec<SavedReport>, Error> {
    let mut reports = Vec::new();
    for argument in arguments {
        for path in find(argument)? {
            reports.push(SavedReport::read(&path)?);
        }
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::scenario::Scenario;

    fn save(folder: &Path) {
        let facts = sample::facts_of(Scenario::default(), &[sample::success()]);
        Report::new(facts).save(folder).expect("written");
    }

    #[test]
    fn a_folder_is_a_run_or_holds_repeats() {
        let folder = tempfile::tempdir().expect("a folder");
        for run in ["b", "a"] {
            save(&folder.path().join(run));
        }
        let paths = find(folder.path()).expect("found");
        assert_eq!(paths, ["a", "b"].map(|run| folder.path().join(run).join(REPORT_FILE)));
        assert_eq!(find(&folder.path().join("a")).expect("found"), [paths[0].clone()]);
        assert_eq!(find(&paths[1]).expect("found"), [paths[1].clone()]);
        assert_eq!(read_all(&[folder.path().to_owned()]).expect("read").len(), 2);
    }

    #[test]
    fn what_is_no_report_is_refused_by_its_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |found: Result<Vec<SavedReport>, Error>| found.expect_err("refused").to_string();
        assert!(refused(read_all(&[folder.path().to_owned()])).contains("holds no report.json"));
        let file = folder.path().join("x.json");
        std::fs::write(&file, "{}").expect("written");
        assert!(refused(read_all(std::slice::from_ref(&file))).contains("x.json"));
        std::fs::write(&file, "{").expect("written");
        assert!(refused(read_all(std::slice::from_ref(&file))).contains("x.json"));
        assert!(refused(read_all(&[folder.path().join("absent")])).contains("absent"));
    }
}
