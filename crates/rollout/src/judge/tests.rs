use evidence::{Count, LatencyKey, Sketch, Stratum};
use proptest::prelude::*;

use super::*;
use crate::QualitySpec;

/// SplitMix64's output function over a counter, so that every run is the same.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// What one interval of `users` users looks like, whose times are `ratio` times as long as one second, in the median,
/// and of whom a share of `errors` has an error.
pub(super) fn interval(random: &mut Random, users: u64, ratio: f64, errors: f64) -> VersionEvidence {
    let mut evidence = VersionEvidence { requests: users, users, ..VersionEvidence::default() };
    for rate in Rate::ALL {
        let share = if rate == Rate::Error { errors } else { 0.01 };
        let events = (0..users).filter(|_| random.unit() < share).count() as u64;
        evidence.rates.insert(rate, Count { trials: users, events });
    }
    for latency in Latency::ALL {
        for stratum in [0, 100] {
            let stratum = if latency == Latency::TimeToFirstToken {
                Stratum::of_uncached_tokens(stratum)
            } else {
                Stratum::default()
            };
            let key = LatencyKey { latency, stratum };
            let sketch: &mut Sketch = evidence.latencies.entry(key).or_default();
            (0..users).for_each(|_| sketch.add(ratio * (0.5 * random.normal()).exp()));
        }
    }
    evidence
}

/// A judge that saw `seconds` intervals of 47 users beside 3.
fn judged(spec: &JudgeSpec, seed: u64, seconds: u32, ratio: f64, errors: f64) -> Judge {
    let mut random = Random(seed);
    let mut judge = Judge::new(spec, 0.025);
    for _ in 0..seconds {
        let stable = interval(&mut random, 47, 1.0, 1e-4);
        let canary = interval(&mut random, 3, ratio, errors);
        judge.observe(&stable, &canary);
    }
    judge
}

fn text(assessment: &Assessment) -> String {
    let lines: Vec<String> = assessment.metrics.iter().map(ToString::to_string).collect();
    format!("{:?}\n{}", assessment.verdict, lines.join("\n"))
}

#[test]
fn a_version_that_is_no_worse_passes_with_the_margins_told() {
    let judge = judged(&JudgeSpec::default(), 1, 240, 1.0, 1e-4);
    insta::assert_snapshot!(text(&judge.assess()), @r#"
    Pass
    error rate is between 0.2 points lower and 0.5 points higher, within the margin of 1 point
    refusal rate is between 2.5 points lower and 2.5 points higher, within the margin of 5 points
    truncation rate is between 2.5 points lower and 1 point higher, within the margin of 5 points
    empty-answer rate is between 2.5 points lower and 1 point higher, within the margin of 5 points
    p95 time to first token is between 6% lower and 15% higher, within the margin of 25%
    p95 inter-token latency is between 9% lower and 15% higher, within the margin of 25%
    p95 end-to-end latency is between 15% lower and 6% higher, within the margin of 25%
    "#);
}

#[test]
fn a_version_that_is_half_as_slow_again_fails_within_a_minute_and_says_by_how_much() {
    let judge = judged(&JudgeSpec::default(), 2, 60, 1.5, 1e-4);
    insta::assert_snapshot!(judge.assess().to_string(), @"p95 time to first token is 32% to 61% higher, above the 10% that is tolerated: 3.42 s beside 2.26 s; p95 inter-token latency is 24% to 88% higher, above the 10% that is tolerated: 3.7 s beside 2.3 s; p95 end-to-end latency is 15% to 88% higher, above the 10% that is tolerated: 3.49 s beside 2.26 s");
}

#[test]
fn a_version_that_is_a_little_slower_passes_by_the_margin_and_is_called_slower() {
    let assessment = judged(&JudgeSpec::default(), 3, 600, 1.1, 1e-4).assess();
    insta::assert_snapshot!(text(&assessment), @r#"
    Pass
    error rate is between 0.2 points lower and 0.2 points higher, within the margin of 1 point
    refusal rate is between 1 point lower and 2.5 points higher, within the margin of 5 points
    truncation rate is between 2.5 points lower and 1 point higher, within the margin of 5 points
    empty-answer rate is between 1 point lower and 1 point higher, within the margin of 5 points
    p95 time to first token is between 2% lower and 15% higher, within the margin of 25%
    p95 inter-token latency is between 2% lower and 15% higher, within the margin of 25%
    p95 end-to-end latency is 2% to 20% higher, within the margin of 25%
    "#);
}

#[test]
fn nothing_seen_is_no_pass() {
    let judge = Judge::new(&JudgeSpec::default(), 0.025);
    let assessment = judge.assess();
    assert_eq!(assessment.verdict, Verdict::Insufficient);
    assert_eq!(assessment.metrics.len(), 1, "only errors are waited for");
    insta::assert_snapshot!(
        assessment.to_string(),
        @"error rate is not known yet, not surely within the margin of 1 point after 0 samples"
    );
}

/// An interval with errors alone.
fn only_errors(trials: u64, events: u64) -> VersionEvidence {
    let rates = [(Rate::Error, Count { trials, events })].into();
    let (failed, failed_users) = (events, events);
    VersionEvidence {
        requests: trials,
        failed,
        failed_users,
        users: trials,
        rates,
        ..VersionEvidence::default()
    }
}

#[test]
fn two_users_with_an_error_against_none_are_enough_at_a_twentieth_of_the_traffic_and_one_is_not() {
    let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
    (0..30).for_each(|_| judge.observe(&only_errors(57, 0), &only_errors(3, 0)));
    judge.observe(&only_errors(57, 0), &only_errors(3, 1));
    assert_eq!(judge.assess().verdict, Verdict::Insufficient);
    judge.observe(&only_errors(57, 0), &only_errors(3, 1));
    assert_eq!(judge.assess().verdict, Verdict::Fail);
    assert_eq!(judge.assess().to_string(), "error rate is surely higher: 2.08% beside 0%");
}

#[test]
fn an_error_of_a_version_with_hardly_any_traffic_fails_it_not_yet() {
    let mut judge = Judge::new(&JudgeSpec::default(), 0.05);
    judge.observe(&only_errors(100_000, 0), &only_errors(2, 1));
    assert_eq!(judge.assess().verdict, Verdict::Insufficient);
}

#[test]
fn what_both_versions_lack_is_not_waited_for_and_what_one_lacks_is() {
    let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
    (0..400).for_each(|_| judge.observe(&only_errors(47, 0), &only_errors(3, 0)));
    assert_eq!(judge.assess().verdict, Verdict::Pass);
    let mut stable = only_errors(1, 0);
    let key = LatencyKey { latency: Latency::InterToken, stratum: Stratum::default() };
    stable.latencies.entry(key).or_default().add(0.02);
    judge.observe(&stable, &VersionEvidence::default());
    assert_eq!(judge.assess().verdict, Verdict::Insufficient);
}

#[test]
fn too_many_errors_hit_the_guard_also_where_the_stable_version_has_them_too() {
    let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
    (0..5).for_each(|_| judge.observe(&only_errors(3, 2), &only_errors(3, 2)));
    let assessment = judge.assess();
    assert!(assessment.guard_hit && assessment.verdict == Verdict::Fail);
    insta::assert_snapshot!(assessment.to_string(), @"66.67% of the requests fail, surely above the guard");
}

#[test]
fn the_guard_waits_until_it_is_sure_and_counts_requests_that_are_not_answered_yet() {
    let hit = |requests: u64, failed: u64, users: u64| {
        let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
        let seen = VersionEvidence { requests, failed, failed_users: users, ..VersionEvidence::default() };
        judge.observe(&VersionEvidence::default(), &seen);
        judge.assess().guard_hit
    };
    assert!(hit(3, 3, 3) && !hit(3, 3, 2), "three users");
    assert!(!hit(9, 3, 3) && hit(90, 40, 20), "a third may be chance at first");
    assert!(!hit(40, 4, 4), "quick failures among requests under way");
}

#[test]
fn errors_of_both_versions_at_a_time_are_no_difference() {
    let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
    (0..60).for_each(|_| judge.observe(&only_errors(95, 0), &only_errors(5, 0)));
    (0..60).for_each(|_| judge.observe(&only_errors(95, 19), &only_errors(5, 1)));
    assert_eq!(judge.assess().verdict, Verdict::Insufficient);
}

#[test]
fn quality_is_waited_for_where_it_is_wanted() {
    let spec = JudgeSpec { quality: Some(QualitySpec::default()), ..JudgeSpec::default() };
    let mut judge = judged(&spec, 1, 240, 1.0, 1e-4);
    assert_eq!(judge.assess().verdict, Verdict::Insufficient);
    (0..100).for_each(|index| judge.observe_quality(f64::from(index % 5) * 0.1 - 0.2));
    assert_eq!(judge.assess().verdict, Verdict::Pass);
    (0..300).for_each(|_| judge.observe_quality(2.0));
    assert_eq!(judge.assess().verdict, Verdict::Fail);
}

#[test]
fn times_that_are_all_alike_can_be_told_apart_in_both_directions() {
    let alike = |users: u64, seconds: f64| {
        let mut evidence = only_errors(users, 0);
        let key = LatencyKey { latency: Latency::InterToken, stratum: Stratum::default() };
        let sketch = evidence.latencies.entry(key).or_default();
        (0..users).for_each(|_| sketch.add(seconds));
        evidence
    };
    for (seconds, expected) in [(0.02, Verdict::Pass), (0.015, Verdict::Pass), (0.03, Verdict::Fail)] {
        let mut judge = Judge::new(&JudgeSpec::default(), 0.025);
        (0..200).for_each(|_| judge.observe(&alike(47, 0.02), &alike(3, seconds)));
        assert_eq!(judge.assess().verdict, expected, "{seconds}");
    }
}

#[test]
fn a_judge_that_was_written_down_goes_on_as_if_it_had_not_been_away() {
    let spec = JudgeSpec { quality: Some(QualitySpec::default()), ..JudgeSpec::default() };
    let mut judge = judged(&spec, 5, 50, 1.3, 0.01);
    judge.observe_quality(0.1);
    let text = serde_json::to_string(&judge).expect("JSON");
    assert!(text.len() < 30_000, "{} bytes", text.len());
    let mut again: Judge = serde_json::from_str(&text).expect("a judge");
    assert_eq!(again, judge);
    let mut random = Random(9);
    for _ in 0..50 {
        let (stable, canary) = (interval(&mut random, 47, 1.0, 0.0), interval(&mut random, 3, 1.3, 0.0));
        judge.observe(&stable, &canary);
        again.observe(&stable, &canary);
    }
    assert_eq!(again.assess(), judge.assess());
    let assessment = serde_json::to_value(judge.assess()).expect("JSON");
    let metrics = assessment["metrics"].as_array().expect("metrics");
    assert!(metrics.iter().all(|metric| metric["low"].is_f64() && metric["high"].is_f64()), "{assessment}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn in_which_order_gateways_are_heard_leads_to_no_bounds_that_contradict_each_other(seed in any::<u64>()) {
        let mut random = Random(seed);
        let spec = JudgeSpec::default();
        let (mut one, mut other) = (Judge::new(&spec, 0.025), Judge::new(&spec, 0.025));
        for _ in 0..60 {
            let mut both = [0, 1].map(|_| {
                (interval(&mut random, 47, 1.0, 1e-4), interval(&mut random, 3, 1.3, 1e-4))
            });
            both.iter().for_each(|(stable, canary)| one.observe(stable, canary));
            both.reverse();
            both.iter().for_each(|(stable, canary)| other.observe(stable, canary));
        }
        for (one, other) in one.assess().metrics.iter().zip(&other.assess().metrics) {
            prop_assert_eq!(one.canary, other.canary);
            prop_assert_eq!(one.samples, other.samples);
            // Which of them share a block depends on it, and with that how sure one is; what is true does not.
            prop_assert!(one.low <= other.high && other.low <= one.high, "{} and {}", one, other);
        }
    }
}
