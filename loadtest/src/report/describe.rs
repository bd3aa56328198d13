//! A scenario in words.

use super::Report;
use crate::prompts::PromptBasis;
use crate::scenario::{Answers, Arrivals, Length, Prompts, Scenario, Targets};

/// How requests came, and until when.
pub(super) fn load(scenario: &Scenario) -> String {
    let end = match (scenario.requests, scenario.duration_s) {
        (Some(requests), Some(duration_s)) => format!(", {requests} requests or {duration_s} s"),
        (Some(requests), None) => format!(", {requests} requests"),
        (None, Some(duration_s)) => format!(", {duration_s} s"),
        (None, None) => String::new(),
    };
    format!("{}{end}", arrivals(&scenario.arrivals))
}

fn arrivals(arrivals: &Arrivals) -> String {
    match arrivals {
        Arrivals::ClosedLoop { users, think_time_s } if *think_time_s > 0.0 => {
            format!("closed loop, {users} users who think for {think_time_s} s")
        }
        Arrivals::ClosedLoop { users: 1, .. } => "closed loop, 1 user".to_owned(),
        Arrivals::ClosedLoop { users, .. } => format!("closed loop, {users} users"),
        Arrivals::Constant { rate } => format!("{rate} requests/s in equal gaps"),
        Arrivals::Poisson { rate } => format!("Poisson arrivals, {rate} requests/s"),
        Arrivals::Gamma { rate, cv } => format!("bursts (gamma arrivals of cv {cv}), {rate} requests/s"),
        Arrivals::Ramp { from, to } => format!("a ramp from {from} to {to} requests/s"),
        Arrivals::Steps { steps } => {
            let rates: Vec<String> = steps.iter().map(|step| step.rate.to_string()).collect();
            format!("steps of {} requests/s", rates.join(", "))
        }
        Arrivals::Trace { path, speed } => format!("the trace {} at speed {speed}", path.display()),
    }
}

fn length(length: Length) -> String {
    match length {
        Length::Fixed(tokens) => tokens.to_string(),
        Length::Uniform { min, max } => format!("{min} to {max}"),
        Length::LogNormal { median, sigma, max } => {
            format!("log-normal (median {median}, σ {sigma}, ≤ {max})")
        }
    }
}

/// What was asked, and how its length is known.
pub(super) fn prompts(report: &Report) -> String {
    let known = match report.prompt_basis {
        PromptBasis::Counted { .. } => "as the target counts".to_owned(),
        PromptBasis::Tokenizer { .. } => match &report.scenario.tokenizer {
            Some(path) => format!("as the tokenizer {} counts", path.display()),
            None => "as a tokenizer that was given counts".to_owned(),
        },
        PromptBasis::Estimated => "estimated".to_owned(),
        PromptBasis::File { prompts } => return format!("{prompts} from a file"),
    };
    match &report.scenario.prompts {
        Prompts::Synthetic { tokens, shared_prefix_tokens, shared_prefixes, repeats } => {
            let mut text = format!("{} tokens, {known}", length(*tokens));
            if *shared_prefix_tokens > 0 {
                text += &format!("; {shared_prefix_tokens} of them shared, {shared_prefixes} prefixes");
            }
            if let Some(zipf) = repeats {
                text += &format!("; {} prompts that repeat, Zipf {}", zipf.prompts, zipf.exponent);
            }
            text
        }
        Prompts::Conversation { tokens, turns, system_tokens } => {
            format!(
                "conversations of {turns} turns of {} tokens, {known}; {system_tokens} of system",
                length(*tokens)
            )
        }
        Prompts::File { path } => path.display().to_string(),
    }
}

/// What answers were asked for.
pub(super) fn answers(answers: &Answers) -> String {
    let streamed = match answers.streamed {
        1.0 => "streamed".to_owned(),
        0.0 => "whole".to_owned(),
        share => format!("{:.0}% streamed", 100.0 * share),
    };
    let eos = if answers.ignore_eos { ", past the end of sequence" } else { "" };
    format!("at most {} tokens{eos}, {streamed}", length(answers.max_tokens))
}

/// What a good request meets.
pub(super) fn targets(targets: &Targets) -> String {
    let target = |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} ≤ {ms} ms"));
    let all = [
        target("TTFT", targets.ttft_ms),
        target("TPOT", targets.tpot_ms),
        target("end-to-end", targets.end_to_end_ms),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "none: every success is good".into() } else { all.join(", ") }
}
