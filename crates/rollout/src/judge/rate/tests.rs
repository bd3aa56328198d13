use super::*;
use crate::judge::tests::Random;

/// Whether a version of the share `canary` fails, and passes, at any look of `blocks` blocks beside one of the share
/// `stable`.
fn looked_at(seed: u64, rate: Rate, blocks: u32, stable: f64, canary: f64) -> (Comparison, bool, bool) {
    let spec = JudgeSpec::default();
    let levels = Levels { fail: 0.05, pass: 0.05 };
    let mut random = Random(seed);
    let mut test = RateTest::new(rate);
    let (mut fails, mut passes) = (false, false);
    for _ in 0..blocks {
        let mut seen = |trials: u64, share: f64| {
            let events = (0..trials).filter(|_| random.unit() < share).count() as u64;
            let rates = [(rate, Count { trials, events })].into();
            VersionEvidence { rates, ..VersionEvidence::default() }
        };
        let (stable, canary) = (seen(40, stable), seen(10, canary));
        test.observe(&spec, &stable, &canary);
        let comparison = test.compare(&spec, levels);
        fails |= comparison.fails;
        passes |= comparison.passes;
    }
    (test.compare(&spec, levels), fails, passes)
}

#[test]
fn a_version_with_as_many_errors_fails_in_no_more_runs_than_the_level_however_often_one_looks() {
    for share in [0.002, 0.02, 0.3] {
        let fails = (0..200).filter(|seed| looked_at(*seed, Rate::Error, 60, share, share).1).count();
        assert!(fails <= 17, "{fails} of 200 at {share}");
    }
}

#[test]
fn a_version_at_the_margin_passes_in_no_more_runs_than_the_level() {
    for share in [1e-4, 0.05] {
        let passes = (0..200).filter(|seed| looked_at(*seed, Rate::Error, 60, share, share + 0.01).2).count();
        assert!(passes <= 17, "{passes} of 200 at {share}");
    }
}

#[test]
fn answers_that_are_cut_a_little_more_often_are_tolerated_and_much_more_often_are_not() {
    let (last, fails, _) = looked_at(1, Rate::Truncated, 400, 0.2, 0.205);
    assert!(!fails && last.passes, "{last:?}");
    assert!(looked_at(1, Rate::Truncated, 400, 0.2, 0.3).1);
}

#[test]
fn a_difference_lies_between_its_bounds() {
    for (stable, canary) in [(1e-4, 1e-4), (0.01, 0.03), (0.1, 0.05)] {
        let missed = (0..50).filter(|seed| {
            let (last, ..) = looked_at(*seed, Rate::Truncated, 150, stable, canary);
            !(last.low..=last.high).contains(&(canary - stable))
        });
        let missed = missed.count();
        assert!(missed <= 6, "{missed} of 50 at {stable} and {canary}");
    }
}
