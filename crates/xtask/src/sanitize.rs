//! `cargo xtask sanitize`: the tests of the crate with `unsafe` under AddressSanitizer, which ends them at the first
//! read or write beyond what was allocated, or after it was freed.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace;

/// The one crate with `unsafe`; `cargo xtask tidy` sees to it.
const PACKAGE: &str = "kernels";

/// Builds the tests for the host by name, so that build scripts and macros stay as they are, and runs them.
pub(crate) fn run() -> Result<ExitCode> {
    let host = host()?;
    println!("xtask: cargo test -p {PACKAGE} under AddressSanitizer, for {host}");
    let mut cargo = workspace::cargo();
    cargo.args(["test", "-p", PACKAGE, "--lib", "--target", &host]).current_dir(workspace::root());
    // A sanitizer is a flag of the nightly compiler, which the stable one knows as well.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    // Tests ask for memory that nobody has, and expect to hear so.
    cargo.env("ASAN_OPTIONS", "allocator_may_return_null=1");
    let ended = cargo.status().context("cargo did not start")?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the compiler calls this machine.
fn host() -> Result<String> {
    let asked = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output();
    let answer = String::from_utf8(asked.context("rustc did not start")?.stdout)?;
    let host = answer.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}
