//! `cargo xtask cuda`: whether the binary compiles for NVIDIA GPUs, told on machines without one, too.
//!
//! candle's kernels need a CUDA compiler. A machine that has the CUDA toolkit uses its own; any other gets what compiling
//! takes as Python packages, in a throw-away environment under `target/`. Nothing is linked: for that the driver's and
//! the toolkit's libraries are needed, and for running it a GPU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::needs::{packages, python};
use crate::workspace::{self, find_program};

/// What kernels are compiled for where no GPU says what it is: Ampere, the first kind that has all they use.
const COMPUTE_CAP: &str = "80";

/// `cargo xtask cuda`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install missing packages without asking; so does CI=true.
    #[arg(long, short)]
    yes: bool,
}

/// Finds a toolkit or makes one, then checks. The kernels take some minutes, once.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = workspace::root();
    let toolkit = match toolkit_of_machine() {
        Some(toolkit) => toolkit,
        None => {
            println!("xtask: there is no CUDA toolkit here (CUDA_HOME, or nvcc on PATH)");
            packages::install_missing(packages::OF_CUDA, args.yes || packages::is_unattended())?;
            let target = workspace::metadata(&root)?.target_directory;
            toolkit_of_wheels(&python::environment(target.as_std_path(), python::OF_CUDA)?)?
        }
    };
    println!("xtask: cargo check -p cli --features cuda, with the CUDA toolkit in {}", toolkit.display());
    let mut cargo = workspace::cargo();
    cargo.args(["check", "-p", "cli", "--features", "cuda"]).current_dir(&root);
    cargo.env("CUDA_HOME", &toolkit).env("PATH", path_with(&toolkit.join("bin"))?);
    if std::env::var_os("CUDA_COMPUTE_CAP").is_none() && find_program("nvidia-smi").is_none() {
        cargo.env("CUDA_COMPUTE_CAP", COMPUTE_CAP);
    }
    let ended = cargo.status().context("cargo did not start")?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the machine's own toolkit lies: `CUDA_HOME`, else around the nvcc on `PATH`.
fn toolkit_of_machine() -> Option<PathBuf> {
    let named = std::env::var_os("CUDA_HOME").map(PathBuf::from);
    let on_path = || Some(find_program("nvcc")?.parent()?.parent()?.to_owned());
    named.filter(|toolkit| is_toolkit(toolkit)).or_else(on_path)
}

fn is_toolkit(folder: &Path) -> bool {
    folder.join("bin").join("nvcc").is_file()
}

/// Where the environment's packages put theirs.
fn toolkit_of_wheels(python: &Path) -> Result<PathBuf> {
    let asked =
        Command::new(python).args(["-c", "import nvidia.cu13; print(*nvidia.cu13.__path__)"]).output()?;
    let toolkit = PathBuf::from(String::from_utf8(asked.stdout)?.trim_end());
    ensure!(
        is_toolkit(&toolkit),
        "the CUDA toolkit was installed but has no nvcc, for which see {}",
        python.display()
    );
    Ok(toolkit)
}

/// `PATH` with a folder in front: one of candle's build scripts asks `nvcc` there for its version.
fn path_with(folder: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("the CUDA toolkit lies in a folder that PATH cannot hold")
}
