//! The engine's steps in a file, a line each, for fitting a profile.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use engine::StepReport;
use engine::profile::{StepLogHeader, StepSample};
use serde::Serialize;

/// A log ends when it has so many bytes: some 500,000 steps of one sequence, or 20,000 of fifty.
const BYTES_MAX: usize = 16 << 20;

/// A log that is being written. Lines are written whole and unbuffered, so that a killed process leaves them.
#[derive(Debug)]
pub(crate) struct StepLog(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    file: File,
    bytes_left: usize,
}

impl StepLog {
    /// Starts a log, in place of what the file held.
    pub(crate) fn create(path: &Path, header: &StepLogHeader) -> io::Result<Self> {
        let mut open = Open { file: File::create(path)?, bytes_left: BYTES_MAX };
        open.write(header)?;
        Ok(Self(Mutex::new(Some(open))))
    }

    /// Adds a step, unless the log is full or could not be written.
    pub(crate) fn add(&self, report: &StepReport<'_>) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = log.as_mut() else { return };
        let runs = &report.plan.sequences;
        let sample = StepSample {
            seconds: report.duration.as_secs_f64(),
            runs: runs.iter().map(|run| (run.num_tokens(), run.start)).collect(),
            num_draft_tokens: runs.iter().map(|run| run.num_drafts).sum(),
        };
        match open.write(&sample) {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!("the step log is full");
                *log = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the step log cannot be written and ends here");
                *log = None;
            }
        }
    }
}

impl Open {
    /// False when there is no room for the line.
    fn write(&mut self, value: &impl Serialize) -> io::Result<bool> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let Some(left) = self.bytes_left.checked_sub(line.len()) else { return Ok(false) };
        self.bytes_left = left;
        self.file.write_all(&line)?;
        Ok(true)
    }
}
