use super::*;
use crate::report::sample::{facts, run};
use crate::report::{Event, Report};

#[test]
#[ignore = "writes pages to look at"]
fn pages_to_look_at() {
    let dir = std::env::temp_dir().join("tenk-report-pages");
    std::fs::create_dir_all(&dir).expect("made");
    run(33.0, 60.0, Some(20.0), 1).save(&dir.join("stall")).expect("saved");
    run(20.0, 900.0, Some(400.0), 1).save(&dir.join("long")).expect("saved");
    let mut bad = run(8.0, 5.0, None, 3);
    bad.valid = false;
    bad.invalid_reasons = vec!["12 requests that were due were never sent".into(), "late".into()];
    bad.interrupted = true;
    bad.target_metrics = Default::default();
    std::fs::write(dir.join("bad.html"), page(&[bad])).expect("saved");
    let empty = Report::new(crate::report::sample::facts_of(Default::default(), &[]));
    std::fs::write(dir.join("empty.html"), page(&[empty])).expect("saved");
    std::fs::write(dir.join("one.html"), page(&[Report::new(facts(&[]))])).expect("saved");
    let mut runs: Vec<Report> = Vec::new();
    for rate in [5.0, 10.0, 20.0, 30.0, 35.0, 40.0, 45.0] {
        for seed in 0..3 {
            runs.push(run(rate, 30.0, None, seed));
        }
    }
    runs[20].valid = false;
    std::fs::write(dir.join("sweep.html"), page(&runs)).expect("saved");
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_runs_nothing() {
    for page in
        [page(&[run(20.0, 10.0, Some(3.0), 1)]), page(&[run(5.0, 5.0, None, 1), run(9.0, 5.0, None, 1)])]
    {
        for absent in ["<script", "href=", "src=", "url(", "@import", "http-equiv"] {
            assert!(!page.contains(absent), "{absent}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf "), "numbers are numbers");
    }
}

#[test]
fn a_servers_words_are_no_markup() {
    let page = page(&[run(40.0, 20.0, None, 1)]);
    assert!(page.contains("no worker is ready &lt;b&gt;") && !page.contains("ready <b>"));
}

#[test]
fn an_invalid_run_says_so_before_any_figure() {
    let mut report = Report::new(facts(&[]));
    report.valid = false;
    report.invalid_reasons = vec!["the reason".into()];
    let page = page(&[report]);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("<b>INVALID</b>") < at("the reason") && at("the reason") < at("class=\"tiles\""));
    assert!(!super::page(&[Report::new(facts(&[]))]).contains("INVALID"));
}

#[test]
fn plots_with_nothing_to_draw_are_left_out() {
    let nothing = Report::new(crate::report::sample::facts_of(Default::default(), &[]));
    let empty = page(&[nothing]);
    assert!(!empty.contains("<svg") && !empty.contains("What happened when"));
    let whole = page(&[run(20.0, 20.0, Some(3.0), 1)]);
    for title in [
        "Latency over time",
        "Requests a second",
        "In flight and in queues",
        "Output tokens a second",
        "KV cache",
        "CPU",
        "Time to first token by percentile",
        "End-to-end latency by percentile",
        "Gaps between tokens",
        "Times between tokens by percentile",
    ] {
        assert!(whole.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
}

#[test]
fn faults_are_numbered_in_the_plots_and_told_below_them() {
    let mut report = run(20.0, 10.0, None, 1);
    report.events =
        vec![Event { at_s: 4.0, what: "SIGKILL to process 7".into(), error: Some("gone".into()) }];
    let page = page(&[report]);
    assert!(page.contains("class=\"mark middle\""));
    assert!(page.contains("SIGKILL to process 7 FAILED: gone"));
}

#[test]
fn several_runs_are_drawn_against_their_load() {
    let mut runs = vec![run(5.0, 5.0, None, 1), run(9.0, 5.0, None, 1)];
    runs[1].valid = false;
    let page = page(&runs);
    for title in ["Time to first token against rate", "Throughput against latency"] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert!(page.contains("class=\"hollow") && page.contains("1 of 2 runs"));
}

#[test]
fn dates_are_those_of_the_calendar() {
    assert_eq!(date(0), "1970-01-01 00:00 UTC");
    assert_eq!(date(951_782_400 + 3_661), "2000-02-29 01:01 UTC");
    assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
}

#[test]
fn numbers_have_the_digits_that_mean_something() {
    let written: Vec<String> =
        [0.0, 0.1234, 12.345, 123.45, 1_234.5, 12.0, 1_234_567.0].into_iter().map(tables::number).collect();
    assert_eq!(written, ["0", "0.123", "12.35", "123.5", "1,235", "12", "1,234,567"]);
}
