//! Made-up runs for tests.

use super::{Event, Report, RunFacts};
use crate::metrics::Metrics;
use crate::prompts::PromptBasis;
use crate::random::{draw, unit};
use crate::record::{Chunk, Failure, FailureKind, RequestRecord, TokenBasis, Usage};
use crate::scenario::{Arrivals, Scenario, Targets};
use crate::scrape::{Source, TESTER, TargetMetrics, names};

/// One success of 3 tokens, 100 ms apart, after 200 ms.
pub(crate) fn success() -> RequestRecord {
    RequestRecord {
        scheduled_us: 0,
        sent_us: 0,
        first_token_us: Some(200_000),
        last_token_us: Some(400_000),
        done_us: 500_000,
        chunks: [200_000, 300_000, 400_000].map(|at_us| Chunk { at_us, tokens: 1 }).to_vec(),
        token_basis: TokenBasis::Usage,
        status: Some(200),
        finish_reason: Some("length".into()),
        usage: Some(Usage { prompt_tokens: 10, cached_prompt_tokens: 0, completion_tokens: 3 }),
        max_tokens: 3,
        ..RequestRecord::default()
    }
}

pub(crate) fn failure(kind: FailureKind) -> RequestRecord {
    RequestRecord { failure: Some(Failure::new(kind, "seen")), ..success() }
}

pub(crate) fn facts_of(scenario: Scenario, records: &[RequestRecord]) -> RunFacts {
    let mut metrics = Metrics::new(scenario.targets).expect("bounds");
    records.iter().for_each(|record| metrics.add(record));
    RunFacts {
        target: "http://127.0.0.1:1".into(),
        model: "m".into(),
        prompt_basis: PromptBasis::Counted { sample_tokens: 127 },
        started_unix_s: 1_700_000_000,
        processes: 1,
        interrupted: false,
        abandoned: 0,
        warmup_sent: 2,
        warmup_failed: 0,
        metrics,
        events: Vec::new(),
        target_metrics: TargetMetrics::default(),
        scenario,
    }
}

/// The success, with failures of these kinds beside it.
pub(crate) fn facts(failures: &[FailureKind]) -> RunFacts {
    let records: Vec<RequestRecord> =
        std::iter::once(success()).chain(failures.iter().map(|kind| failure(*kind))).collect();
    facts_of(Scenario::default(), &records)
}

/// A number from 0 to 1 that depends on nothing but its arguments.
fn noise(seed: u64, index: u64) -> f64 {
    unit(draw(0, (seed << 32).wrapping_add(index)))
}

/// What comes of `rate` requests a second for `duration_s`, at a server with 64 places that stalls from `stall_s` on for
/// two seconds, when nobody waits for anybody.
pub(crate) fn run(rate: f64, duration_s: f64, stall_s: Option<f64>, seed: u64) -> Report {
    let scenario = Scenario {
        question: "What does a stall of two seconds do to a chat at a steady rate?".into(),
        arrivals: Arrivals::Poisson { rate },
        duration_s: Some(duration_s),
        targets: Targets { ttft_ms: Some(500.0), tpot_ms: Some(40.0), end_to_end_ms: None },
        usd_per_hour: Some(2.5),
        ..Scenario::default()
    };
    let mut due_s = 0.0;
    let mut records = Vec::new();
    let mut free_s = vec![0.0_f64; 64];
    for index in 0.. {
        due_s += -(1.0 - noise(seed, index)).ln() / rate;
        if due_s >= duration_s {
            break;
        }
        let place = (0..free_s.len()).min_by(|a, b| free_s[*a].total_cmp(&free_s[*b])).expect("places");
        let start_s = stalled(due_s.max(free_s[place]), stall_s);
        let gap_s = 0.018 + 0.012 * noise(seed + 1, index) + 0.0002 * rate;
        let first_s = stalled(start_s + 0.03 + 0.05 * noise(seed + 2, index), stall_s);
        let tokens = 20 + (60.0 * noise(seed + 3, index)) as u32;
        let mut at_s = first_s;
        let mut chunks = Vec::new();
        for token in 0..tokens {
            chunks.push(Chunk { at_us: (at_s * 1e6) as u64, tokens: 1 });
            at_s = stalled(at_s + gap_s * (0.7 + 0.6 * noise(index, u64::from(token))), stall_s);
        }
        free_s[place] = at_s;
        let last_us = chunks[chunks.len() - 1].at_us;
        let broken = noise(seed + 4, index) < 0.01;
        records.push(RequestRecord {
            index,
            scheduled_us: (due_s * 1e6) as u64,
            sent_us: (due_s * 1e6) as u64 + 80 + (400.0 * noise(seed + 5, index)) as u64,
            first_token_us: Some(chunks[0].at_us),
            last_token_us: Some(last_us),
            done_us: last_us + 500,
            chunks,
            usage: Some(Usage { prompt_tokens: 128, cached_prompt_tokens: 32, completion_tokens: tokens }),
            max_tokens: tokens,
            failure: broken.then(|| Failure::new(FailureKind::Http(503), "503: no worker is ready <b>")),
            ..success()
        });
    }
    let mut facts = facts_of(scenario, &records);
    if let Some(at_s) = stall_s {
        facts.events = vec![
            Event { at_s, what: "SIGSTOP to process 4711 for 2 s".into(), error: None },
            Event { at_s: at_s + 2.0, what: "SIGCONT to process 4711".into(), error: None },
            Event { at_s: at_s + 2.4, what: "POST /admin/faults".into(), error: Some("refused".into()) },
        ];
    }
    facts.target_metrics = scraped(&records);
    Report::new(facts)
}

/// Nothing is computed and no token comes while the server stalls.
fn stalled(at_s: f64, stall_s: Option<f64>) -> f64 {
    match stall_s {
        Some(from_s) if (from_s..from_s + 2.0).contains(&at_s) => from_s + 2.0 + 0.02 * (at_s - from_s),
        _ => at_s,
    }
}

fn scraped(records: &[RequestRecord]) -> TargetMetrics {
    let end_s = records.iter().map(|record| record.done_us).max().unwrap_or(0) / 1_000_000;
    let times: Vec<u64> = (0..=end_s).collect();
    let count = |at_s: u64, within: fn(&RequestRecord, u64) -> bool| {
        Some(records.iter().filter(|record| within(record, at_s * 1_000_000)).count() as f64)
    };
    let running = |record: &RequestRecord, at_us| {
        record.first_token_us.is_some_and(|us| us <= at_us) && at_us < record.done_us
    };
    let waiting = |record: &RequestRecord, at_us| {
        record.sent_us <= at_us && record.first_token_us.is_some_and(|us| at_us < us)
    };
    let series =
        |value: &dyn Fn(u64) -> Option<f64>| times.iter().map(|at_s| value(*at_s)).collect::<Vec<_>>();
    let server = [
        (names::RUNNING, series(&|at_s| count(at_s, running))),
        (names::WAITING, series(&|at_s| count(at_s, waiting))),
        (names::KV_USAGE, series(&|at_s| count(at_s, running).map(|running| (running / 70.0).min(1.0)))),
        (names::CPU, series(&|at_s| Some(0.9 * at_s as f64 + 0.2 * noise(9, at_s)))),
        (names::PREEMPTIONS, series(&|_| Some(0.0))),
    ];
    let tester = [(names::CPU, series(&|at_s| Some(0.1 * at_s as f64 + 0.02 * noise(8, at_s))))];
    let source = |address: &str, series: Vec<(&str, Vec<Option<f64>>)>| Source {
        address: address.into(),
        series: series.into_iter().map(|(name, values)| (name.to_owned(), values)).collect(),
        ..Source::default()
    };
    TargetMetrics {
        cores: Some(2),
        times_s: times.iter().map(|at_s| *at_s as f64).collect(),
        sources: vec![source("http://127.0.0.1:1", server.to_vec()), source(TESTER, tester.to_vec())],
    }
}
