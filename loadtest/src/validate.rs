//! Refuses scenarios that are out of range or do not fit together.

use crate::error::Error;
use crate::prompts::Synthetic;
use crate::scenario::{Arrivals, Length, Prompts, Scenario};

/// The most users; each may hold a connection.
const USERS_MAX: u32 = 20_000;
/// The longest run: a week.
const DURATION_S_MAX: f64 = 7.0 * 86_400.0;
/// The longest time-out: a day.
const TIMEOUT_S_MAX: f64 = 86_400.0;
/// The longest synthetic prompt.
const PROMPT_TOKENS_MAX: u32 = 1_000_000;

pub(crate) fn validate(scenario: &Scenario) -> Result<(), Error> {
    let (client, answers) = (&scenario.client, &scenario.answers);
    in_range("client.connections_max", client.connections_max, 1, u32::from(u16::MAX))?;
    if let Arrivals::ClosedLoop { users, .. } = scenario.arrivals {
        in_range("users", users, 1, USERS_MAX.min(client.connections_max))?;
    }
    in_range("warmup", scenario.warmup, 0, 1_000_000)?;
    if let Length::Fixed(max_tokens) = answers.max_tokens {
        in_range("answers.max_tokens", max_tokens, 1, u32::MAX)?;
    }
    in_range("answers.streamed", answers.streamed, 0.0, 1.0)?;
    in_range("client.connect_timeout_s", client.connect_timeout_s, 0.001, TIMEOUT_S_MAX)?;
    in_range("client.request_timeout_s", client.request_timeout_s, 0.001, TIMEOUT_S_MAX)?;
    if let Some(temperature) = answers.temperature {
        in_range("answers.temperature", temperature, 0.0, 2.0)?;
    }
    if let Prompts::Synthetic { tokens: Length::Fixed(tokens), shared_prefix_tokens, .. } = scenario.prompts {
        in_range("prompts.tokens", tokens, Synthetic::UNIQUE_WORDS as u32, PROMPT_TOKENS_MAX)?;
        if u64::from(shared_prefix_tokens) + Synthetic::UNIQUE_WORDS > u64::from(tokens) {
            return Err(Error::Config(format!(
                "shared_prefix_tokens is {shared_prefix_tokens} of {tokens} prompt tokens, but each prompt needs {} of \
                 its own; lower it or raise prompts.tokens",
                Synthetic::UNIQUE_WORDS
            )));
        }
    }
    if let Some(requests) = scenario.requests {
        in_range("requests", requests, 1, 1_000_000_000)?;
    }
    if let Some(duration_s) = scenario.duration_s {
        in_range("duration_s", duration_s, 0.001, DURATION_S_MAX)?;
    }
    let ends_by_itself = matches!(scenario.arrivals, Arrivals::Steps { .. } | Arrivals::Trace { .. });
    if scenario.requests.is_none() && scenario.duration_s.is_none() && !ends_by_itself {
        return Err(Error::Config("a run needs requests or duration_s to end".into()));
    }
    Ok(())
}

/// Refuses values outside `min..=max`, and NaN.
fn in_range<T: PartialOrd + std::fmt::Display>(name: &str, value: T, min: T, max: T) -> Result<(), Error> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(Error::Config(format!("{name} must be between {min} and {max}, but is {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Client;

    fn scenario() -> Scenario {
        Scenario { requests: Some(1), ..Scenario::default() }
    }

    #[test]
    fn the_defaults_are_valid_once_the_run_has_an_end() {
        validate(&scenario()).expect("valid");
        validate(&Scenario { duration_s: Some(1.0), ..scenario() }).expect("both may be set");
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let refused = |scenario: Scenario| validate(&scenario).expect_err("refused").to_string();
        let users =
            |users| Scenario { arrivals: Arrivals::ClosedLoop { users, think_time_s: 0.0 }, ..scenario() };
        assert!(refused(users(0)).contains("users must be between 1 and 10000, but is 0"));
        let prompts = |tokens, shared_prefix_tokens| Prompts::Synthetic {
            tokens: Length::Fixed(tokens),
            shared_prefix_tokens,
            shared_prefixes: 1,
            repeats: None,
        };
        assert!(refused(Scenario { prompts: prompts(7, 0), ..scenario() }).contains("prompts.tokens"));
        assert!(
            refused(Scenario { prompts: prompts(128, 121), ..scenario() }).contains("needs 8 of its own")
        );
        let client = Client { request_timeout_s: f64::NAN, ..Client::default() };
        assert!(refused(Scenario { client, ..scenario() }).contains("client.request_timeout_s"));
        assert!(refused(Scenario { requests: None, ..scenario() }).contains("requests or duration_s"));
    }
}
