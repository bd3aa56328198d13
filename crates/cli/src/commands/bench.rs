//! `tenk bench engine`

use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bench::{Options, Part, Report};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{print, set_threads};
use crate::args::{BenchArgs, BenchCommand, ComputeArgs};
use crate::config::Config;
use crate::models::{cache_root, pull};
use crate::voice::Voice;

/// What the profile's file ends in.
const PROFILE_SUFFIX: &str = "toml";
/// What the log's file ends in that the profile was fitted to.
const LOG_SUFFIX: &str = "jsonl";

pub(super) async fn run(command: BenchCommand) -> Result<ExitCode> {
    let args = match command {
        BenchCommand::Engine(args) => args,
        BenchCommand::Spin => {
            bench::spin();
            return Ok(ExitCode::SUCCESS);
        }
    };
    set_threads(&ComputeArgs { threads: args.threads, device: None })?;
    let fit = args.fit.as_deref().map(profile_file).transpose()?;
    let files = fit.as_ref().map(|(file, _)| file).into_iter().chain(args.json.iter().flatten());
    files.map(PathBuf::as_path).try_for_each(try_write)?;
    let options = options(&args, fit.as_ref().map(|(_, name)| name.clone()))?;
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let measuring = bench::run(options, progress(), stop.clone());
    tokio::pin!(measuring);
    let status = tokio::select! {
        report = &mut measuring => return finish(&args, fit, report),
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    // What it started ends with it.
    stop.cancel();
    let ended = measuring.await;
    clear_line();
    if let Err(error) = ended {
        eprintln!("tenk: {error}");
    }
    Ok(ExitCode::from(status))
}

fn options(args: &BenchArgs, fit: Option<String>) -> Result<Options> {
    let config = Config::load(args.config.config.as_deref())?;
    let model = pull(&config, args.model.as_deref().unwrap_or(&config.model.name), Voice::Plain)?;
    let with_peer = args.peer.is_some();
    let parts = match args.only.as_slice() {
        [] if with_peer => Part::ALL.to_vec(),
        [] => vec![Part::Roofline, Part::Prefix],
        only => only.to_vec(),
    };
    Ok(Options {
        program: std::env::current_exe().context("where this program lies")?,
        cache_dir: cache_root(&config)?.join("peers").join("llama.cpp"),
        model: model.path,
        model_name: model.name,
        threads: rayon::current_num_threads(),
        parts,
        with_peer,
        repeats: args.repeats,
        pairs: args.pairs,
        streams: args.streams.clone(),
        prompt_tokens: args.prompt_tokens,
        answer_tokens: args.answer_tokens,
        fit,
    })
}

/// Where the profile goes, and what it is called.
fn profile_file(given: &Path) -> Result<(PathBuf, String)> {
    let file = match given.extension() {
        Some(extension) if extension == PROFILE_SUFFIX => given.to_owned(),
        _ => PathBuf::from(format!("{}.{PROFILE_SUFFIX}", given.display())),
    };
    let Some(name) = file.file_stem().and_then(|name| name.to_str()).map(str::to_owned) else {
        bail!("`{}` names no profile; give a name, or a file that ends in .toml", given.display());
    };
    Ok((file, name))
}

/// A line on the terminal that is written over and over.
fn progress() -> bench::Progress {
    let terminal = std::io::stderr().is_terminal();
    Arc::new(move |what: &str| {
        if terminal {
            eprint!("\r\x1b[K{what} …");
        }
    })
}

/// What is said next is no part of the line of progress.
fn clear_line() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

fn finish(
    args: &BenchArgs,
    fit: Option<(PathBuf, String)>,
    report: Result<Report, bench::Error>,
) -> Result<ExitCode> {
    clear_line();
    let report = &report?;
    if let (Some((file, _)), Some(profile)) = (fit, &report.profile) {
        write(&file, &profile.to_toml())?;
        write(&file.with_extension(LOG_SUFFIX), report.step_log.as_deref().unwrap_or_default())?;
    }
    let json = || Ok::<_, anyhow::Error>(format!("{}\n", serde_json::to_string_pretty(report)?));
    match &args.json {
        Some(None) => print(&json()?)?,
        Some(Some(file)) => {
            write(file, &json()?)?;
            print(&report.to_string())?;
        }
        None => print(&report.to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a file can be written, before minutes are spent on what goes into it.
fn try_write(file: &Path) -> Result<()> {
    let is_new = !file.exists();
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.with_context(|| format!("cannot write {}", file.display()))?;
    if is_new {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_told_before_and_one_that_can_is_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("figures.json");
        try_write(&file).expect("can be written");
        assert!(!file.exists());
        std::fs::write(&file, "old").expect("writes");
        try_write(&file).expect("can be written");
        assert_eq!(std::fs::read_to_string(&file).expect("reads"), "old");
        assert!(try_write(folder.path()).is_err(), "a folder");
        assert!(try_write(&folder.path().join("none/figures.json")).is_err());
    }

    #[test]
    fn a_profile_is_named_after_its_file_and_its_file_after_it() {
        let file = |given: &str| profile_file(Path::new(given)).expect("a name");
        assert_eq!(file("mine"), ("mine.toml".into(), "mine".into()));
        assert_eq!(file("some/mine.toml"), ("some/mine.toml".into(), "mine".into()));
        assert_eq!(file("cpu-v1.5"), ("cpu-v1.5.toml".into(), "cpu-v1.5".into()));
    }
}
