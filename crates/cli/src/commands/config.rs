//! `tenk config`: what is in force.

use std::process::ExitCode;

use super::settings;
use crate::args::ConfigCommand;

pub(super) fn run(command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Show { common } => print!("{}", settings(&common, Vec::new())?.show()?),
        ConfigCommand::Check { common } => {
            settings(&common, Vec::new())?.validate()?;
            println!("the settings are valid");
        }
    }
    Ok(ExitCode::SUCCESS)
}
