//! `tenk loadtest merge`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::merge::parts;

/// Make one report of the parts of one run.
#[derive(Clone, Debug, clap::Args)]
pub struct MergeArgs {
    /// The folders of the parts
    #[arg(value_name = "DIR", required = true, num_args = 2..)]
    dirs: Vec<PathBuf>,
    /// Where the report of the whole goes
    #[arg(long, value_name = "DIR")]
    report_dir: PathBuf,
}

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let parts = parts(&args.dirs, &args.report_dir)?;
    // Here the reports are read, merged by `Report::merge` and saved into `report_dir`.
    bail!("reports cannot be read back yet, so the {} parts cannot be merged", parts.len());
}
