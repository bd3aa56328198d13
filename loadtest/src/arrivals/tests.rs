use proptest::prelude::*;
use scenario::{Arrivals, Step};

use super::*;

fn schedule(arrivals: &Arrivals, seed: u64, limit: Limit) -> Schedule {
    match Pace::new(arrivals, seed, limit, Vec::new()).expect("in range") {
        Pace::Open(schedule) => schedule,
        Pace::Closed(_) => panic!("not a schedule"),
    }
}

fn requests(requests: u64) -> Limit {
    Limit { requests: Some(requests), duration_us: None }
}

fn seconds(seconds: u64) -> Limit {
    Limit { requests: None, duration_us: Some(seconds * 1_000_000) }
}

/// The gaps, from the start to the first one among them.
fn gaps_s(arrivals: &Arrivals, seed: u64, count: u64) -> Vec<f64> {
    let mut before_us = 0;
    let gap = |due: Due| {
        let gap_us = due.at_us - std::mem::replace(&mut before_us, due.at_us);
        gap_us as f64 / 1e6
    };
    schedule(arrivals, seed, requests(count)).map(gap).collect()
}

/// Mean, and standard deviation over mean.
fn mean_and_cv(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt() / mean)
}

const DRAWS: u64 = 20_000;

/// Whether a mean of [`DRAWS`] values is within five standard errors of what it should be.
fn is_near(found: f64, expected: f64, cv: f64) -> bool {
    (found - expected).abs() < 5.0 * expected * cv / (DRAWS as f64).sqrt()
}

#[test]
fn constant_gaps_are_all_the_same_and_never_drift() {
    let due: Vec<u64> =
        schedule(&Arrivals::Constant { rate: 3.0 }, 1, requests(3_001)).map(|due| due.at_us).collect();
    assert_eq!(due[..4], [0, 333_333, 666_667, 1_000_000]);
    assert_eq!(due[3_000], 1_000_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn poisson_gaps_have_the_mean_and_the_variance_of_an_exponential(seed: u64, rate in 0.5_f64..2_000.0) {
        let (mean, cv) = mean_and_cv(&gaps_s(&Arrivals::Poisson { rate }, seed, DRAWS));
        prop_assert!(is_near(mean, 1.0 / rate, 1.0), "{mean} for a rate of {rate}");
        prop_assert!((cv - 1.0).abs() < 0.06, "{cv}");
    }

    #[test]
    fn gamma_gaps_have_the_mean_and_the_variation_that_were_asked_for(
        seed: u64, rate in 0.5_f64..500.0, cv in 0.1_f64..3.0,
    ) {
        let (mean, found) = mean_and_cv(&gaps_s(&Arrivals::Gamma { rate, cv }, seed, DRAWS));
        prop_assert!(is_near(mean, 1.0 / rate, cv), "{mean} for a rate of {rate}");
        // The fourth moment of a gamma distribution gives the spread of its sample variance.
        let spread = ((2.0 + 6.0 * cv * cv) / DRAWS as f64).sqrt() / 2.0;
        prop_assert!((found - cv).abs() < 6.0 * cv * spread, "{found} for {cv}");
    }

    #[test]
    fn a_ramps_count_is_its_integral(seed: u64, from in 0.0_f64..200.0, to in 0.0_f64..200.0) {
        let arrivals = Arrivals::Ramp { from, to };
        let due: Vec<u64> = schedule(&arrivals, seed, seconds(100)).map(|due| due.at_us).collect();
        prop_assert!(due.is_sorted());
        for part in 1..=4_u64 {
            let until_s = 25.0 * part as f64;
            let expected = from * until_s + (to - from) * until_s * until_s / 200.0;
            let found = due.iter().filter(|at_us| **at_us < part * 25_000_000).count() as f64;
            prop_assert!((found - expected).abs() < 6.0 * expected.sqrt() + 6.0, "{found} for {expected}");
        }
    }

    #[test]
    fn a_ramp_is_as_irregular_as_poisson_at_each_of_its_rates(
        seed: u64, from in 0.0_f64..200.0, to in 100.0_f64..200.0,
    ) {
        // Measured in requests that are expected instead of seconds, its gaps are those of Poisson at a rate of 1.
        let expected_until = |at_s: f64| from * at_s + (to - from) * at_s * at_s / 200.0;
        let due = schedule(&Arrivals::Ramp { from, to }, seed, seconds(100));
        let expected: Vec<f64> = due.map(|due| expected_until(due.at_us as f64 / 1e6)).collect();
        let gaps: Vec<f64> = expected.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (mean, cv) = mean_and_cv(&gaps);
        let standard_error = 1.0 / (gaps.len() as f64).sqrt();
        prop_assert!((mean - 1.0).abs() < 6.0 * standard_error, "{mean}");
        prop_assert!((cv - 1.0).abs() < 7.0 * standard_error, "{cv}");
    }

    #[test]
    fn steps_have_their_own_rates_and_end_with_the_last(
        seed: u64, rates in prop::collection::vec(0.0_f64..300.0, 1..6),
    ) {
        let steps: Vec<Step> = rates.iter().map(|rate| Step { rate: *rate, duration_s: 20.0 }).collect();
        let due: Vec<u64> =
            schedule(&Arrivals::Steps { steps }, seed, Limit::default()).map(|due| due.at_us).collect();
        prop_assert!(due.is_sorted());
        for (index, rate) in rates.iter().enumerate() {
            let start_us = index as u64 * 20_000_000;
            let within = |at_us: &&u64| (start_us..start_us + 20_000_000).contains(*at_us);
            let (found, expected) = (due.iter().filter(within).count() as f64, rate * 20.0);
            prop_assert!((found - expected).abs() < 6.0 * expected.sqrt() + 6.0, "{found} for {expected}");
        }
        prop_assert!(due.last().is_none_or(|at_us| *at_us <= rates.len() as u64 * 20_000_000));
    }

    #[test]
    fn shards_together_are_the_whole(seed: u64, count in 1_u32..9, cv in 0.2_f64..2.0) {
        let whole: Vec<Due> = schedule(&Arrivals::Gamma { rate: 100.0, cv }, seed, requests(500)).collect();
        let part = |index| {
            let part = schedule(&Arrivals::Gamma { rate: 100.0, cv }, seed, requests(500));
            part.shard(Shard { index, count })
        };
        let mut together: Vec<Due> = (0..count).flat_map(part).collect();
        together.sort_by_key(|due| due.index);
        prop_assert_eq!(&together, &whole);
        for index in 0..count {
            prop_assert_eq!(part(index).count() as u64, Shard { index, count }.share(500));
        }
    }

    #[test]
    fn shards_of_a_closed_loop_share_its_users_and_its_indexes(
        count in 1_u32..9, users in 1_u32..50, limit in 1_u64..200,
    ) {
        let users_of_all = ClosedLoop::without_pauses(users, Limit::default());
        let sum: u64 = (0..count).map(|index| users_of_all.users_of(Shard { index, count })).sum();
        prop_assert_eq!(sum, u64::from(users));
        let indexes = |index| {
            let shard = Shard { index, count };
            (0..shard.share(limit)).map(move |nth| shard.global(nth))
        };
        let mut together: Vec<u64> = (0..count).flat_map(indexes).collect();
        together.sort_unstable();
        prop_assert_eq!(together, (0..limit).collect::<Vec<u64>>());
    }

    #[test]
    fn thinking_has_the_mean_that_was_asked_for(seed: u64, think_time_s in 0.01_f64..100.0) {
        let arrivals = Arrivals::ClosedLoop { users: 1, think_time_s };
        let Ok(Pace::Closed(users)) = Pace::new(&arrivals, seed, Limit::default(), Vec::new()) else {
            panic!("not a closed loop");
        };
        let pauses: Vec<f64> =
            (0..DRAWS).map(|index| (users.due_us(index, 0, 1_000) - 1_000) as f64 / 1e6).collect();
        let (mean, cv) = mean_and_cv(&pauses);
        prop_assert!(is_near(mean, think_time_s, 1.0), "{mean} for {think_time_s}");
        prop_assert!((cv - 1.0).abs() < 0.06, "{cv}");
    }
}

#[test]
fn a_schedule_depends_on_the_seed_alone() {
    let due = |seed| schedule(&Arrivals::Poisson { rate: 10.0 }, seed, requests(50)).collect::<Vec<Due>>();
    assert_eq!(due(7), due(7));
    assert_ne!(due(7), due(8));
}

#[test]
fn a_schedule_ends_at_its_limit() {
    let constant = Arrivals::Constant { rate: 2.0 };
    assert_eq!(schedule(&constant, 0, requests(5)).count(), 5);
    assert_eq!(schedule(&constant, 0, seconds(3)).count(), 6);
    let both = Limit { requests: Some(4), ..seconds(3) };
    assert_eq!(schedule(&constant, 0, both).count(), 4);
    let both = Limit { requests: Some(40), ..seconds(3) };
    assert_eq!(schedule(&constant, 0, both).count(), 6);
}

#[test]
fn a_trace_is_replayed_at_its_times_and_at_its_speed() {
    let trace = |speed, times_us: Vec<u64>| {
        let arrivals = Arrivals::Trace { path: "trace.csv".into(), speed };
        Pace::new(&arrivals, 0, Limit::default(), times_us)
    };
    let times = |pace| match pace {
        Ok(Pace::Open(schedule)) => schedule.map(|due| due.at_us).collect::<Vec<u64>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(times(trace(1.0, vec![0, 5, 5, 900])), [0, 5, 5, 900]);
    assert_eq!(times(trace(2.0, vec![0, 5, 5, 900])), [0, 3, 3, 450]);
    assert!(trace(1.0, vec![5, 4]).expect_err("goes back").to_string().contains("must not go back"));
}

#[test]
fn a_closed_loops_request_is_due_when_its_user_is_free() {
    let users = ClosedLoop::without_pauses(3, requests(10));
    assert_eq!((users.due_us(0, 0, 0), users.due_us(7, 0, 1_234)), (0, 1_234));
    assert_eq!(users.users_of(Shard::WHOLE), 3);
    assert_eq!(ClosedLoop::without_pauses(30, requests(10)).users_of(Shard::WHOLE), 10);
}

#[test]
fn no_request_is_due_past_the_limit() {
    assert!(requests(10).allows(9, 0) && !requests(10).allows(10, 0));
    assert!(seconds(1).allows(1_000_000, 999_999) && !seconds(1).allows(0, 1_000_000));
}

#[test]
fn what_makes_no_schedule_is_refused_by_name() {
    let refused =
        |arrivals| Pace::new(&arrivals, 0, requests(1), Vec::new()).expect_err("refused").to_string();
    assert_eq!(refused(Arrivals::Constant { rate: 0.0 }), "rate must be a number above 0, but is 0");
    assert!(refused(Arrivals::Poisson { rate: f64::NAN }).starts_with("rate must"));
    assert!(refused(Arrivals::Gamma { rate: 1.0, cv: -1.0 }).starts_with("cv must"));
    assert_eq!(refused(Arrivals::Ramp { from: 1.0, to: 2.0 }), "a ramp needs duration_s");
    let steps = vec![Step { rate: 1.0, duration_s: 0.0 }];
    assert!(refused(Arrivals::Steps { steps }).starts_with("a step's duration_s must"));
    assert!(refused(Arrivals::ClosedLoop { users: 1, think_time_s: -1.0 }).starts_with("think_time_s must"));
}
