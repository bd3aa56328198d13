use std::collections::BTreeSet;

use proptest::prelude::*;

use super::sample::{facts, facts_of, failure, run, success};
use super::*;
use crate::record::{Chunk, Failure, FailureKind, RequestRecord};
use crate::scenario::{Arrivals, Fault, FaultAction, Targets};

fn json(report: &Report) -> String {
    let mut bytes = Vec::new();
    report.write_json(&mut bytes).expect("written");
    String::from_utf8(bytes).expect("text")
}

fn table(report: &Report) -> String {
    let mut bytes = Vec::new();
    report.write_table(&mut bytes).expect("written");
    String::from_utf8(bytes).expect("text")
}

fn read_back(report: &Report) -> Report {
    json::read(&json(report)).expect("a report")
}

/// The same but for the last bit of numbers, of which serde_json's reading is not sure.
fn assert_alike(one: &Report, other: &Report) {
    fn alike(one: &serde_json::Value, other: &serde_json::Value) -> bool {
        use serde_json::Value::{Array, Number, Object};
        match (one, other) {
            (Array(one), Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
            }
            (Object(one), Object(other)) => {
                one.len() == other.len()
                    && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| alike(one, other)))
            }
            (Number(one), Number(other)) if one.is_f64() && other.is_f64() => {
                let (one, other) = (one.as_f64().unwrap_or(0.0), other.as_f64().unwrap_or(1.0));
                (one - other).abs() <= 1e-14 * one.abs()
            }
            _ => one == other,
        }
    }
    let value = |report: &Report| serde_json::to_value(report).expect("json");
    let (one, other) = (value(one), value(other));
    assert!(alike(&one, &other), "{one:#}\nis not\n{other:#}");
}

#[test]
fn every_field_of_the_document_and_every_figure_is_documented() {
    let manual = include_str!("../../REPORT.md");
    let value: serde_json::Value = serde_json::from_str(&json(&run(20.0, 5.0, None, 1))).expect("json");
    assert_eq!(value["schema"], SCHEMA);
    for (name, inner) in value.as_object().expect("an object") {
        assert!(manual.contains(&format!("`{name}`")), "REPORT.md has no `{name}`");
        let flat =
            ["scenario", "histograms", "scheduled", "sent", "between_tokens", "tester", "finish_reasons"];
        for (inner, _) in inner.as_object().into_iter().flatten().filter(|_| !flat.contains(&name.as_str())) {
            assert!(manual.contains(&format!("`{inner}`")), "REPORT.md has no `{inner}` of `{name}`");
        }
    }
    let bucket = &value["timeline"]["buckets"][0];
    for (name, _) in bucket.as_object().expect("an object") {
        assert!(manual.contains(&format!("`{name}`")), "REPORT.md has no `{name}` of a bucket");
    }
    for name in figures::SINGLES.iter().map(|(definition, _)| definition.name) {
        assert!(manual.contains(&format!("`{name}`")), "REPORT.md has no `{name}`");
    }
}

#[test]
fn figures_are_in_milliseconds_within_the_histograms_precision() {
    let report = Report::new(facts(&[]));
    let near = |name: &str, ms: f64| {
        let found = report.figure(name).expect("a value");
        assert!((found - ms).abs() <= ms / 1_000.0, "{name} is {found} and not {ms}");
    };
    near("ttft_p99_ms", 200.0);
    near("sent.ttft_p50_ms", 200.0);
    near("tpot_mean_ms", 100.0);
    near("inter_token_p50_ms", 100.0);
    near("scheduled.e2e_max_ms", 400.0);
    assert_eq!(report.figure("output_tokens_per_s"), Some(6.0));
    assert_eq!(report.figure("ttft_count"), Some(1.0));
}

#[test]
fn a_name_without_prefix_is_that_from_schedule() {
    let late = RequestRecord { sent_us: 100_000, ..success() };
    let report = Report::new(facts_of(Scenario::default(), &[late]));
    assert_eq!(report.figure("ttft_p50_ms"), report.figure("scheduled.ttft_p50_ms"));
    let ms = |name: &str| report.figure(name).map(f64::round);
    assert_eq!((ms("ttft_p50_ms"), ms("sent.ttft_p50_ms")), (Some(200.0), Some(100.0)));
    assert_eq!(report.figure("dispatch_delay_p50_ms").map(f64::round), Some(100.0));
}

#[test]
fn every_listed_figure_exists_once_and_others_do_not() {
    let report = run(20.0, 20.0, None, 1);
    let names = Report::figure_names();
    let unique: BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    let unknown: Vec<&String> = names.iter().filter(|name| report.figure(name).is_none()).collect();
    assert_eq!(unknown, ["cache_hit_share"], "this run has no cache");
    for name in ["ttft_p98_ms", "sent.goodput", "sent.inter_token_p50_ms", "other.ttft_p50_ms", ""] {
        assert_eq!(report.figure(name), None, "{name}");
        assert!(!names.contains(&name.to_owned()), "{name}");
    }
}

#[test]
fn goodput_is_over_what_was_offered() {
    let scenario = Scenario {
        targets: Targets { ttft_ms: Some(250.0), ..Targets::default() },
        usd_per_hour: Some(3_600.0),
        ..Scenario::default()
    };
    let slow = RequestRecord { first_token_us: Some(260_000), ..success() };
    let records = [success(), slow, failure(FailureKind::Timeout), failure(FailureKind::Unsent)];
    let mut facts = facts_of(scenario, &records);
    facts.abandoned = 1;
    let report = Report::new(facts);
    let expected = Requests {
        offered: 5,
        sent: 4,
        succeeded: 2,
        failed: 1,
        unsent: 1,
        abandoned: 1,
        warmup: 2,
        ..Requests::default()
    };
    assert_eq!(report.requests, expected);
    assert_eq!((report.goodput.share, report.goodput.per_s), (Some(0.25), 2.0));
    assert_eq!(report.figure("error_share"), Some(0.5));
    assert_eq!(
        report.usd_per_million_good_tokens,
        Some(0.5 / 3.0 * 1e6),
        "half a second at a dollar for three tokens"
    );
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
    let report = Report::new(facts_of(Scenario::default(), &[]));
    let value: serde_json::Value = serde_json::from_str(&json(&report)).expect("json");
    assert!(value["scheduled"]["ttft_p50_ms"].is_null());
    assert_eq!(value["scheduled"]["ttft_count"], 0.0);
    assert!(table(&report).contains("time to first token                     -"), "{}", table(&report));
    assert_eq!(read_back(&report).figure("goodput"), None);
}

#[test]
fn from_schedule_and_from_sending_stand_side_by_side() {
    let late = RequestRecord { sent_us: 100_000, ..success() };
    let table = table(&Report::new(facts_of(Scenario::default(), &[late])));
    let row = table.lines().find(|line| line.starts_with("time to first token")).expect("a row");
    let (scheduled, sent) = row.split_once('|').expect("two halves");
    assert!(scheduled.contains("200.063") && sent.contains("100.031"), "{table}");
}

#[test]
fn a_tester_that_is_late_makes_its_run_invalid() {
    let late = RequestRecord { sent_us: 11_000, ..success() };
    let report = Report::new(facts_of(Scenario::default(), &[late.clone(), late, success()]));
    assert!(!report.valid);
    assert!(
        report.invalid_reasons[0].contains("late by 11 ms in the median"),
        "{:?}",
        report.invalid_reasons
    );
    assert!(table(&report).contains("INVALID     the tester itself"), "{}", table(&report));
}

/// Requests due each 10 ms, which are sent so much slower.
fn slowed(factor: f64) -> Vec<RequestRecord> {
    let record = |index: u64| {
        let scheduled_us = index * 10_000;
        RequestRecord { scheduled_us, sent_us: (scheduled_us as f64 * factor) as u64, ..success() }
    };
    (0..1_000).map(record).collect()
}

#[test]
fn a_schedule_that_was_not_kept_makes_its_run_invalid() {
    let open = Scenario { arrivals: Arrivals::Constant { rate: 100.0 }, ..Scenario::default() };
    let reasons = |scenario: &Scenario, factor: f64| {
        Report::new(facts_of(scenario.clone(), &slowed(factor))).invalid_reasons.join("; ")
    };
    assert_eq!(reasons(&open, 1.0), "");
    assert!(!reasons(&open, 1.005).contains("requests/s were sent"));
    assert!(
        reasons(&open, 1.02).contains("98.04 requests/s were sent where 100.00 were due"),
        "{}",
        reasons(&open, 1.02)
    );
    assert!(
        !reasons(&Scenario::default(), 1.02).contains("requests/s were sent"),
        "a closed loop has no rate to keep"
    );
}

#[test]
fn a_brief_runs_hundredth_is_nothing() {
    let open = Scenario { arrivals: Arrivals::Constant { rate: 100.0 }, ..Scenario::default() };
    let records = &slowed(1.015)[..100];
    assert_eq!(Report::new(facts_of(open, records)).invalid_reasons, Vec::<String>::new());
}

#[test]
fn requests_that_were_never_sent_make_their_run_invalid() {
    let report = Report::new(facts(&[FailureKind::Unsent]));
    assert!(!report.valid);
    assert!(report.invalid_reasons[0].starts_with("1 requests that were due were never sent"));
    assert_eq!(report.figure("dispatch_delay_count"), Some(1.0), "what was not sent was not sent late");
}

#[test]
fn what_weakens_the_figures_is_noted() {
    let mut facts = facts(&[]);
    facts.prompt_basis = PromptBasis::Estimated;
    facts.scenario.answers.ignore_eos = true;
    facts.metrics.counts.short = 4;
    facts.metrics.counts.without_usage = 2;
    let notes = Report::new(facts).notes.join("\n");
    for expected in ["estimate", "4 answers are shorter", "2 answers came without usage"] {
        assert!(notes.contains(expected), "{notes}");
    }
}

#[test]
fn a_target_that_goes_away_is_noted_with_the_moment_and_one_that_fails_a_few_is_not() {
    let failed_in = |seconds: std::ops::Range<u64>| {
        let failures = seconds.map(|second| RequestRecord {
            done_us: second * 1_000_000,
            failure: Some(Failure::new(FailureKind::Connect, "refused")),
            ..success()
        });
        let well = RequestRecord { done_us: 4_200_000, ..success() };
        let records: Vec<RequestRecord> = failures.chain([well]).collect();
        Report::new(facts_of(Scenario::default(), &records)).notes
    };
    let gone = "the last request that succeeded ended in second 4; 6 that ended later failed: the target broke down then, \
                or went away";
    assert_eq!(failed_in(5..11), [gone]);
    assert_eq!((failed_in(0..4), failed_in(5..8)), (Vec::new(), Vec::new()));
}

#[test]
fn a_document_is_read_back_as_it_was() {
    let mut report = run(30.0, 8.0, Some(3.0), 2);
    report.scenario.faults = vec![Fault { at_s: 1.0, action: FaultAction::Pause { pid: 7, for_s: 2.0 } }];
    let again = read_back(&report);
    assert_alike(&again, &report);
    assert_eq!(again.scenario, report.scenario);
}

#[test]
fn a_timelines_bucket_and_a_histogram_are_one_line_each() {
    let text = json(&run(30.0, 8.0, None, 2));
    let buckets = text.lines().filter(|line| line.trim_start().starts_with("{\"at_s\":")).count();
    assert!(buckets >= 8, "{buckets}");
    assert!(text.lines().any(|line| line.starts_with("    \"inter_token\": [[")), "{text}");
    assert!(text.lines().count() < 400, "{}", text.lines().count());
}

#[test]
fn what_is_no_report_is_refused_with_a_reason() {
    let refused = |text: &str| json::read(text).expect_err("refused");
    assert!(refused("nothing").contains("no report"));
    assert!(refused("{}").contains("no `schema`"));
    assert!(refused("{\"schema\": 1}").contains("version 1, but this program reads version 2"));
    assert!(refused("{\"schema\": 2}").contains("no whole report: missing field"));
    let dir = tempfile::tempdir().expect("a folder");
    let missing = Report::load(&dir.path().join("none.json")).expect_err("absent").to_string();
    assert!(missing.contains("none.json"), "{missing}");
}

#[test]
fn a_run_leaves_json_csv_and_a_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let report = run(30.0, 8.0, None, 2);
    report.save(&dir.path().join("new")).expect("saved");
    let path = |name: &str| dir.path().join("new").join(name);
    assert_alike(&Report::load(&path(REPORT_FILE)).expect("read"), &report);
    assert!(std::fs::read_to_string(path(HTML_FILE)).expect("a page").starts_with("<!DOCTYPE html>"));
    let csv = std::fs::read_to_string(path(CSV_FILE)).expect("lines");
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), report.timeline.buckets().len() + 1);
    assert!(lines.iter().all(|fields| fields.len() == lines[0].len()), "{csv}");
    let column = |name: &str| lines[0].iter().position(|column| *column == name).expect("a column");
    let sum = |name: &str| {
        lines[1..].iter().map(|fields| fields[column(name)].parse::<u64>().expect("a number")).sum::<u64>()
    };
    assert_eq!(sum("offered"), report.requests.offered);
    assert_eq!(sum("output_tokens"), report.tokens.output);
    assert_eq!(lines[lines.len() - 1][column("in_flight")], "0");
    assert_ne!(lines[2][column("target_running")], "");
}

#[test]
fn only_one_runs_reports_are_merged() {
    let refused = |reports: Vec<Report>| Report::merge(reports).expect_err("refused").to_string();
    assert!(refused(Vec::new()).contains("there are none"));
    let other = Report::new(facts_of(Scenario { seed: 3, ..Scenario::default() }, &[success()]));
    assert!(refused(vec![Report::new(facts(&[])), other]).contains("differ: `seed` is"));
    let other = Report { model: "n".into(), ..Report::new(facts(&[])) };
    assert!(refused(vec![Report::new(facts(&[])), other]).contains("one is of model m, one of n"));
}

fn a_record() -> impl Strategy<Value = RequestRecord> {
    let kind = prop_oneof![
        4 => Just(None),
        1 => Just(Some(FailureKind::Unsent)),
        1 => Just(Some(FailureKind::Http(503))),
    ];
    let gaps = prop::collection::vec((0_u64..3_000_000, 1_u32..4), 1..6);
    // Schedules of up to ten hours: their timelines have buckets of 16 s, and shorter ones narrower ones.
    (0_u64..36_000_000_000, 0_u64..20_000, gaps, kind).prop_map(|(scheduled_us, delay_us, gaps, kind)| {
        let sent_us = scheduled_us + delay_us;
        let mut at_us = sent_us;
        let chunks: Vec<Chunk> = gaps
            .into_iter()
            .map(|(gap_us, tokens)| {
                at_us += gap_us;
                Chunk { at_us, tokens }
            })
            .collect();
        RequestRecord {
            scheduled_us,
            sent_us,
            first_token_us: Some(chunks[0].at_us),
            last_token_us: Some(at_us),
            done_us: at_us + 10,
            chunks,
            usage: None,
            failure: kind.map(|kind| crate::record::Failure::new(kind, "seen")),
            ..success()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn merged_reports_are_the_report_of_the_whole(
        records in prop::collection::vec((a_record(), 0_usize..3), 1..60),
    ) {
        let scenario = Scenario {
            targets: Targets { ttft_ms: Some(1_500.0), ..Targets::default() },
            arrivals: Arrivals::Poisson { rate: 1.0 },
            ..Scenario::default()
        };
        let report = |records: Vec<RequestRecord>| {
            let mut facts = facts_of(scenario.clone(), &records);
            (facts.warmup_sent, facts.processes) = (0, 1);
            Report::new(facts)
        };
        let parts = (0..3).map(|part| {
            let records = records.iter().filter(|(_, of)| *of == part).map(|(record, _)| record.clone());
            // Through their files, as processes on several hosts would give them.
            read_back(&report(records.collect()))
        });
        let merged = Report::merge(parts.collect()).expect("of one scenario");
        prop_assert_eq!(merged.processes, 3);
        let whole = report(records.into_iter().map(|(record, _)| record).collect());
        prop_assert_eq!(json(&Report { processes: 1, ..merged }), json(&whole));
    }

    #[test]
    fn percentiles_are_those_of_an_exact_sort_within_three_digits(
        mut ttft_us in prop::collection::vec(1_u64..100_000_000, 1..200),
    ) {
        let record = |us: &u64| RequestRecord {
            first_token_us: Some(*us),
            last_token_us: Some(*us),
            done_us: *us,
            chunks: Vec::new(),
            ..success()
        };
        let report = Report::new(facts_of(Scenario::default(), &ttft_us.iter().map(record).collect::<Vec<_>>()));
        ttft_us.sort_unstable();
        for (name, quantile) in [("ttft_p50_ms", 0.5), ("ttft_p90_ms", 0.9), ("ttft_p95_ms", 0.95), ("ttft_p99_ms", 0.99), ("ttft_max_ms", 1.0)] {
            let rank = ((ttft_us.len() as f64 * quantile).ceil() as usize).max(1);
            let exact_ms = ttft_us[rank - 1] as f64 / 1e3;
            let ms = report.figure(name).expect("values");
            prop_assert!((ms - exact_ms).abs() <= exact_ms / 1_000.0, "{name} is {ms} and not {exact_ms}");
        }
    }
}
