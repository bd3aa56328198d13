//! `tenk rollout`

mod client;
mod simulate;
mod start;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use controller::{Record, Status};
use rollout::{Outcome, Phase};

use self::client::Client;
use super::print;
use crate::args::RolloutCommand;

/// From one look to the next.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(command: RolloutCommand) -> Result<ExitCode> {
    match command {
        RolloutCommand::Start(args) => {
            let client = Client::new(&args.reach)?;
            let watch = args.watch;
            let spec = start::spec(*args)?;
            let model = spec.model.clone();
            let status: Status = client.post("/v1/rollouts", &serde_json::to_value(&spec)?)?;
            if watch {
                return follow(&client, &model).await;
            }
            print(&table::status(&status))?;
            eprintln!("tenk rollout status {model} --watch    shows how it goes");
        }
        RolloutCommand::Status { model: None, json, reach, .. } => {
            let all: Vec<Status> = Client::new(&reach)?.get("/v1/rollouts")?;
            let text = match (json, all.is_empty()) {
                (true, _) => serde_json::to_string_pretty(&all)? + "\n",
                (_, true) => "no gateway has reported a model yet\n".to_owned(),
                _ => all.iter().map(table::status).collect::<Vec<_>>().join("\n"),
            };
            print(&text)?;
        }
        RolloutCommand::Status { model: Some(model), watch, json, reach } => {
            let client = Client::new(&reach)?;
            if watch {
                return follow(&client, &model).await;
            }
            let status: Status = client.get(&client::path(&model, ""))?;
            print(&if json {
                serde_json::to_string_pretty(&status)? + "\n"
            } else {
                table::status(&status)
            })?;
        }
        RolloutCommand::Promote { model, full, reach } => {
            command_to(&reach, &model, if full { "promote-fully" } else { "promote" })?;
        }
        RolloutCommand::Abort { model, reach } => command_to(&reach, &model, "abort")?,
        RolloutCommand::Pause { model, resume, reach } => {
            command_to(&reach, &model, if resume { "resume" } else { "pause" })?;
        }
        RolloutCommand::Simulate(args) => return simulate::run(&args),
        RolloutCommand::History { model, json, reach } => {
            let records: Vec<Record> = Client::new(&reach)?.get(&client::path(&model, "history"))?;
            print(&if json {
                serde_json::to_string_pretty(&records)? + "\n"
            } else {
                table::history(&records)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn command_to(reach: &crate::args::ReachArgs, model: &str, command: &str) -> Result<()> {
    let status: Status = Client::new(reach)?.post(&client::path(model, command), &serde_json::Value::Null)?;
    print(&table::status(&status))
}

/// Shows how a rollout goes until it is over: on a terminal in place, else a line for each news.
async fn follow(client: &Client, model: &str) -> Result<ExitCode> {
    let in_place = std::io::stdout().is_terminal();
    let (mut shown, mut told) = (0, String::new());
    loop {
        let status: Status = client.get(&client::path(model, ""))?;
        if in_place {
            let text = table::status(&status);
            // Up over what was shown, and clear from there.
            let up = if shown > 0 { format!("\x1b[{shown}A\x1b[J") } else { String::new() };
            shown = text.lines().count();
            print(&format!("{up}{text}"))?;
        } else {
            let line = table::line(&status);
            if line != told {
                print(&format!("{line}\n"))?;
                told = line;
            }
        }
        match status.rollout.map(|rollout| rollout.phase) {
            Some(Phase::Done { outcome: Outcome::Reverted }) => return Ok(ExitCode::FAILURE),
            Some(Phase::Done { .. }) | None => return Ok(ExitCode::SUCCESS),
            Some(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
