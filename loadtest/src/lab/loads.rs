//! What labs' loads have in common: users who wait for their answers, prompts that are made up, greedy answers.

use crate::scenario::{Answers, Arrivals, Length, Prompts, Scenario};

/// So many users, each of whom sends the next request when the last one is answered.
pub(super) fn closed_loop(target: &str, question: &str, users: u32, requests: u64) -> Scenario {
    Scenario {
        question: question.to_owned(),
        target: target.to_owned(),
        arrivals: Arrivals::ClosedLoop { users, think_time_s: 0.0 },
        requests: Some(requests),
        ..Scenario::default()
    }
}

/// Prompts of equal length, which start alike for so many tokens.
pub(super) const fn prompts(tokens: u32, shared_prefix_tokens: u32) -> Prompts {
    Prompts::Synthetic {
        tokens: Length::Fixed(tokens),
        shared_prefix_tokens,
        shared_prefixes: 1,
        repeats: None,
    }
}

/// Answers of exactly that length.
pub(super) fn answers(max_tokens: Length) -> Answers {
    Answers { max_tokens, ignore_eos: true, temperature: Some(0.0), ..Answers::default() }
}
