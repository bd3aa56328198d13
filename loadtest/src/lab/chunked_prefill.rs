//! Time to first token, wait between tokens and throughput over the token budget of a step.

use super::Findings;
use super::bench::Bench;
use super::loads::{answers, closed_loop, prompts};
use super::table::{Bars, Table, brief};
use crate::error::Error;
use crate::scenario::{Length, Scenario};

pub(super) const TEXT: &str = include_str!("chunked_prefill.md");

/// The budgets that are compared, in tokens a step. The largest takes two whole prompts.
const BUDGETS: [u32; 5] = [64, 128, 256, 512, 1024];
const USERS: u32 = 8;
/// Each user sends two: prompts meet answers that are under way.
const REQUESTS: u64 = 2 * USERS as u64;
const PROMPT_TOKENS: u32 = 500;
const ANSWER_TOKENS: u32 = 48;

/// One budget.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    budget: u32,
    ttft_p50_ms: f64,
    inter_token_p99_ms: f64,
    tokens_per_s: f64,
}

fn scenario(target: &str, budget: u32) -> Scenario {
    let question = format!("{USERS} users, steps of at most {budget} tokens");
    Scenario {
        // Equal prompts for all budgets; each has a worker of its own, which has seen none of them.
        seed: 1,
        prompts: prompts(PROMPT_TOKENS, 0),
        // Lengths that differ, so that users fall out of step with each other.
        answers: answers(Length::Uniform { min: ANSWER_TOKENS / 2, max: ANSWER_TOKENS * 3 / 2 }),
        ..closed_loop(target, &question, USERS, REQUESTS)
    }
}

pub(super) async fn measure(bench: &mut Bench) -> Result<Findings, Error> {
    let mut points = Vec::new();
    for budget in BUDGETS {
        let worker = bench.worker(&[("TENK_SCHEDULER__MAX_NUM_BATCHED_TOKENS", budget.to_string())]).await?;
        let run = bench.load(scenario(&worker.address, budget), &format!("budget-{budget:04}")).await?;
        worker.end().await;
        let figure = |name: &str| run.figure(name).unwrap_or(f64::NAN);
        points.push(Point {
            budget,
            ttft_p50_ms: figure("ttft_p50_ms"),
            inter_token_p99_ms: figure("inter_token_p99_ms"),
            tokens_per_s: figure("output_tokens_per_s"),
        });
    }
    Ok(findings(&points))
}

fn findings(points: &[Point]) -> Findings {
    let title =
        format!("{USERS} users, prompts of {PROMPT_TOKENS} tokens, answers of {ANSWER_TOKENS} on average");
    let columns = ["tokens a step", "first token ms (median)", "inter-token ms (p99)", "tokens/s"];
    let mut table = Table::new(&title, &columns);
    for point in points {
        table.row([
            point.budget.to_string(),
            brief(point.ttft_p50_ms),
            brief(point.inter_token_p99_ms),
            brief(point.tokens_per_s),
        ]);
    }
    let ratio = |value: fn(&Point) -> f64| match points {
        [first, .., last] => value(last) / value(first),
        _ => f64::NAN,
    };
    let measured = ratio(|point| point.inter_token_p99_ms);
    let mut sentences = Vec::new();
    if let [first, .., last] = points {
        sentences.push(format!(
            "From {} to {} tokens a step, the longest waits between tokens become {} times as long, the first token \
             takes {} of the time, and tokens/s are {} times as many.",
            first.budget,
            last.budget,
            brief(measured),
            percent(ratio(|point| point.ttft_p50_ms)),
            brief(ratio(|point| point.tokens_per_s)),
        ));
    }
    sentences.extend(bend(points));
    let bars = |title: &str, unit: &str, value: fn(&Point) -> f64| {
        Bars::new(title, unit, points.iter().map(|point| (point.budget.to_string(), value(point))))
    };
    Findings {
        measured,
        sentences,
        bars: vec![
            bars("Time to first token over tokens a step", "ms", |point| point.ttft_p50_ms),
            bars("99 of 100 waits between tokens are shorter than", "ms", |point| point.inter_token_p99_ms),
            bars("Throughput", "tokens/s", |point| point.tokens_per_s),
        ],
        tables: vec![table],
    }
}

/// The least budget whose throughput is as good as any.
fn bend(points: &[Point]) -> Option<String> {
    let best = points.iter().map(|point| point.tokens_per_s).fold(0.0, f64::max);
    let enough = points.iter().find(|point| point.tokens_per_s >= 0.95 * best)?;
    Some(format!(
        "{} tokens a step give 95% of the best throughput; more of them only make waits longer.",
        enough.budget
    ))
}

fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(budget: u32, ttft_p50_ms: f64, inter_token_p99_ms: f64, tokens_per_s: f64) -> Point {
        Point { budget, ttft_p50_ms, inter_token_p99_ms, tokens_per_s }
    }

    #[test]
    fn the_largest_budget_is_laid_beside_the_smallest_and_the_bend_is_named() {
        let points = [
            point(64, 4_000.0, 80.0, 60.0),
            point(256, 3_000.0, 200.0, 96.0),
            point(1024, 2_000.0, 800.0, 100.0),
        ];
        let findings = findings(&points);
        assert!((findings.measured - 10.0).abs() < 1e-9);
        assert_eq!(
            findings.sentences,
            [
                "From 64 to 1024 tokens a step, the longest waits between tokens become 10 times as long, the first \
                 token takes 50% of the time, and tokens/s are 1.67 times as many.",
                "256 tokens a step give 95% of the best throughput; more of them only make waits longer."
            ]
        );
        assert_eq!(findings.tables[0].rows[1], ["256", "3000", "200", "96"]);
    }

    #[test]
    fn the_largest_budget_takes_two_prompts_at_once_and_the_smallest_cuts_each() {
        assert!(BUDGETS[BUDGETS.len() - 1] >= 2 * PROMPT_TOKENS);
        assert!(BUDGETS[0] < PROMPT_TOKENS / 4);
        assert!(BUDGETS[0] >= 32, "a step has room for a token of each sequence");
    }
}
