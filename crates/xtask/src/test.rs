//! `cargo xtask test`: everything that the tests need, then the tests.
//!
//! The end-to-end tests use real servers and OpenAI's own client, so a machine that lacks them gets them first: servers
//! as packages of its distribution, after asking; the client in a throw-away environment under `target/`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::needs::{packages, python};
use crate::workspace;

/// What `tenk up` serves by default.
const MODEL: &str = "smollm2-135m-instruct";

/// `cargo xtask test`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install missing packages without asking; so does CI=true.
    #[arg(long, short)]
    yes: bool,
    /// Test the registry against a real MLflow, too, which is installed in ~/.cache/tenk (850 MB); so does CI=true.
    #[arg(long, conflicts_with = "fast")]
    mlflow: bool,
    /// Leave out what needs servers or the Python client; installs nothing, but fetches the model.
    #[arg(long)]
    fast: bool,
    /// Given to `cargo test` as they are, such as `-p gateway -- --nocapture`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_args: Vec<String>,
}

/// Installs, builds, tests. The exit code is that of `cargo test`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?.target_directory.into_std_path_buf();
    let mut environment: Vec<(&str, PathBuf)> = Vec::new();
    if !args.fast {
        let unattended = args.yes || packages::is_unattended();
        packages::install_missing(packages::OF_TESTS, unattended)?;
        environment.push(("TENK_TEST_PYTHON", python::environment(&target, python::OF_TESTS)?));
        if args.mlflow || packages::is_unattended() {
            environment.push(("TENK_TEST_MLFLOW", python::environment(&cache()?, python::OF_REGISTRY)?));
        }
        // Tells a test that a missing server is a failure and not a reason to pass it over.
        environment.push(("TENK_TEST_SERVERS", "1".into()));
    }
    let cargo_args = test_args(args);
    run_cargo(&root, &build_args(&cargo_args), &[])?;
    let tenk = target.join("debug").join("tenk");
    environment.push(("TENK_TEST_MODEL", fetch_model(&tenk)?));
    environment.push(("TENK_BIN", tenk));

    run_cargo(&root, &cargo_args, &environment)?;
    Ok(ExitCode::SUCCESS)
}

/// Where what is too large to be made anew with each `target` is kept, beside the models.
fn cache() -> Result<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    Ok(caches.context("neither XDG_CACHE_HOME nor HOME is set")?.join("tenk"))
}

fn run_cargo(root: &Path, cargo_args: &[String], environment: &[(&str, PathBuf)]) -> Result<()> {
    println!("xtask: cargo {}", cargo_args.join(" "));
    let environment = environment.iter().map(|(name, value)| (name, value));
    let mut command = workspace::cargo();
    let ended = command.args(cargo_args).envs(environment).current_dir(root).status();
    ensure!(ended.context("cargo did not start")?.success(), "`cargo {}` failed", cargo_args.join(" "));
    Ok(())
}

/// Builds the tests and, with them, the binary. Building the binary alone would select other features of shared
/// dependencies, and compile them twice.
fn build_args(test_args: &[String]) -> Vec<String> {
    if !test_args.contains(&"--workspace".to_owned()) {
        return ["build", "-p", "cli"].map(str::to_owned).to_vec();
    }
    let of_cargo = test_args.iter().take_while(|argument| *argument != "--").cloned();
    of_cargo
        .filter(|argument| argument.starts_with('-') || argument == "test")
        .chain(["--no-run".into()])
        .collect()
}

/// The real model, which the tests of numerics and of the whole path answer with. Shows its progress.
fn fetch_model(tenk: &Path) -> Result<PathBuf> {
    println!("xtask: tenk model pull {MODEL}");
    let pulled = Command::new(tenk).args(["model", "pull", MODEL]).stderr(Stdio::inherit()).output()?;
    ensure!(pulled.status.success(), "the model that the tests need could not be fetched");
    Ok(PathBuf::from(String::from_utf8(pulled.stdout)?.trim_end()))
}

fn test_args(args: &Args) -> Vec<String> {
    let picks_packages = args
        .cargo_args
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"));
    let mut all = vec!["test".to_owned()];
    if !picks_packages {
        all.push("--workspace".to_owned());
        if args.fast {
            all.push("--exclude=tests".to_owned());
        }
    }
    all.extend_from_slice(&args.cargo_args);
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn cargo_args(line: &str) -> String {
        let words = std::iter::once("xtask").chain(line.split_whitespace());
        test_args(&Line::try_parse_from(words).expect("a good line").args).join(" ")
    }

    #[test]
    fn cargo_gets_the_whole_workspace_unless_packages_are_picked() {
        assert_eq!(cargo_args(""), "test --workspace");
        assert_eq!(cargo_args("--yes"), "test --workspace");
        assert_eq!(cargo_args("--fast"), "test --workspace --exclude=tests");
        assert_eq!(cargo_args("--fast -p gateway"), "test -p gateway");
        assert_eq!(cargo_args("--package=gateway retry"), "test --package=gateway retry");
    }

    #[test]
    fn the_binary_is_built_with_the_tests_unless_packages_are_picked() {
        let build = |line: &str| {
            build_args(&cargo_args(line).split(' ').map(str::to_owned).collect::<Vec<_>>()).join(" ")
        };
        assert_eq!(build(""), "test --workspace --no-run");
        assert_eq!(build("--no-fail-fast kill -- --nocapture"), "test --workspace --no-fail-fast --no-run");
        assert_eq!(build("-p gateway retry"), "build -p cli");
    }

    #[test]
    fn further_arguments_pass_through_in_their_order() {
        assert_eq!(
            cargo_args("--no-fail-fast -- --nocapture -p"),
            "test --workspace --no-fail-fast -- --nocapture -p"
        );
    }
}
