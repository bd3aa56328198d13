//! `tenk rollout`

mod simulate;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::RolloutCommand;

pub(super) fn run(command: &RolloutCommand) -> Result<ExitCode> {
    match command {
        RolloutCommand::Simulate(args) => simulate::run(args),
    }
}
