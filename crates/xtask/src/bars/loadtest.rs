//! The load tester: whether it says what is so, what it takes, and how much it can.

pub(super) mod accuracy;
mod aiperf;
pub(super) mod core;
pub(super) mod memory;
pub(super) mod stalls;

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Bench;
use super::load::report_of;
use super::server::{Server, free_address, work_folder};

/// Starts the target whose times are known, with these flags.
fn scripted_target(bench: &Bench, flags: &[(&str, u32)]) -> Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(bench.example("scripted_target")?);
    command.args(["--listen", &address.to_string()]);
    for (flag, number) in flags {
        command.args([*flag, &number.to_string()]);
    }
    Server::start(command, address, &work_folder(&bench.target)?.join("scripted_target.log"))
}

/// A report whose tester was not late itself.
fn valid_report_of(command: Command) -> Result<Value> {
    let report = report_of(command)?;
    ensure!(report["valid"] == true, "the tester itself was late: {}", report["invalid_reasons"]);
    Ok(report)
}
