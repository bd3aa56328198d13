use super::*;
use crate::figures::made_up::MadeUp;

fn runs(figure: &str, values: &[f64]) -> Vec<MadeUp> {
    values.iter().map(|value| MadeUp::of(&[(figure, *value)])).collect()
}

fn verdict(figure: &str, a: &[f64], b: &[f64]) -> Verdict {
    let comparison = Comparison::of(&[figure.to_owned()], &runs(figure, a), &runs(figure, b));
    comparison.rows[0].verdict
}

#[test]
fn a_lower_latency_and_a_higher_throughput_are_better() {
    let (low, high) = ([100.0, 101.0, 99.0], [120.0, 121.0, 119.0]);
    assert_eq!(verdict("ttft_p99_ms", &high, &low), Verdict::Better);
    assert_eq!(verdict("ttft_p99_ms", &low, &high), Verdict::Worse);
    assert_eq!(verdict("output_tokens_per_s", &low, &high), Verdict::Better);
    assert_eq!(verdict("goodput", &high, &low), Verdict::Worse);
}

#[test]
fn a_difference_within_the_noise_is_not_shown() {
    assert_eq!(
        verdict("ttft_p99_ms", &[100.0, 120.0, 80.0], &[105.0, 85.0, 125.0]),
        Verdict::NoDifferenceShown
    );
    assert_eq!(verdict("error_share", &[0.0, 0.0], &[0.0, 0.0]), Verdict::NoDifferenceShown);
}

#[test]
fn a_single_run_a_side_cannot_be_judged() {
    let one = runs("ttft_p99_ms", &[100.0]);
    let comparison = Comparison::of(&["ttft_p99_ms".to_owned()], &one, &runs("ttft_p99_ms", &[500.0, 501.0]));
    assert_eq!(comparison.rows[0].verdict, Verdict::CannotJudge);
    assert_eq!(comparison.rows[0].difference_percent, Some(400.5));
    assert_eq!(comparison.rows[0].interval_percent, None);
    assert!(comparison.to_string().contains("can't judge from one run a side"));
    assert!(comparison.notes[0].contains("three times or more"));
}

#[test]
fn percentages_are_of_as_mean_and_the_interval_is_about_the_difference() {
    let row = Row::of("ttft_p50_ms", &[100.0, 102.0, 98.0], &[110.0, 112.0, 108.0]).expect("values");
    let [low, high] = row.interval_percent.expect("repeats");
    assert_eq!(row.difference_percent, Some(10.0));
    assert!((f64::midpoint(low, high) - 10.0).abs() < 1e-9);
    // Both variances are 4: the error is √(8/3), with 4 degrees of freedom.
    assert!((high - 10.0 - 2.776_445 * (8.0_f64 / 3.0).sqrt()).abs() < 1e-4);
    let from_nothing = Row::of("error_share", &[0.0, 0.0], &[0.5, 0.5]).expect("values");
    assert_eq!((from_nothing.difference_percent, from_nothing.verdict), (None, Verdict::Worse));
}

#[test]
fn runs_that_do_not_count_are_left_out_and_said_to_be() {
    let mut a = runs("goodput", &[1.0, 1.0, 0.1]);
    a[2].valid = false;
    let comparison = Comparison::of(&["goodput".to_owned()], &a, &runs("goodput", &[1.0, 1.0]));
    assert_eq!(comparison.rows[0].a.count, 2);
    assert_eq!(comparison.rows[0].verdict, Verdict::NoDifferenceShown);
    assert!(comparison.notes[0].contains("1 of A's 3 runs"));
}

#[test]
fn where_no_run_counts_that_is_said_first() {
    let mut runs = runs("goodput", &[1.0, 1.0]);
    let figures = ["goodput".to_owned()];
    let good = runs.clone();
    runs.iter_mut().for_each(|run| run.valid = false);
    let one = Comparison::of(&figures, &good, &runs).to_string();
    assert!(one.starts_with("nothing to compare: all runs of B are invalid or interrupted\n"), "{one}");
    let both = Comparison::of(&figures, &runs, &runs).to_string();
    assert!(both.starts_with("nothing to compare: all runs of A and of B are invalid"), "{both}");
    assert!(both.contains("2 of A's 2 runs"), "{both}");
}

#[test]
fn the_table_ends_in_one_plain_sentence() {
    let figures = ["ttft_p99_ms".to_owned(), "goodput".to_owned(), "error_share".to_owned()];
    let run = |ttft: f64, goodput: f64| MadeUp::of(&[("ttft_p99_ms", ttft), ("goodput", goodput)]);
    let a = [run(100.0, 1.0), run(101.0, 1.0)];
    let b = [run(50.0, 0.8), run(51.0, 0.8)];
    let comparison = Comparison::of(&figures, &a, &b);
    assert_eq!(comparison.rows.len(), 2, "a figure that neither has is left out");
    assert_eq!(comparison.verdict(), "B is better in ttft_p99_ms, and worse in goodput");
    let shown = comparison.to_string();
    let expected = "ttft_p99_ms                      100.5        50.5   -49.8%";
    assert!(shown.contains(expected), "{shown}");
    assert_eq!(Comparison::of::<MadeUp>(&figures, &[], &[]).verdict(), "the two have no figure in common");
}
