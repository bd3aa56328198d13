use super::*;
use crate::judge::tests::{Random, interval};

const LEVELS: Levels = Levels { fail: 0.05, pass: 0.05 };

/// Runs of `blocks` intervals of `users` users of each version, looked at after each: what the last look said, and
/// whether any look was a fail or a pass.
fn looked_at(seed: u64, blocks: u32, users: (u64, u64), ratio: f64, drift: f64) -> (Comparison, bool, bool) {
    let spec = JudgeSpec::default();
    let mut random = Random(seed);
    let mut test = LatencyTest::new(Latency::InterToken, &spec);
    let (mut fails, mut passes) = (false, false);
    for block in 0..blocks {
        let common = (drift * f64::from(block) / f64::from(blocks)).exp();
        let stable = interval(&mut random, users.0, common, 0.0);
        let canary = interval(&mut random, users.1, common * ratio, 0.0);
        test.observe(&stable, &canary);
        let comparison = test.compare(&spec, LEVELS);
        fails |= comparison.fails;
        passes |= comparison.passes;
    }
    (test.compare(&spec, LEVELS), fails, passes)
}

#[test]
fn a_version_at_the_tolerance_fails_in_no_more_runs_than_the_level_however_often_one_looks() {
    // The rung at or above the tolerance of 10%.
    let ratio = RATIO.powi(5);
    let runs: Vec<_> = (0..120).map(|seed| looked_at(seed, 60, (20, 6), ratio, 0.0)).collect();
    let fails = runs.iter().filter(|run| run.1).count();
    assert!(fails <= 12, "{fails} of 120");
    let missed = runs.iter().filter(|(last, ..)| last.low > ratio - 0.99 || last.high < ratio - 1.01).count();
    assert!(missed <= 18, "the interval misses the difference in {missed} of 120");
}

#[test]
fn a_version_at_the_margin_passes_in_no_more_runs_than_the_level() {
    let passes = (0..120).filter(|seed| looked_at(*seed, 60, (20, 6), RATIO.powi(11), 0.0).2).count();
    assert!(passes <= 12, "{passes} of 120");
}

#[test]
fn what_slows_both_is_no_difference_and_hides_none() {
    let (last, fails, _) = looked_at(1, 150, (47, 10), 1.0, 1.5);
    assert!(!fails && last.passes, "{last:?}");
    assert!(looked_at(2, 150, (47, 10), 1.5, 1.5).1);
}

#[test]
fn a_version_that_answers_in_half_the_time_is_surely_faster() {
    let (last, fails, passes) = looked_at(3, 200, (47, 10), 0.5, 0.0);
    assert!(passes && !fails && last.high < 0.0, "{last:?}");
}

#[test]
fn the_rungs_of_a_tolerance_lie_at_or_above_it_and_those_of_a_margin_at_or_below() {
    assert_eq!((power_at_least(0.1), power_at_most(0.25)), (5, 11));
    assert_eq!((power_at_least(0.0), power_at_most(0.02), power_at_least(0.02)), (0, 1, 1));
}
