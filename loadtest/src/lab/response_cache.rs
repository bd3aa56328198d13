//! Popular questions through a gateway that keeps answers, one that does not, and with other words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Findings;
use super::bench::Bench;
use super::child::Server;
use super::table::{Bars, Table, brief};
use crate::error::Error;
use crate::random::{draw, unit};
use crate::scenario::{Answers, Arrivals, Length, Prompts, Scenario};

pub(super) const TEXT: &str = include_str!("response_cache.md");

const REQUESTS: u64 = 60;
const QUESTIONS: u64 = 12;
/// Of Zipf's law.
const EXPONENT: f64 = 1.0;
const USERS: u32 = 2;
/// Enough for an answer to cost something: what a cache saves is told by shares and ratios, not by its length.
const ANSWER_TOKENS: u32 = 10;

/// What people ask.
const SUBJECTS: [&str; QUESTIONS as usize] = [
    "a river",
    "a bridge",
    "a comet",
    "yeast",
    "a mortgage",
    "a fugue",
    "a glacier",
    "an enzyme",
    "a lighthouse",
    "ink",
    "a verb",
    "a violin",
];

/// Other words for the same. None of them changes what a person would answer.
fn reworded(question: &str, way: u64) -> String {
    match way % 5 {
        0 => format!("Hello! {question}"),
        1 => question.to_lowercase(),
        2 => format!("{question} "),
        3 => question.replace("Say in one sentence", "In one sentence, say"),
        _ => question.replace('?', ", please?"),
    }
}

/// The question of request `index`: the r-th most popular one with a probability in proportion to r^-exponent.
fn rank(index: u64) -> u64 {
    let weight = |rank: u64| (rank as f64).powf(-EXPONENT);
    let whole: f64 = (1..=QUESTIONS).map(weight).sum();
    let mut left = uniform(index) * whole;
    for rank in 1..QUESTIONS {
        left -= weight(rank);
        if left < 0.0 {
            return rank - 1;
        }
    }
    QUESTIONS - 1
}

/// A number from 0 to 1 of each request's own.
fn uniform(index: u64) -> f64 {
    unit(draw(0, index + 1))
}

/// All requests' prompts.
fn questions(other_words: bool) -> Vec<String> {
    let question = |index: u64| {
        let subject = SUBJECTS[rank(index) as usize];
        let question = format!("What is {subject}? Say in one sentence what it is for.");
        // The first half brings the plain questions in; the second asks them in other words.
        if other_words && index >= REQUESTS / 2 { reworded(&question, index) } else { question }
    };
    (0..REQUESTS).map(question).collect()
}

/// How many of the prompts had come before: no cache can do better by exact matching.
fn repeats(prompts: &[String]) -> usize {
    prompts.len() - prompts.iter().collect::<BTreeSet<_>>().len()
}

fn write_prompts(dir: &Path, name: &str, prompts: &[String]) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    let lines: String =
        prompts.iter().map(|prompt| format!("{}\n", serde_json::json!({ "prompt": prompt }))).collect();
    std::fs::write(&path, lines).map_err(|source| Error::File { path: path.clone(), source })?;
    Ok(path)
}

fn scenario(target: &str, question: &str, path: PathBuf) -> Scenario {
    Scenario {
        question: question.to_owned(),
        target: target.to_owned(),
        arrivals: Arrivals::ClosedLoop { users: USERS, think_time_s: 0.0 },
        requests: Some(REQUESTS),
        prompts: Prompts::File { path },
        answers: Answers {
            max_tokens: Length::Fixed(ANSWER_TOKENS),
            // Greedy, or no answer could be given again.
            temperature: Some(0.0),
            ..Answers::default()
        },
        ..Scenario::default()
    }
}

/// One run through a gateway.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    name: &'static str,
    repeats: usize,
    hits: f64,
    coalesced: f64,
    ttft_p50_ms: f64,
    ttft_p99_ms: f64,
    requests_per_s: f64,
}

pub(super) async fn measure(bench: &mut Bench) -> Result<Findings, Error> {
    let worker = bench.worker(&[]).await?;
    // Without a cache first: the worker's own prefix cache is then warm for all that follow.
    let plan = [
        ("no cache", "no-cache", false),
        ("cache", "cache", false),
        ("cache, other words", "other-words", true),
    ];
    let mut runs = Vec::new();
    for (name, label, other_words) in plan {
        let env = [("TENK_RESPONSE_CACHE__ENABLED", (label != "no-cache").to_string())];
        let gateway = bench.gateway(&worker, &env).await?;
        runs.push(measure_run(bench, &gateway, name, label, &questions(other_words)).await?);
        gateway.end().await;
    }
    worker.end().await;
    Ok(findings(&runs))
}

async fn measure_run(
    bench: &mut Bench,
    gateway: &Server,
    name: &'static str,
    label: &str,
    prompts: &[String],
) -> Result<Run, Error> {
    let path = write_prompts(bench.dir(), &format!("{label}.jsonl"), prompts)?;
    let question = format!("{REQUESTS} questions: {name}");
    let run = bench.load(scenario(&gateway.address, &question, path), label).await?;
    let figure = |name: &str| run.figure(name).unwrap_or(f64::NAN);
    let results = "tenk_response_cache_requests_total";
    Ok(Run {
        name,
        repeats: repeats(prompts),
        hits: bench.metric(gateway, results, "result=\"hit_").await?,
        coalesced: bench.metric(gateway, results, "result=\"coalesced\"").await?,
        ttft_p50_ms: figure("ttft_p50_ms"),
        ttft_p99_ms: figure("ttft_p99_ms"),
        requests_per_s: figure("requests_per_s"),
    })
}

fn findings(runs: &[Run]) -> Findings {
    let share = |count: f64| 100.0 * count / REQUESTS as f64;
    let title = format!("{REQUESTS} requests over {QUESTIONS} questions, {USERS} users");
    let columns = ["", "hits", "coalesced", "repeats", "first token ms p50", "p99", "requests/s"];
    let mut table = Table::new(&title, &columns);
    for run in runs {
        table.row([
            run.name.to_owned(),
            format!("{:.0}%", share(run.hits)),
            format!("{:.0}%", share(run.coalesced)),
            format!("{:.0}%", share(run.repeats as f64)),
            brief(run.ttft_p50_ms),
            brief(run.ttft_p99_ms),
            brief(run.requests_per_s),
        ]);
    }
    let mut sentences = Vec::new();
    let mut measured = f64::NAN;
    if let [none, cache, other] = runs {
        measured = share(cache.hits + cache.coalesced);
        sentences.push(format!(
            "{measured:.0}% of requests needed no work of the model; {} times as many requests/s went through.",
            brief(cache.requests_per_s / none.requests_per_s)
        ));
        sentences.push(format!(
            "With half of the questions in other words it was {:.0}%: what people mean is not what is matched.",
            share(other.hits + other.coalesced)
        ));
    }
    let of_runs = |title: &str, unit: &str, value: &dyn Fn(&Run) -> f64| {
        Bars::new(title, unit, runs.iter().map(|run| (run.name.to_owned(), value(run))))
    };
    let bars = vec![
        of_runs("Requests that needed no model", "%", &|run| share(run.hits + run.coalesced)),
        of_runs("Throughput", "requests/s", &|run| run.requests_per_s),
    ];
    Findings { measured, sentences, tables: vec![table], bars }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popular_questions_come_as_often_as_zipfs_law_says() {
        let draws = 20_000;
        let mut counts = [0_u32; QUESTIONS as usize];
        (0..draws).for_each(|index| counts[rank(index) as usize] += 1);
        let whole: f64 = (1..=QUESTIONS).map(|rank| 1.0 / rank as f64).sum();
        for (at, count) in counts.iter().enumerate() {
            let expected = draws as f64 / (at + 1) as f64 / whole;
            // Five standard deviations of a binomial count.
            assert!(
                (f64::from(*count) - expected).abs() < 5.0 * expected.sqrt(),
                "{at}: {count}, not {expected}"
            );
        }
    }

    #[test]
    fn other_words_are_new_prompts_and_plain_ones_repeat() {
        let (plain, other) = (questions(false), questions(true));
        let half = REQUESTS as usize / 2;
        assert_eq!(plain[..half], other[..half]);
        assert!(plain.iter().zip(&other).skip(half).all(|(plain, other)| plain != other));
        let all_but_first = (REQUESTS - QUESTIONS) as usize;
        assert!(repeats(&plain) >= all_but_first && repeats(&other) < repeats(&plain));
    }

    #[test]
    fn followers_count_as_much_as_hits() {
        let run = |name, hits, coalesced, requests_per_s| Run {
            name,
            repeats: 48,
            hits,
            coalesced,
            ttft_p50_ms: 1.0,
            ttft_p99_ms: 2.0,
            requests_per_s,
        };
        let findings =
            findings(&[run("a", 0.0, 0.0, 4.0), run("b", 47.0, 1.0, 16.0), run("c", 24.0, 0.0, 6.0)]);
        assert!((findings.measured - 80.0).abs() < 1e-9);
        assert!(findings.sentences[0].starts_with("80% of requests needed no work of the model; 4 times"));
        assert!(findings.sentences[1].contains("40%"));
        assert_eq!(findings.tables[0].rows[1][..4], ["b", "78%", "2%", "80%"]);
    }

    #[test]
    fn a_file_of_prompts_is_one_that_the_tester_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = write_prompts(folder.path(), "p.jsonl", &questions(true)).expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        assert_eq!(
            crate::prompts::PromptFile::parse(&path, text.as_bytes()).expect("prompts").len(),
            REQUESTS as usize
        );
    }
}
