//! Reports of earlier runs, as they lie in files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::figures::Figures;
use crate::report::REPORT_FILE;

/// A report that was read back. Figures are found by name anywhere in the document, so that reports of several
/// versions of the tester can be compared.
#[derive(Clone, Debug)]
pub struct SavedReport {
    /// Where it lies.
    pub path: PathBuf,
    document: Value,
}

impl SavedReport {
    /// A document that was read from `path`.
    pub const fn new(path: PathBuf, document: Value) -> Self {
        Self { path, document }
    }

    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(failed)?;
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| {
            Error::Config(format!("{} is no report: {error}; a {REPORT_FILE} was expected", path.display()))
        })?;
        if document.get("schema").is_none() {
            return Err(Error::Config(format!(
                "{} is no report, for it has no `schema`; a {REPORT_FILE} was expected",
                path.display()
            )));
        }
        Ok(Self::new(path.to_owned(), document))
    }

    /// What the run asked for, to tell whether two runs asked the same.
    pub fn model(&self) -> &str {
        self.document.get("model").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Figures for SavedReport {
    fn figure(&self, name: &str) -> Option<f64> {
        let name = name.strip_prefix("scheduled.").unwrap_or(name);
        let number = |path: &str| at(&self.document, path).and_then(Value::as_f64);
        match name.strip_prefix("sent.") {
            Some(_) => number(name),
            None => number(&format!("scheduled.{name}"))
                .or_else(|| number(name))
                .or_else(|| leaf(&self.document, name)),
        }
    }

    fn valid(&self) -> bool {
        self.document.get("valid").and_then(Value::as_bool).unwrap_or(false)
    }

    fn interrupted(&self) -> bool {
        self.document.get("interrupted").and_then(Value::as_bool).unwrap_or(false)
    }
}

fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(document, |value, key| value.get(key))
}

/// The number called `name` in any section, except the one whose latencies run from sending.
fn leaf(value: &Value, name: &str) -> Option<f64> {
    let sections = value.as_object()?;
    let here = sections.get(name).and_then(Value::as_f64);
    let below = || sections.iter().filter(|(key, _)| *key != "sent").find_map(|(_, value)| leaf(value, name));
    here.or_else(below)
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
    use serde_json::json;

    use super::*;

    fn report(document: Value) -> SavedReport {
        SavedReport::new(PathBuf::from("report.json"), document)
    }

    #[test]
    fn a_latency_is_the_scheduled_one_unless_its_name_says_sent() {
        let saved = report(json!({
            "sent": {"ttft_p99_ms": 1.0, "only_sent": 9.0},
            "scheduled": {"ttft_p99_ms": 2.0},
            "throughput": {"output_tokens_per_s": 3.0},
            "goodput": 0.5,
            "valid": true,
        }));
        assert_eq!(saved.figure("ttft_p99_ms"), Some(2.0));
        assert_eq!(saved.figure("scheduled.ttft_p99_ms"), Some(2.0));
        assert_eq!(saved.figure("sent.ttft_p99_ms"), Some(1.0));
        assert_eq!(saved.figure("output_tokens_per_s"), Some(3.0));
        assert_eq!(saved.figure("goodput"), Some(0.5));
        assert_eq!(saved.figure("only_sent"), None);
        assert!(saved.valid() && !saved.interrupted());
    }

    #[test]
    fn a_folder_is_a_run_or_holds_repeats() {
        let folder = tempfile::tempdir().expect("a folder");
        for run in ["b", "a"] {
            std::fs::create_dir(folder.path().join(run)).expect("made");
            std::fs::write(folder.path().join(run).join(REPORT_FILE), r#"{"schema": 1}"#).expect("written");
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
        assert!(refused(read_all(std::slice::from_ref(&file))).contains("no `schema`"));
        std::fs::write(&file, "{").expect("written");
        assert!(refused(read_all(std::slice::from_ref(&file))).contains("is no report"));
        assert!(refused(read_all(&[folder.path().join("absent")])).contains("absent"));
    }
}
