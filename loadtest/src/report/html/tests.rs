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
fn runs_say_what_varies_lead_to_their_own_pages_and_show_what_was_asked_of_them() {
    let reports = [run(5.0, 5.0, None, 1), run(9.0, 5.0, None, 1)];
    let mut runs = Runs::by_load(&reports);
    runs.verdict = "5 requests/s meet the targets, 9 do not".into();
    runs.bounds = vec![("ttft_p99_ms".into(), 60.0), ("e2e_p90_ms".into(), 900.0)];
    runs.runs[1].page = Some("run-001/report.html".into());
    let page = runs.page();
    for part in [
        "5 requests/s meet the targets",
        "ttft_p99_ms: 60",
        "<h3>e2e_p90_ms against rate</h3>",
        "<h3>Goodput against rate</h3>",
        "<h3>Gaps between tokens against rate</h3>",
        "<a href=\"run-001/report.html\">",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let none = Runs { runs: Vec::new(), ..runs };
    assert!(none.page().contains("No run was measured"));
}

#[test]
fn what_varies_by_factors_is_drawn_in_factors() {
    let reports = [run(2.0, 5.0, None, 1), run(40.0, 5.0, None, 1)];
    let page = Runs::by_load(&reports).page();
    // A linear axis starts at 0.
    let plot = &page[page.find("Throughput against rate").expect("a plot")..];
    assert!(plot.contains(">50</text>") && plot.contains(">2</text>"), "{plot}");
}

#[test]
fn a_comparison_shows_both_sides_their_difference_and_the_verdict() {
    let side = |rate: f64| [run(rate, 5.0, None, 1), run(rate, 5.0, None, 2), run(rate, 5.0, None, 3)];
    let (a, b) = (side(5.0), side(20.0));
    let names = ["requests_per_s", "ttft_p50_ms"].map(str::to_owned);
    let compared = crate::compare::Comparison::of(&names, &a, &b);
    let page = comparison(&compared, &a, &b);
    for part in [
        "B is better in requests_per_s",
        "class=\"text better\">better",
        "svg class=\"whisker\"",
        // Four times as many requests are beyond what the scale shows.
        "<path class=\"better\" d=\"M176 3L182 8L176 13\"/>",
        "<h3>Time to first token by percentile, from schedule</h3>",
        "A: http",
        "</i>A</li>",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("NaN"));
}

#[test]
fn settings_in_a_sentence_are_code_and_nothing_in_it_is_a_tag() {
    assert_eq!(
        with_code("`a.b` is \"<1\" and `c`"),
        "<code>a.b</code> is &quot;&lt;1&quot; and <code>c</code>"
    );
}

#[test]
fn the_median_of_two_repeats_is_between_them() {
    assert_eq!(runs::median(vec![(1.0, 30.0), (2.0, 10.0), (4.0, 20.0)]), Some((4.0, 20.0)));
    assert_eq!(runs::median(vec![(4.0, 20.0), (1.0, 30.0)]), Some((2.5, 25.0)));
    assert_eq!(runs::median(Vec::new()), None);
}

#[test]
fn gaps_of_no_time_do_not_stretch_an_axis() {
    let mut histogram = hdrhistogram::Histogram::<u64>::new_with_max(3_600_000_000, 3).expect("a histogram");
    for us in [0, 1, 2, 7_000, 8_000, 9_000] {
        histogram.record(us).expect("in range");
    }
    let drawn: Vec<f64> = plots::percentiles(&histogram).into_iter().filter_map(|(_, ms)| ms).collect();
    assert!(drawn.iter().all(|ms| *ms > 6.0) && !drawn.is_empty(), "{drawn:?}");
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
