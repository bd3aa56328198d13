use super::*;
use crate::record::{Chunk, Failure, FailureKind, RequestRecord, TokenBasis, Usage};

/// One success of 3 tokens, 100 ms apart, after 200 ms; with `failures` beside it.
fn facts(failures: &[FailureKind]) -> RunFacts {
    let record = RequestRecord {
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
    };
    let mut metrics = Metrics::new().expect("bounds");
    metrics.add(&record);
    for kind in failures {
        metrics.add(&RequestRecord { failure: Some(Failure::new(*kind, "seen")), ..record.clone() });
    }
    RunFacts {
        scenario: Scenario::default(),
        target: "http://127.0.0.1:1".into(),
        model: "m".into(),
        prompt_basis: PromptBasis::Counted { sample_tokens: 127 },
        started_unix_s: 1,
        interrupted: false,
        abandoned: 0,
        warmup_sent: 2,
        warmup_failed: 0,
        metrics,
    }
}

fn json(report: &Report) -> serde_json::Value {
    let mut bytes = Vec::new();
    report.write_json(&mut bytes).expect("written");
    serde_json::from_slice(&bytes).expect("json")
}

fn table(report: &Report) -> String {
    let mut bytes = Vec::new();
    report.write_table(&mut bytes).expect("written");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn the_documents_fields_are_those_of_its_schema() {
    let report = json(&Report::new(facts(&[])));
    assert_eq!(report["schema"], 1);
    let mut keys: Vec<&str> = report.as_object().expect("object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "errors",
        "finish_reasons",
        "interrupted",
        "latency",
        "model",
        "notes",
        "prompt_basis",
        "requests",
        "scenario",
        "schema",
        "span_s",
        "started_unix_s",
        "target",
        "throughput",
        "tokens",
        "valid",
        "version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(report["latency"]["ttft_ms"]["count"], 1);
    assert_eq!(report["throughput"]["output_tokens_per_s"], 6.0);
    assert_eq!(report["requests"]["warmup"], 2);
    assert_eq!(report["notes"], serde_json::json!([]));
}

#[test]
fn figures_are_in_milliseconds_within_the_histograms_precision() {
    let latency = Report::new(facts(&[])).latency;
    let near = |summary: Option<Summary>, ms: f64| {
        let p50 = summary.expect("values").p50;
        assert!((p50 - ms).abs() <= ms / 1_000.0, "{p50} is not {ms}");
    };
    near(latency.ttft_ms, 200.0);
    near(latency.tpot_ms, 100.0);
    near(latency.inter_token_ms, 100.0);
    near(latency.end_to_end_ms, 400.0);
}

#[test]
fn errors_are_listed_with_the_most_frequent_first() {
    let report = Report::new(facts(&[FailureKind::Connect, FailureKind::Truncated, FailureKind::Truncated]));
    let errors: Vec<(&str, u64)> =
        report.errors.iter().map(|error| (error.kind.as_str(), error.count)).collect();
    assert_eq!(errors, [("truncated", 2), ("connect", 1)]);
    assert!(table(&report).contains("2  truncated: seen"), "{}", table(&report));
}

#[test]
fn what_was_not_measured_is_null_and_a_dash() {
    let mut facts = facts(&[]);
    facts.metrics = Metrics::new().expect("bounds");
    let report = Report::new(facts);
    assert!(json(&report)["latency"]["ttft_ms"].is_null());
    assert!(table(&report).contains("time to first token                     -"), "{}", table(&report));
}

#[test]
fn a_tester_that_is_late_makes_its_run_invalid() {
    let mut late = facts(&[]);
    for _ in 0..3 {
        late.metrics.latencies.dispatch_delay.record(11_000).expect("in range");
    }
    let report = Report::new(late);
    assert!(!report.valid);
    assert!(report.notes.iter().any(|note| note.contains("late by")), "{:?}", report.notes);
    assert!(table(&report).contains("INVALID"));
}

#[test]
fn what_weakens_the_figures_is_noted() {
    let mut facts = facts(&[]);
    facts.prompt_basis = PromptBasis::Estimated;
    facts.scenario.answers.ignore_eos = true;
    facts.metrics.short = 4;
    facts.metrics.without_usage = 2;
    let notes = Report::new(facts).notes.join("\n");
    for expected in ["estimate", "4 answers are shorter", "2 answers came without usage"] {
        assert!(notes.contains(expected), "{notes}");
    }
}
