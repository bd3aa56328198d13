//! What keeps a run from starting or from being recorded. A request that fails is no error here but a record.

use std::path::PathBuf;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target's address cannot be used.
    #[error("the target `{given}` {problem}")]
    Target {
        /// As it was given.
        given: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting is out of range, or two do not fit together.
    #[error("{0}")]
    Config(String),
    /// The target did not answer what the run needs to know before it starts.
    #[error("no usable answer from {address}: {reason}; is the server up, and is this its address?")]
    Unreachable {
        /// The address that was asked.
        address: String,
        /// What came instead.
        reason: String,
    },
    /// The file of prompts has a line that is no prompt.
    #[error("{}: line {line}: {reason}", path.display())]
    PromptLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A line of a file of prompts or of a trace is not what it should be.
    #[error("{}: line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no report of this version.
    #[error("{}: {reason}", path.display())]
    NoReport {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Reports are not those of one run's processes.
    #[error("these reports cannot be merged: {0}")]
    Merge(String),
    /// Interrupted before anything was measured.
    #[error("interrupted before the run started")]
    Interrupted,
    /// A part of the tester ended before its time.
    #[error("a part of the load tester broke down: {0}")]
    Broken(String),
}
