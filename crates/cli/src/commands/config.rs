//! `tenk config show|check`

use std::process::ExitCode;

use anyhow::Result;

use crate::args::ConfigCommand;
use crate::config::{Config, Role};

pub(super) fn run(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Show { common } => {
            let config = Config::load(common)?;
            print!("{}", config.show()?);
            config.validate(Role::Up)?;
        }
        ConfigCommand::Check { common } => {
            Config::load(common)?.validate(Role::Up)?;
            println!("the configuration is sound");
        }
    }
    Ok(ExitCode::SUCCESS)
}
