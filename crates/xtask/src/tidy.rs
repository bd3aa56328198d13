//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy knows.

mod arrows;
mod rooms;
mod size;
mod source;
mod text;

use std::fmt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::{self, TextFile};

pub(crate) use size::SERVING_LINES_MAX;

/// Where the exceptions to the size rules are kept.
const RATCHET: &str = "crates/xtask/tidy-ratchet.toml";

/// One broken rule: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    path: String,
    line: usize,
    what: String,
}

impl Problem {
    fn new(path: impl Into<String>, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Runs all checks, one line a problem.
pub(crate) fn run() -> Result<ExitCode> {
    let root = workspace::root();
    let files = workspace::text_files(&root)?;
    let metadata = workspace::metadata(&root)?;
    let (sources, mut problems) = source::parse_all(&files);
    let ratchet = find(&files, RATCHET).unwrap_or_default();
    let ratchet = size::Ratchet::parse(ratchet).with_context(|| format!("{RATCHET} cannot be read"))?;
    let graph = arrows::Graph::new(&metadata)?;

    problems.extend(arrows::check(&graph));
    problems.extend(size::check(&sources, &ratchet));
    problems.extend(text::check(&files));
    problems.extend(rooms::check(&rooms::Rooms {
        crates: graph.ours(),
        top_level: rooms::top_level(&files),
        architecture: find(&files, "ARCHITECTURE.md"),
    }));
    problems.extend(rooms::check_unsafe(&sources));

    problems.sort();
    for problem in &problems {
        println!("{problem}");
    }
    let serving = size::serving_lines(&sources);
    let shares: Vec<String> = serving.iter().map(|(name, lines)| format!("{name} {lines}")).collect();
    let total: usize = serving.values().sum();
    println!("tidy: serving path {total} of {SERVING_LINES_MAX} lines of code: {}", shares.join(", "));
    match problems.len() {
        0 => Ok(ExitCode::SUCCESS),
        count => {
            println!("tidy: {count} problem{}", if count == 1 { "" } else { "s" });
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Lines of the serving path, from `protocol` to `gateway`, without tests.
pub(crate) fn serving_lines(files: &[TextFile]) -> usize {
    size::serving_lines(&source::parse_all(files).0).values().sum()
}

fn find<'a>(files: &'a [TextFile], path: &str) -> Option<&'a str> {
    files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
}

/// A made-up file for the checks' own tests.
#[cfg(test)]
fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.into(), text: text.into() }
}

/// Made-up sources for the checks' own tests.
#[cfg(test)]
fn sources(files: &[TextFile]) -> Vec<source::Source> {
    let (sources, problems) = source::parse_all(files);
    assert_eq!(problems, []);
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_that_editors_can_follow() {
        let problem = Problem::new("crates/a/src/lib.rs", 7, "a function of 80 lines: split it");
        assert_eq!(problem.to_string(), "crates/a/src/lib.rs:7: a function of 80 lines: split it");
    }

    #[test]
    fn this_very_workspace_can_be_read() {
        let files = workspace::text_files(&workspace::root()).expect("git lists files");
        assert!(find(&files, "crates/xtask/src/tidy.rs").is_some());
        assert!(find(&files, RATCHET).is_some());
        let graph = arrows::Graph::new(&workspace::metadata(&workspace::root()).expect("cargo metadata"));
        assert!(
            graph
                .expect("resolved")
                .ours()
                .iter()
                .any(|(name, path)| name == "xtask" && path == "crates/xtask")
        );
    }
}
