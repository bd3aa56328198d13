//! `tenk loadtest`: one command a file.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::error::Error;
use crate::tokenizer::OpenTokenizer;

mod compare;
mod flags;
mod merge;
mod pages;
pub(crate) mod run;
mod scenarios;
mod search;
mod source;
mod sweep;

use run::{RUN_EXAMPLES, RunArgs};

/// What a load tester is asked to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Load a server by a scenario, or by flags, and report what it did
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// List the scenarios of this program, and the question that each answers
    #[command(after_help = "Example:\n  tenk loadtest scenarios")]
    Scenarios,
    /// Find the highest rate that meets the targets
    #[command(
        mut_arg("rate", |arg| arg.hide(true)),
        mut_arg("users", |arg| arg.hide(true)),
        mut_arg("think_time_s", |arg| arg.hide(true)),
        after_help = "\
Examples:
  tenk loadtest search --assert 'ttft_p99_ms < 500'
  tenk loadtest search chat --start 4 --resolution 0.1 --report-dir found
  tenk loadtest search chat --start 4 --resolution 0.1 --report-dir found --resume

The scenario and its flags are those of `tenk loadtest run`, but for the rate,
which the search sets; a run has 30 seconds unless an end is given.

The rate grows until most of its runs miss a target, then the gap is halved
until it is narrow enough, and the rate that is found is run again. A run in
which the tester itself was late passes nothing. Ctrl-C, SIGTERM and a
closed terminal end the search with what it found until then; --resume goes on
with it.
Exit status: 0 if a rate was found, 1 if none meets or the search is
unfinished, 2 for misuse, 130 after Ctrl-C, 143 after SIGTERM,
129 after SIGHUP."
    )]
    Search(Box<search::SearchArgs>),
    /// Run once for each value of a setting, for plots
    #[command(after_help = "\
Examples:
  tenk loadtest sweep --requests 64 --field users --values 1,2,4,8,16
  tenk loadtest sweep chat --rate 4 --field prompt-tokens --values 128,512
  tenk loadtest sweep --rate 4 --field client.keep_alive --values true,false \\
      --repeats 3 --report-dir swept

The scenario and its flags are those of `tenk loadtest run`. A field is a
flag's name without its dashes, such as rate, users or max-tokens, or a
setting of a scenario file by its path, such as client.connections_max.")]
    Sweep(Box<sweep::SweepArgs>),
    /// Say whether B is better than A, from repeats of each
    #[command(after_help = "\
Examples:
  tenk loadtest compare before after --report-dir compared
  tenk loadtest compare --a a1 a2 a3 --b b1 b2 b3 --figure ttft_p99_ms

Each is a report.json, the folder of one, or a folder of such folders. Both
sides are asked the same, and each three times or more: for i in 1 2 3; do
  tenk loadtest run chat --rate 4 --report-dir before/$i
done. The interval is Welch's, at 95%; with one run a side nothing can be
judged. Exit status: 0, or 1 if nothing could be compared, and with
--fail-if-worse if a figure is worse.")]
    Compare(compare::CompareArgs),
    /// Make one report of the parts of one run
    #[command(after_help = "\
Example:
  tenk loadtest merge host-1 host-2 host-3 --report-dir whole")]
    Merge(merge::MergeArgs),
}

impl Command {
    /// Does what was asked, and prints to standard output. `open_tokenizer` is for scenarios that name a tokenizer.
    ///
    /// # Errors
    /// When there is nothing to report, with what to do about it.
    pub async fn run(self, open_tokenizer: OpenTokenizer) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::run(*args, open_tokenizer).await,
            Self::Scenarios => Ok(print(&scenarios::list_scenarios()?).map(|()| ExitCode::SUCCESS)?),
            Self::Search(args) => search::run(*args, open_tokenizer).await,
            Self::Sweep(args) => sweep::run(*args, open_tokenizer).await,
            Self::Compare(args) => compare::run(&args),
            Self::Merge(args) => merge::run(&args),
        }
    }
}

/// Writes to standard output.
fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A document as indented JSON with a line break at its end.
fn json(document: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Error::Broken(error.to_string()))?;
    Ok(text + "\n")
}

/// Writes a document into a folder, which is made if absent. It is never seen half written.
fn save(dir: &Path, name: &str, document: &impl Serialize) -> Result<(), Error> {
    let failed = |path: &Path, source| Error::File { path: path.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    std::fs::write(&new, json(document)?).map_err(|source| failed(&new, source))?;
    std::fs::rename(&new, &path).map_err(|source| failed(&path, source))
}

#[cfg(test)]
mod tests;
