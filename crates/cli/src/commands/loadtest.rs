//! `tenk loadtest`: hands over to the harness, whose verdict is the exit status.

use std::process::ExitCode;

use crate::args::LoadtestCommand;

pub(super) async fn run(command: LoadtestCommand) -> anyhow::Result<ExitCode> {
    let LoadtestCommand::Run(args) = command;
    Ok(loadtest::run(*args).await?.into())
}
