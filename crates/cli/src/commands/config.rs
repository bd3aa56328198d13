//! `tenk config show|check`

use std::process::ExitCode;

use anyhow::Result;

use super::print;
use crate::args::ConfigCommand;
use crate::config::{Config, Role};

pub(super) fn run(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Show { config } => {
            let config = Config::load(config.config.as_deref())?;
            print(&config.show()?)?;
            config.validate(Role::Up)?;
        }
        ConfigCommand::Check { role, config } => {
            Config::load(config.config.as_deref())?.validate(*role)?;
            print("the configuration is sound\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
