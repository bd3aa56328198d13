//! `tenk rollout`

mod client;
mod simulate;
mod start;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controller::{Record, Status};
use rollout::{Outcome, Phase};

use self::client::Client;
use super::print;
use crate::args::RolloutCommand;

/// From one look to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a controller that is watched may give no answer: one that takes over needs some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(command: RolloutCommand) -> Result<ExitCode> {
    match command {
        RolloutCommand::Start(args) => {
            let client = Client::new(&args.reach)?;
            let watch = args.watch;
            let spec = tokio::task::spawn_blocking(move || start::spec(*args));
            let spec = spec.await.context("reading the rollout broke off")??;
            let model = spec.model.clone();
            let status: Status = client.post("/v1/rollouts", &serde_json::to_value(&spec)?).await?;
            if watch {
                return follow(&client, status).await;
            }
            print(&table::status(&status))?;
            eprintln!("tenk rollout status {model} --watch    shows how it goes");
        }
        RolloutCommand::Status { model: None, json, reach, .. } => {
            let all: Vec<Status> = Client::new(&reach)?.get("/v1/rollouts").await?;
            let text = match (json, all.is_empty()) {
                (true, _) => serde_json::to_string_pretty(&all)? + "\n",
                (_, true) => "no gateway has reported a model yet\n".to_owned(),
                _ => all.iter().map(table::status).collect::<Vec<_>>().join("\n"),
            };
            print(&text)?;
        }
        RolloutCommand::Status { model: Some(model), watch, json, reach } => {
            let client = Client::new(&reach)?;
            let status: Status = client.get(&client::path(&model, "")).await?;
            if watch {
                return follow(&client, status).await;
            }
            print(&if json {
                serde_json::to_string_pretty(&status)? + "\n"
            } else {
                table::status(&status)
            })?;
        }
        RolloutCommand::Promote { model, full, reach } => {
            command_to(&reach, &model, if full { "promote-fully" } else { "promote" }).await?;
        }
        RolloutCommand::Abort { model, reach } => command_to(&reach, &model, "abort").await?,
        RolloutCommand::Pause { model, resume, reach } => {
            command_to(&reach, &model, if resume { "resume" } else { "pause" }).await?;
        }
        RolloutCommand::Simulate(args) => return simulate::run(&args),
        RolloutCommand::History { model, json, reach } => {
            let records: Vec<Record> = Client::new(&reach)?.get(&client::path(&model, "history")).await?;
            print(&if json {
                serde_json::to_string_pretty(&records)? + "\n"
            } else {
                table::history(&records)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn command_to(reach: &crate::args::ReachArgs, model: &str, command: &str) -> Result<()> {
    let path = client::path(model, command);
    let status: Status = Client::new(reach)?.post(&path, &serde_json::Value::Null).await?;
    print(&table::status(&status))
}

/// Shows how a rollout goes until it is over: on a terminal in place, else a line for each news.
async fn follow(client: &Client, mut status: Status) -> Result<ExitCode> {
    let in_place = std::io::stdout().is_terminal();
    let path = client::path(&status.model, "");
    let (mut shown, mut told) = (0, String::new());
    loop {
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
        let asked = Instant::now();
        let mut failed = false;
        status = loop {
            match client.get(&path).await {
                Ok(status) => break status,
                Err(error) if asked.elapsed() > PATIENCE => return Err(error),
                Err(error) if !failed => {
                    eprintln!("no answer, asking again for {} s: {error:#}", PATIENCE.as_secs());
                    // What was shown stays above that line.
                    (failed, shown) = (true, 0);
                }
                Err(_) => {}
            }
            tokio::time::sleep(INTERVAL).await;
        };
    }
}
