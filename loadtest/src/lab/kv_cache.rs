//! Time to first token with a cold and a warm prefix; what happens when blocks run out.

use super::Findings;
use super::bench::Bench;
use super::loads::{answers, closed_loop, prompts};
use super::table::{Bars, Table, brief};
use crate::error::Error;
use crate::scenario::{Length, Scenario};

pub(super) const TEXT: &str = include_str!("kv_cache.md");

const PREFIX_TOKENS: u32 = 1_000;
/// What follows the prefix.
const OWN_TOKENS: u32 = 32;
/// Prompts of each kind.
const PROMPTS: u64 = 3;
/// Requests at a time that want more blocks than the small cache has.
const USERS: u32 = 8;
const SHORT_PROMPT_TOKENS: u32 = 48;
const LONG_ANSWER_TOKENS: u32 = 96;
/// What half of those requests need at their end.
const SMALL_CACHE_TOKENS: u32 = 704;

/// One prompt at a time. The warm-up request of the warm run brings the prefix in; the cold run has none to share.
fn prefix(target: &str, warm: bool) -> Scenario {
    let (question, shared) = if warm {
        ("long prompts that start alike", PREFIX_TOKENS)
    } else {
        ("long prompts that share nothing", 0)
    };
    Scenario {
        seed: 1 + u64::from(warm),
        warmup: u64::from(warm),
        prompts: prompts(PREFIX_TOKENS + OWN_TOKENS, shared),
        answers: answers(Length::Fixed(4)),
        ..closed_loop(target, question, 1, PROMPTS)
    }
}

fn crowd(target: &str, question: &str) -> Scenario {
    Scenario {
        seed: 3,
        prompts: prompts(SHORT_PROMPT_TOKENS, 0),
        answers: answers(Length::Fixed(LONG_ANSWER_TOKENS)),
        ..closed_loop(target, question, USERS, u64::from(USERS))
    }
}

/// One kind of prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prefix {
    ttft_ms: f64,
    /// Of the prompt's tokens, those that were found.
    hit_share: f64,
}

/// One size of the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Crowd {
    cache_tokens: f64,
    usage_max: f64,
    preemptions: f64,
    tokens_per_s: f64,
    slowest_ms: f64,
}

pub(super) async fn measure(bench: &mut Bench) -> Result<Findings, Error> {
    let worker = bench.worker(&[]).await?;
    let mut prefixes = Vec::new();
    for (warm, label) in [(false, "prefix-cold"), (true, "prefix-warm")] {
        let counters = ["vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"];
        let mut before = [0.0; 2];
        let mut after = [0.0; 2];
        for (at, name) in counters.iter().enumerate() {
            before[at] = bench.metric(&worker, name, "").await?;
        }
        let run = bench.load(prefix(&worker.address, warm), label).await?;
        for (at, name) in counters.iter().enumerate() {
            after[at] = bench.metric(&worker, name, "").await?;
        }
        let ttft_ms = run.figure("ttft_p50_ms").unwrap_or(f64::NAN);
        // The warm-up request, which finds nothing, was looked up as well.
        let looked_up = (after[0] - before[0]) * PROMPTS as f64 / (PROMPTS + u64::from(warm)) as f64;
        prefixes.push(Prefix { ttft_ms, hit_share: (after[1] - before[1]) / looked_up.max(1.0) });
    }
    let mut crowds = Vec::new();
    let question = format!("{USERS} requests at a time, room for all");
    crowds.push(measure_crowd(bench, &worker, &question, "room").await?);
    worker.end().await;

    let small = [("TENK_ENGINE__KV_CACHE_TOKENS", SMALL_CACHE_TOKENS.to_string())];
    let worker = bench.worker(&small).await?;
    let question = format!("{USERS} requests at a time, room for half of them");
    crowds.push(measure_crowd(bench, &worker, &question, "no-room").await?);
    worker.end().await;
    Ok(findings(prefixes[0], prefixes[1], &crowds))
}

async fn measure_crowd(
    bench: &mut Bench,
    worker: &super::child::Server,
    question: &str,
    label: &str,
) -> Result<Crowd, Error> {
    let preemptions = "vllm:num_preemptions_total";
    let before = bench.metric(worker, preemptions, "").await?;
    let scenario = crowd(&worker.address, question);
    let (run, usage_max) = bench.load_watching(scenario, label, "vllm:kv_cache_usage_perc").await?;
    let figure = |name: &str| run.figure(name).unwrap_or(f64::NAN);
    let is_small = label == "no-room";
    Ok(Crowd {
        // The default is the engine's own business; its share in use tells enough.
        cache_tokens: if is_small { f64::from(SMALL_CACHE_TOKENS) } else { f64::NAN },
        usage_max,
        preemptions: bench.metric(worker, preemptions, "").await? - before,
        tokens_per_s: figure("output_tokens_per_s"),
        slowest_ms: figure("e2e_max_ms"),
    })
}

fn findings(cold: Prefix, warm: Prefix, crowds: &[Crowd]) -> Findings {
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    let title = format!("Prompts of about {} tokens, one at a time", PREFIX_TOKENS + OWN_TOKENS);
    let mut prefixes = Table::new(&title, &["prefix", "first token ms (median)", "prompt found in cache"]);
    for (name, prefix) in [("new each time", cold), ("seen before", warm)] {
        prefixes.row([name.to_owned(), brief(prefix.ttft_ms), percent(prefix.hit_share)]);
    }
    let title = format!("{USERS} requests of {SHORT_PROMPT_TOKENS} + {LONG_ANSWER_TOKENS} tokens at once");
    let columns = ["cache", "usage at most", "preemptions", "tokens/s", "slowest ms"];
    let mut crowded = Table::new(&title, &columns);
    for crowd in crowds {
        let cache = if crowd.cache_tokens.is_nan() {
            "the default".to_owned()
        } else {
            format!("{} tokens", crowd.cache_tokens)
        };
        crowded.row([
            cache,
            percent(crowd.usage_max),
            brief(crowd.preemptions),
            brief(crowd.tokens_per_s),
            brief(crowd.slowest_ms),
        ]);
    }
    let measured = cold.ttft_ms / warm.ttft_ms;
    let mut sentences = vec![format!(
        "With {} of the prompt found in the cache, the first token comes {} times sooner.",
        percent(warm.hit_share),
        brief(measured)
    )];
    if let [room, no_room] = crowds {
        sentences.push(format!(
            "In the small cache requests were preempted {} times; tokens/s are {} of what they were with room, and the \
             slowest request took {} times as long.",
            brief(no_room.preemptions),
            percent(no_room.tokens_per_s / room.tokens_per_s),
            brief(no_room.slowest_ms / room.slowest_ms)
        ));
    }
    let first_token = [("new each time", cold), ("seen before", warm)];
    let of_crowds = |title: &str, unit: &str, value: fn(&Crowd) -> f64| {
        let cases = ["room for all", "room for half"].into_iter().zip(crowds);
        Bars::new(title, unit, cases.map(|(name, crowd)| (name.to_owned(), value(crowd))))
    };
    let bars = vec![
        Bars::new(
            "Time to first token",
            "ms",
            first_token.map(|(name, prefix)| (name.to_owned(), prefix.ttft_ms)),
        ),
        of_crowds("Throughput", "tokens/s", |crowd| crowd.tokens_per_s),
        of_crowds("The slowest request", "ms", |crowd| crowd.slowest_ms),
    ];
    Findings { measured, sentences, tables: vec![prefixes, crowded], bars }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gain_is_cold_over_warm_and_preemptions_are_told() {
        let cold = Prefix { ttft_ms: 3_000.0, hit_share: 0.0 };
        let warm = Prefix { ttft_ms: 150.0, hit_share: 0.97 };
        let room = Crowd {
            cache_tokens: f64::NAN,
            usage_max: 0.1,
            preemptions: 0.0,
            tokens_per_s: 100.0,
            slowest_ms: 4_000.0,
        };
        let no_room = Crowd {
            cache_tokens: 704.0,
            usage_max: 1.0,
            preemptions: 3.0,
            tokens_per_s: 60.0,
            slowest_ms: 8_000.0,
        };
        let findings = findings(cold, warm, &[room, no_room]);
        assert!((findings.measured - 20.0).abs() < 1e-9);
        assert_eq!(
            findings.sentences[0],
            "With 97% of the prompt found in the cache, the first token comes 20 times sooner."
        );
        assert!(findings.sentences[1].contains("preempted 3 times; tokens/s are 60%"));
        assert_eq!(findings.tables[1].rows[0][..3], ["the default", "10%", "0"]);
    }

    #[test]
    fn the_small_cache_holds_half_of_what_is_asked_and_each_request_alone() {
        let each = SHORT_PROMPT_TOKENS + LONG_ANSWER_TOKENS;
        assert!(SMALL_CACHE_TOKENS > 2 * each, "a request fits, whatever the chat template adds");
        assert!(SMALL_CACHE_TOKENS < USERS * each * 2 / 3);
    }

    #[test]
    fn only_the_warm_run_brings_its_prefix_in_before() {
        let (cold, warm) = (prefix("http://h", false), prefix("http://h", true));
        assert_eq!((cold.warmup, warm.warmup), (0, 1));
        assert_ne!(cold.seed, warm.seed, "or the first run would warm the second one's prompts");
    }
}
