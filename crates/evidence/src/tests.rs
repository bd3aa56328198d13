use proptest::prelude::*;

use super::*;

fn seen(user: u64) -> Seen {
    Seen {
        user,
        failed: false,
        refused: false,
        whole: true,
        truncated: false,
        empty: false,
        uncached_tokens: 100,
        time_to_first_token_s: Some(0.1),
        inter_token_s: Some(0.02),
        end_to_end_s: Some(1.0),
    }
}

#[test]
fn a_user_gives_one_sample_a_latency_and_a_rate_however_much_is_asked() {
    let mut ledger = Ledger::new("r/1", 10);
    ledger.begin("1");
    ledger.record("1", &Seen { time_to_first_token_s: None, inter_token_s: None, ..seen(7) });
    for _ in 0..5 {
        ledger.record("1", &seen(7));
    }
    for _ in 0..5 {
        ledger.record("1", &Seen { failed: true, ..seen(7) });
    }
    let evidence = &ledger.evidence().versions["1"].clone();
    assert_eq!((evidence.requests, evidence.users), (1, 1));
    for rate in Rate::ALL {
        assert_eq!(evidence.rate(rate), Count { trials: 1, events: 0 }, "{rate:?}");
    }
    assert_eq!((evidence.failed, evidence.failed_users), (5, 1), "those are for the absolute guard");
    for latency in Latency::ALL {
        assert_eq!(evidence.latency(latency).count(), 1, "{latency:?}");
    }
}

#[test]
fn a_step_that_has_heard_enough_users_hears_no_more() {
    let mut ledger = Ledger::new("r/1", 2);
    (0..5).for_each(|user| ledger.record("1", &seen(user)));
    ledger.record("1", &seen(0));
    ledger.record("1", &Seen { failed: true, ..seen(9) });
    let evidence = ledger.evidence().versions["1"].clone();
    assert_eq!((evidence.users, evidence.failed, evidence.failed_users), (2, 1, 0));
    // The same user may be asked to compare versions.
    ledger.record("2", &seen(0));
    assert_eq!(ledger.evidence().versions["2"].latency(Latency::EndToEnd).count(), 1);
}

#[test]
fn times_are_kept_apart_by_how_much_had_to_be_computed() {
    let strata = [0, 63, 64, 255, 1_024, 1 << 40].map(Stratum::of_uncached_tokens);
    assert!(strata[0] == strata[1] && strata[1] < strata[2] && strata[2] == strata[3]);
    let mut ledger = Ledger::new("r/1", 10);
    ledger.record("1", &seen(1));
    ledger.record("1", &Seen { uncached_tokens: 5_000, ..seen(2) });
    let keys: Vec<_> = ledger.evidence().versions["1"].latencies.keys().map(ToString::to_string).collect();
    assert_eq!(
        keys,
        [
            "time_to_first_token/1",
            "time_to_first_token/4",
            "inter_token_latency/0",
            "end_to_end_latency/1",
            "end_to_end_latency/4"
        ]
    );
}

#[test]
fn what_nobody_waited_for_is_known_as_far_as_it_came() {
    let mut ledger = Ledger::new("r/1", 10);
    ledger.record("1", &Seen { refused: true, ..seen(1) });
    ledger.record("1", &Seen { whole: false, inter_token_s: None, ..seen(1) });
    let evidence = ledger.evidence().versions["1"].clone();
    assert_eq!(evidence.rate(Rate::Refused), Count { trials: 1, events: 1 });
    assert_eq!(evidence.rate(Rate::Error), Count { trials: 1, events: 0 });
    assert_eq!(evidence.rate(Rate::Truncated), Count::default());
    let counts = Latency::ALL.map(|latency| evidence.latency(latency).count());
    assert_eq!(counts, [1, 0, 1]);
}

#[test]
fn evidence_survives_json() {
    let mut ledger = Ledger::new("r/1", 10);
    ledger.record("1", &seen(1));
    let json = serde_json::to_string(&ledger.evidence()).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&json).unwrap(), ledger.evidence());
    assert!("time_to_first_token/9".parse::<LatencyKey>().is_err());
    assert!("ttft/0".parse::<LatencyKey>().is_err());
}

#[test]
fn odd_times_lie_in_the_outermost_buckets() {
    for odd in [f64::NAN, f64::NEG_INFINITY, -1.0, 0.0] {
        assert_eq!(Sketch::bucket(odd), 0, "{odd}");
    }
    assert_eq!(Sketch::bucket(f64::INFINITY), Sketch::bucket(1e12));
}

proptest! {
    #[test]
    fn a_quantile_is_known_to_a_bucket(mut times in prop::collection::vec(1e-4..100.0f64, 1..200), q in 0.0..1.0f64) {
        let mut sketch = Sketch::default();
        times.iter().for_each(|time| sketch.add(*time));
        times.sort_by(f64::total_cmp);
        let rank = ((q * times.len() as f64).ceil() as usize).max(1) - 1;
        let found = sketch.quantile(q).unwrap();
        prop_assert!((found / times[rank]).ln().abs() <= RATIO.ln() + 1e-9, "{found} {}", times[rank]);
        let bucket = Sketch::bucket(times[rank]);
        prop_assert!(Sketch::begin(bucket) <= times[rank] * (1.0 + 1e-12));
        prop_assert!(times[rank] <= Sketch::begin(bucket + 1) * (1.0 + 1e-12));
    }

    #[test]
    fn two_readings_subtracted_and_added_again_are_the_later_one(
        first in prop::collection::vec((0u64..20, any::<bool>(), 1e-4..10.0f64), 0..40),
        then in prop::collection::vec((0u64..20, any::<bool>(), 1e-4..10.0f64), 0..40),
    ) {
        let mut ledger = Ledger::new("r/1", 100);
        let mut record = |events: &[(u64, bool, f64)]| {
            for (user, failed, time) in events {
                ledger.begin("1");
                ledger.record("1", &Seen { failed: *failed, end_to_end_s: Some(*time), ..seen(*user) });
            }
            ledger.evidence().versions.get("1").cloned().unwrap_or_default()
        };
        let (early, late) = (record(&first), record(&then));
        let mut sum = early.clone();
        sum.merge(&late.since(&early));
        prop_assert_eq!(sum, late);
    }
}
