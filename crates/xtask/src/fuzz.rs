//! `cargo xtask fuzz`: every fuzz target for some seconds. Fails on a crash, a hang or too much memory.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// `cargo xtask fuzz`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Run this target alone.
    target: Option<String>,
}

/// Where they are, a workspace of its own.
const FOLDER: &str = "tests/fuzz";
/// Far above what any input may take.
const INPUT_SECONDS_MAX: u32 = 20;
const MEMORY_MIB_MAX: u32 = 2048;

/// Runs the targets one after the other; a crash does not keep the others from running.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = workspace::root();
    // The product's own versions of what both depend on.
    let lock_file = root.join(FOLDER).join("Cargo.lock");
    fs::copy(root.join("Cargo.lock"), lock_file).context("Cargo.lock could not be copied")?;
    let all = targets(&root)?;
    let targets = match &args.target {
        Some(target) if all.contains(target) => std::slice::from_ref(target),
        Some(target) => bail!("there is no target `{target}`; there are {}", all.join(", ")),
        None => &all,
    };
    let mut crashed = Vec::new();
    for target in targets {
        println!("xtask: fuzz {target} for {} s", args.seconds);
        if !fuzz(&root, target, args.seconds)? {
            crashed.push(target.as_str());
        }
    }
    if crashed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("xtask: crashed: {}; the inputs are in {FOLDER}/artifacts", crashed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn targets(root: &Path) -> Result<Vec<String>> {
    let listed = cargo_fuzz(root, "list").output()?;
    ensure!(
        listed.status.success(),
        "`cargo fuzz list` failed; is it installed? `cargo install cargo-fuzz`: {}",
        String::from_utf8_lossy(&listed.stderr).trim()
    );
    Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
}

fn fuzz(root: &Path, target: &str, seconds: u32) -> Result<bool> {
    let folder = root.join(FOLDER);
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let ended = cargo_fuzz(root, "run")
        .arg(target)
        // What is found goes to the first of the two.
        .args([corpus, folder.join("seeds")])
        .args(["--", &format!("-max_total_time={seconds}"), &format!("-timeout={INPUT_SECONDS_MAX}")])
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .status()?;
    Ok(ended.success())
}

/// Sanitizers and coverage are flags of the nightly compiler, which the stable one knows as well.
fn cargo_fuzz(root: &Path, command: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["fuzz", command, "--fuzz-dir", FOLDER]).env("RUSTC_BOOTSTRAP", "1").current_dir(root);
    cargo
}
