//! A throw-away Python environment with the clients that tests use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Pinned, so that a new release of a client does not fail an old commit.
const REQUIREMENTS: &str = "openai==3.57.0\n";

/// The environment's Python under `target`; made when it is not there or was made for other requirements.
pub(super) fn environment(target: &Path) -> Result<PathBuf> {
    let folder = target.join("test-venv");
    let python = folder.join("bin").join("python");
    if is_ready(&folder) {
        return Ok(python);
    }
    println!("xtask: making {} with {}", folder.display(), REQUIREMENTS.trim());
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let packages = REQUIREMENTS.split_whitespace();
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(packages))?;
    // Last, so that an environment that was cut short is made again.
    std::fs::write(stamp(&folder), REQUIREMENTS)?;
    Ok(python)
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("requirements.txt")
}

fn is_ready(folder: &Path) -> bool {
    let installed = std::fs::read_to_string(stamp(folder));
    installed.is_ok_and(|text| text == REQUIREMENTS) && folder.join("bin").join("python").exists()
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} did not start"))?;
    ensure!(status.success(), "{command:?} failed; see its words above, or run `cargo xtask test --fast`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_ready_only_when_it_was_finished_for_these_requirements() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        std::fs::create_dir(folder.join("bin")).expect("makes it");
        std::fs::write(folder.join("bin/python"), "").expect("writes");
        assert!(!is_ready(folder), "cut short");
        std::fs::write(stamp(folder), "openai==1.0.0\n").expect("writes");
        assert!(!is_ready(folder), "made for others");
        std::fs::write(stamp(folder), REQUIREMENTS).expect("writes");
        assert!(is_ready(folder));
        std::fs::remove_file(folder.join("bin/python")).expect("removes");
        assert!(!is_ready(folder), "taken apart");
    }
}
