//! From a scenario to what the present driver knows. It goes when the driver takes scenarios.

use crate::config::RunConfig;
use crate::error::Error;
use crate::scenario::{Arrivals, Length, Prompts, Scenario};

/// The settings that a scenario means, if the driver can do all of it.
pub(super) fn run_config(scenario: Scenario) -> Result<RunConfig, Error> {
    let refused = |what: &str| Error::Config(format!("{what} cannot be run yet"));
    let Arrivals::ClosedLoop { users, .. } = scenario.arrivals else { return Err(refused("an open loop")) };
    let fixed = |length: Length| match length {
        Length::Fixed(tokens) => Ok(tokens),
        _ => Err(refused("a length that varies")),
    };
    let (prompt_tokens, shared_prefix_tokens, prompt_file) = match scenario.prompts {
        Prompts::Synthetic { tokens, shared_prefix_tokens, shared_prefixes: 1, repeats: None } => {
            (fixed(tokens)?, shared_prefix_tokens, None)
        }
        Prompts::File { path } => (RunConfig::default().prompt_tokens, 0, Some(path)),
        _ => return Err(refused("prompts of this kind")),
    };
    Ok(RunConfig {
        target: scenario.target,
        model: scenario.model,
        users,
        requests: if scenario.duration_s.is_some() { None } else { scenario.requests },
        duration_s: scenario.duration_s,
        warmup: scenario.warmup,
        prompt_tokens,
        shared_prefix_tokens,
        prompt_file,
        max_tokens: fixed(scenario.answers.max_tokens)?,
        ignore_eos: scenario.answers.ignore_eos,
        temperature: scenario.answers.temperature,
        stream: scenario.answers.streamed > 0.5,
        return_token_ids: scenario.answers.return_token_ids,
        keep_alive: scenario.client.keep_alive,
        seed: scenario.seed,
        connect_timeout_s: scenario.client.connect_timeout_s,
        request_timeout_s: scenario.client.request_timeout_s,
    })
}
