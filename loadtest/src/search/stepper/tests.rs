use proptest::prelude::*;

use super::*;

/// Runs a search against a made-up target; the rates that were run, and what was found.
fn search(settings: Settings, mut target: impl FnMut(f64) -> Outcome) -> (Vec<f64>, SearchState) {
    settings.validate().expect("sound");
    let mut state = SearchState::new(settings);
    let mut rates = Vec::new();
    while let Some(rate) = state.next() {
        rates.push(rate);
        state.observe(rate, target(rate));
    }
    (rates, state)
}

fn once() -> Settings {
    Settings { repeats: 1, ..Settings::default() }
}

fn met_up_to(truth: f64) -> impl FnMut(f64) -> Outcome {
    move |rate| if rate <= truth { Outcome::Met } else { Outcome::Missed }
}

#[test]
fn the_rate_grows_until_it_misses_and_is_halved_between() {
    let (rates, state) = search(Settings { resolution: 0.1, ..once() }, met_up_to(11.0));
    assert_eq!(rates, [1.0, 2.0, 4.0, 8.0, 16.0, 12.0, 10.0, 11.0, 11.0], "the last one confirms");
    let found = state.found();
    assert_eq!((found.rate, found.above, found.limit), (Some(11.0), Some(12.0), Some(Limit::Target)));
    assert!(found.complete);
}

#[test]
fn a_start_that_misses_is_divided_until_it_meets() {
    let (rates, state) = search(Settings { start: 8.0, resolution: 0.5, ..once() }, met_up_to(1.5));
    assert_eq!(rates[..4], [8.0, 4.0, 2.0, 1.0]);
    assert_eq!(state.found().rate, Some(1.0));
}

#[test]
fn a_target_that_meets_nothing_ends_at_the_least_rate() {
    let (rates, state) = search(Settings { rate_min: 0.3, ..once() }, |_| Outcome::Missed);
    assert_eq!(rates, [1.0, 0.5, 0.3]);
    let found = state.found();
    assert_eq!((found.rate, found.above, found.complete), (None, Some(0.3), true));
}

#[test]
fn a_target_that_meets_everything_ends_at_the_greatest_rate() {
    let (rates, state) = search(Settings { rate_max: 3.0, ..once() }, |_| Outcome::Met);
    assert_eq!(rates, [1.0, 2.0, 3.0, 3.0]);
    let found = state.found();
    assert_eq!((found.rate, found.above, found.limit), (Some(3.0), None, Some(Limit::RateMax)));
}

#[test]
fn a_tester_that_cannot_keep_up_ends_the_search_upward_and_passes_nothing() {
    let tester = |rate: f64| if rate < 100.0 { Outcome::Met } else { Outcome::Invalid };
    let (_, state) = search(Settings::default(), tester);
    let found = state.found();
    assert_eq!(found.limit, Some(Limit::Tester));
    assert!(found.rate.is_some_and(|rate| (94.0..100.0).contains(&rate)), "{found:?}");
}

#[test]
fn a_rate_is_decided_as_soon_as_most_runs_agree() {
    let tally = |met, missed, invalid, votes_max| Tally { rate: 1.0, met, missed, invalid, votes_max };
    assert_eq!(tally(1, 0, 0, 3).decision(), None);
    assert_eq!(tally(2, 0, 0, 3).decision(), Some(true));
    assert_eq!(tally(1, 1, 0, 3).decision(), None);
    assert_eq!(tally(1, 1, 1, 3).decision(), Some(false));
    // Of an even number, half is not most.
    assert_eq!(tally(1, 1, 0, 2).decision(), Some(false));
    let (rates, _) = search(Settings { rate_max: 1.0, ..Settings::default() }, |_| Outcome::Met);
    assert_eq!(rates.len(), 4, "two of three decide, and four of six confirm");
}

#[test]
fn a_lucky_rate_is_found_out_when_it_is_run_again() {
    // The truth is 5, but the first runs at 8 are lucky.
    let mut lucky = 2;
    let target = |rate: f64| {
        let luck = (rate - 8.0).abs() < 1e-9 && lucky > 0;
        lucky -= i32::from(luck);
        if rate <= 5.0 || luck { Outcome::Met } else { Outcome::Missed }
    };
    let (_, state) = search(Settings::default(), target);
    let found = state.found();
    assert!(found.rate.is_some_and(|rate| (4.7..=5.0).contains(&rate)), "{found:?}");
    assert!(found.complete);
}

#[test]
fn a_search_out_of_runs_still_says_what_it_found() {
    let (rates, state) = search(Settings { runs_max: 6, ..once() }, met_up_to(11.0));
    assert_eq!(rates.len(), 6);
    let found = state.found();
    assert_eq!((found.rate, found.above, found.complete), (Some(8.0), Some(12.0), false));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |settings: Settings| settings.validate().expect_err("refused").to_string();
    assert!(refused(Settings { start: 0.0, ..once() }).contains("rate-min"));
    assert!(refused(Settings { rate_max: 0.5, ..once() }).contains("rate-max"));
    assert!(refused(Settings { growth: 1.0, ..once() }).contains("growth"));
    assert!(refused(Settings { resolution: f64::NAN, ..once() }).contains("resolution"));
    assert!(refused(Settings { repeats: 0, ..once() }).contains("repeats"));
}

proptest! {
    /// Runs are certain away from the truth and random within `noise` of it.
    #[test]
    fn the_found_rate_is_within_resolution_and_noise_of_the_truth(
        truth in 0.02_f64..50_000.0,
        start in 0.01_f64..1_000.0,
        growth in 1.2_f64..4.0,
        resolution in 0.01_f64..0.3,
        noise in 0.0_f64..0.2,
        repeats in 1_u32..6,
        coins in any::<u64>(),
    ) {
        let settings = Settings { start, growth, resolution, repeats, runs_max: 10_000, ..Settings::default() };
        let mut coins = coins;
        let (rates, state) = search(settings, |rate| {
            coins = coins.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let certain = (rate - truth).abs() > noise * truth;
            let met = if certain { rate < truth } else { coins >> 63 == 1 };
            if met { Outcome::Met } else { Outcome::Missed }
        });
        let found = state.found();
        prop_assert!(found.complete, "{:?}", found);
        let rate = found.rate.expect("the least rate is met");
        prop_assert!(rate <= truth * (1.0 + noise) * 1.000_001, "{} of {}", rate, truth);
        // The rate above is not certainly met, and the bracket is within the resolution.
        let least = (truth * (1.0 - noise) * (1.0 - resolution)).min(settings.rate_max);
        prop_assert!(rate >= least * 0.999_999, "{} of {}", rate, truth);
        prop_assert!(rates.iter().all(|rate| (settings.rate_min..=settings.rate_max).contains(rate)));
    }

    #[test]
    fn a_search_always_ends_whatever_it_sees(
        outcomes in proptest::collection::vec(0_u8..3, 0..400),
        repeats in 1_u32..6,
        runs_max in 1_u32..300,
    ) {
        let settings = Settings { repeats, runs_max, ..Settings::default() };
        let mut seen = outcomes.into_iter().cycle();
        let (rates, state) = search(settings, |_| match seen.next() {
            Some(0) => Outcome::Met,
            Some(1) => Outcome::Missed,
            _ => Outcome::Invalid,
        });
        prop_assert!(rates.len() <= runs_max as usize);
        let found = state.found();
        if let (Some(rate), Some(above)) = (found.rate, found.above) {
            prop_assert!(rate < above);
        }
    }
}
