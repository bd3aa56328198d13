//! Throw-away Python environments for programs that are not ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A folder under `target` or in the models' cache, and the packages in it. They are pinned, so that a new release does not fail an old commit.
#[derive(Clone, Copy)]
pub(crate) struct Environment {
    folder: &'static str,
    requirements: &'static str,
}

/// OpenAI's own client, which the tests use.
pub(crate) const OF_TESTS: Environment =
    Environment { folder: "test-venv", requirements: "openai==3.57.0\n" };

/// MLflow's server, which holds model versions in the registry's tests. It takes 850 MB and more than a minute, so it is
/// kept beside the models.
pub(crate) const OF_REGISTRY: Environment =
    Environment { folder: "mlflow-venv", requirements: "mlflow==3.17.2\n" };

/// vLLM's router, which the gateway is measured against.
pub(crate) const OF_GATEWAY_BARS: Environment =
    Environment { folder: "router-venv", requirements: "vllm-router==0.1.17\n" };

/// What compiles CUDA kernels: compiler, headers, and nothing to link or run with. No newer than candle's bindings know.
pub(crate) const OF_CUDA: Environment =
    Environment { folder: "cuda-venv", requirements: "cuda-toolkit[nvcc,crt,nvvm,cudart,cccl]==13.4.3\n" };

/// NVIDIA's load tester, which ours is measured against.
pub(crate) const OF_LOADTEST_BARS: Environment =
    Environment { folder: "aiperf-venv", requirements: "aiperf==0.13.0\n" };

/// The environment's Python, in a folder under `place`; made when it is not there or was made for other requirements.
pub(crate) fn environment(place: &Path, wanted: Environment) -> Result<PathBuf> {
    let Environment { folder, requirements } = wanted;
    let folder = place.join(folder);
    let python = folder.join("bin").join("python");
    if is_ready(&folder, requirements) {
        return Ok(python);
    }
    println!("xtask: making {} with {}", folder.display(), requirements.trim());
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let packages = requirements.split_whitespace();
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(packages))?;
    // Last, so that an environment that was cut short is made again.
    std::fs::write(stamp(&folder), requirements)?;
    Ok(python)
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("requirements.txt")
}

fn is_ready(folder: &Path, requirements: &str) -> bool {
    let installed = std::fs::read_to_string(stamp(folder));
    installed.is_ok_and(|text| text == requirements) && folder.join("bin").join("python").exists()
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} did not start"))?;
    ensure!(status.success(), "{command:?} failed; see its words above");
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
        let requirements = OF_TESTS.requirements;
        let is_ready = |folder: &Path| is_ready(folder, requirements);
        assert!(!is_ready(folder), "cut short");
        std::fs::write(stamp(folder), "openai==1.0.0\n").expect("writes");
        assert!(!is_ready(folder), "made for others");
        std::fs::write(stamp(folder), requirements).expect("writes");
        assert!(is_ready(folder));
        std::fs::remove_file(folder.join("bin/python")).expect("removes");
        assert!(!is_ready(folder), "taken apart");
    }
}
