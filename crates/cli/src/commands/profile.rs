//! `tenk profile list|show|fit`

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use engine::profile::{self, Profile, StepLog, StepShape};

use super::print;
use crate::args::ProfileCommand;
use crate::simulated::find;

pub(super) fn run(command: &ProfileCommand) -> Result<ExitCode> {
    match command {
        ProfileCommand::List => print(&list()?)?,
        ProfileCommand::Show { profile } => print(&find(profile)?.to_toml())?,
        ProfileCommand::Fit { step_log: Some(path), name: Some(name), .. } => {
            let profile = profile::fit_steps(name, &StepLog::parse(&read(path)?)?)?;
            if let Some(steps) = profile.steps {
                eprintln!(
                    "{} steps: their sum {:+.1}% of what was measured, one step {:.1}% off (root mean square)",
                    steps.count,
                    steps.total_residual * 100.0,
                    steps.rms_residual * 100.0
                );
            }
            print(&profile.to_toml())?;
        }
        ProfileCommand::Fit { figures, .. } => {
            let profile = find(figures.as_deref().unwrap_or_default())?;
            let fitted = profile::fit(&profile);
            for figure in &fitted.figures {
                eprintln!(
                    "{}/{} tokens: {:+.1}% of the published {} tokens/s{}",
                    figure.prompt_tokens,
                    figure.answer_tokens,
                    figure.residual * 100.0,
                    figure.output_tokens_per_s,
                    if figure.fitted { "" } else { ", not fitted to" }
                );
            }
            print(&fitted.to_toml())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What one sees of each: how long a token takes a lone request, and how far off the fit is.
fn list() -> Result<String> {
    let mut text = format!("{:<20} {:>14}  {:>9}  what it is\n", "profile", "ms a token", "residual");
    for name in profile::shipped_names() {
        let profile = profile::shipped(name)?;
        let alone: StepShape = [(1, 500)].into_iter().collect();
        let token_ms = profile.step_time_us(&alone) / 1e3;
        let Profile { device, model, .. } = &profile;
        text += &format!(
            "{name:<20} {token_ms:>14.1}  {:>8.1}%  {} on {}\n",
            worst(&profile) * 100.0,
            model.name,
            device.name
        );
    }
    Ok(text + "\nms a token: of one request alone, 500 tokens in; residual: the largest of those fitted to\n")
}

fn worst(profile: &Profile) -> f64 {
    let figures = profile.figures.iter().filter(|figure| figure.fitted).map(|figure| figure.residual.abs());
    figures.chain(profile.steps.map(|steps| steps.rms_residual)).fold(0.0, f64::max)
}
