//! A throw-away Python environment for a program that is not ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::{Error, Progress};

/// Pinned, so that a new release does not change what an old commit is measured against.
const REQUIREMENT: &str = "xllamacpp==2026.10.11549";

/// The environment's Python under `folder`; made when it is not there or was made for another release.
pub(crate) async fn environment(folder: &Path, progress: &Progress) -> Result<PathBuf, Error> {
    let python = folder.join("bin").join("python");
    if is_ready(folder) {
        return Ok(python);
    }
    progress(&format!("installing {REQUIREMENT} into {}", folder.display()));
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder)).await?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT];
    run(Command::new(&python).args(install)).await?;
    // Last, so that an environment that was cut short is made again.
    std::fs::write(stamp(folder), REQUIREMENT).map_err(Error::file(folder))?;
    Ok(python)
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("requirement.txt")
}

fn is_ready(folder: &Path) -> bool {
    let installed = std::fs::read_to_string(stamp(folder));
    installed.is_ok_and(|text| text == REQUIREMENT) && folder.join("bin").join("python").exists()
}

async fn run(command: &mut Command) -> Result<(), Error> {
    let name = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| {
        Error::broken(format!("{name} did not start: {error}; llama.cpp's server comes as a Python package"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let advice = "it needs python3 with its venv module, and a package index within reach";
    Err(Error::broken(format!("{name} failed, {advice}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_ready_only_when_it_was_finished_for_this_release() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        std::fs::create_dir(folder.join("bin")).expect("makes it");
        std::fs::write(folder.join("bin/python"), "").expect("writes");
        assert!(!is_ready(folder), "cut short");
        std::fs::write(stamp(folder), "xllamacpp==1").expect("writes");
        assert!(!is_ready(folder), "made for another");
        std::fs::write(stamp(folder), REQUIREMENT).expect("writes");
        assert!(is_ready(folder));
        std::fs::remove_file(folder.join("bin/python")).expect("removes");
        assert!(!is_ready(folder), "taken apart");
    }
}
