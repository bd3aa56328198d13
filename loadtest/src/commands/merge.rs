//! `tenk loadtest merge`

use std::path::PathBuf;
use std::process::ExitCode;

use super::print;
use crate::error::Error;
use crate::merge::parts;
use crate::report::Report;

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
    let reports: Result<Vec<Report>, Error> = parts.iter().map(|part| Report::load(part)).collect();
    let whole = Report::merge(reports?)?;
    whole.save(&args.report_dir)?;
    let mut table = Vec::new();
    whole.write_table(&mut table)?;
    print(&String::from_utf8_lossy(&table))?;
    Ok(ExitCode::SUCCESS)
}
