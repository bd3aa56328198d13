use proptest::prelude::*;

use super::*;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn healthy() -> Health {
    let mut health = Health::new(&HealthConfig::default());
    health.on_probe(at(0), ProbeResult::Ready);
    assert_eq!(health.state(at(0)), HealthState::Healthy);
    health
}

/// The whole seconds after `start` at which a worker with nothing but good probes is healthy again.
fn seconds_out(health: &mut Health, start: u64) -> u64 {
    (0..1_000)
        .find(|second| {
            health.on_probe(at(start + second), ProbeResult::Ready);
            health.state(at(start + second)) == HealthState::Healthy
        })
        .expect("a worker with good probes returns")
}

#[test]
fn a_worker_is_unknown_until_its_first_good_probe_or_answer() {
    let mut health = Health::new(&HealthConfig { probe_successes_min: 3, ..HealthConfig::default() });
    assert_eq!(health.state(at(0)), HealthState::Unknown);
    let mut probed = health.clone();
    probed.on_probe(at(1), ProbeResult::Ready);
    assert_eq!(probed.state(at(1)), HealthState::Healthy);
    health.on_outcome(at(1), Outcome::Success);
    assert_eq!(health.state(at(1)), HealthState::Healthy);
}

#[test]
fn a_refused_connection_takes_a_worker_out_at_once() {
    let mut health = healthy();
    health.on_outcome(at(5), Outcome::ConnectFailed);
    assert_eq!(health.state(at(5)), HealthState::Unhealthy);
}

#[test]
fn other_failures_take_a_worker_out_only_when_five_come_in_a_row() {
    for failure in [Outcome::BrokenOff, Outcome::ServerError] {
        let mut health = healthy();
        for _ in 0..10 {
            (0..4).for_each(|_| health.on_outcome(at(1), failure));
            health.on_outcome(at(1), Outcome::Success);
        }
        (0..4).for_each(|_| health.on_outcome(at(1), failure));
        assert_eq!(health.state(at(1)), HealthState::Healthy);
        health.on_outcome(at(1), failure);
        assert_eq!(health.state(at(1)), HealthState::Unhealthy);
    }
}

#[test]
fn good_probes_do_not_hide_that_requests_fail() {
    let mut health = healthy();
    for second in 1..=5 {
        health.on_probe(at(second), ProbeResult::Ready);
        health.on_outcome(at(second), Outcome::ServerError);
    }
    assert_eq!(health.state(at(5)), HealthState::Unhealthy);
}

#[test]
fn three_failed_probes_take_a_worker_out_unless_it_answers_requests_meanwhile() {
    let mut silent = healthy();
    let mut busy = healthy();
    for second in 1..=3 {
        assert_eq!(silent.state(at(second)), HealthState::Healthy);
        silent.on_probe(at(second), ProbeResult::Failed);
        busy.on_probe(at(second), ProbeResult::Failed);
        busy.on_outcome(at(second), Outcome::Success);
    }
    assert_eq!(silent.state(at(3)), HealthState::Unhealthy);
    assert_eq!(busy.state(at(3)), HealthState::Healthy);
}

#[test]
fn a_full_worker_is_not_a_failing_one() {
    let mut health = healthy();
    (0..1_000).for_each(|_| health.on_outcome(at(1), Outcome::Overloaded));
    assert_eq!(health.state(at(1)), HealthState::Healthy);
}

#[test]
fn a_flapping_worker_stays_out_twice_as_long_each_time_up_to_a_minute() {
    let mut health = healthy();
    let mut now = 1;
    let mut times_out = Vec::new();
    for _ in 0..8 {
        health.on_outcome(at(now), Outcome::ConnectFailed);
        let seconds = seconds_out(&mut health, now);
        times_out.push(seconds);
        now += seconds + 1;
    }
    assert_eq!(times_out, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_minute_of_good_health_forgives_former_failures() {
    let mut health = healthy();
    for now in [1, 100, 200] {
        health.on_outcome(at(now), Outcome::ConnectFailed);
        assert_eq!(seconds_out(&mut health, now), 1);
    }
}

#[test]
fn a_worker_returns_by_good_probes_and_not_by_time_or_by_a_late_answer() {
    let config = HealthConfig { probe_successes_min: 2, ..HealthConfig::default() };
    let mut health = Health::new(&config);
    health.on_probe(at(0), ProbeResult::Ready);
    health.on_outcome(at(1), Outcome::ConnectFailed);
    health.on_outcome(at(500), Outcome::Success);
    assert_eq!(health.state(at(500)), HealthState::Unhealthy);
    health.on_probe(at(500), ProbeResult::Ready);
    health.on_probe(at(501), ProbeResult::Failed);
    health.on_probe(at(502), ProbeResult::Ready);
    assert_eq!(health.state(at(502)), HealthState::Unhealthy);
    health.on_probe(at(503), ProbeResult::Ready);
    assert_eq!(health.state(at(503)), HealthState::Healthy);
}

#[test]
fn a_good_probe_during_the_ejection_counts_from_its_end() {
    let mut health = healthy();
    health.on_outcome(at(10), Outcome::ConnectFailed);
    health.on_probe(at(10), ProbeResult::Ready);
    assert_eq!(health.state(Duration::from_millis(10_999)), HealthState::Unhealthy);
    assert_eq!(health.state(at(11)), HealthState::Healthy);
}

#[test]
fn a_worker_that_loads_its_model_for_minutes_comes_in_with_its_first_good_probe() {
    let mut health = Health::new(&HealthConfig::default());
    for second in 0..300 {
        health.on_probe(at(second), ProbeResult::Failed);
        health.on_outcome(at(second), Outcome::ConnectFailed);
    }
    assert_eq!(health.state(at(300)), HealthState::Unhealthy);
    health.on_probe(at(301), ProbeResult::Ready);
    assert_eq!(health.state(at(301)), HealthState::Healthy);
}

#[test]
fn a_draining_worker_drains_until_it_says_that_it_is_ready() {
    let mut health = healthy();
    health.on_probe(at(1), ProbeResult::Draining);
    for second in 2..20 {
        health.on_probe(at(second), ProbeResult::Failed);
        health.on_outcome(at(second), Outcome::ConnectFailed);
        health.on_outcome(at(second), Outcome::Success);
        assert_eq!(health.state(at(second)), HealthState::Draining);
    }
    health.on_probe(at(20), ProbeResult::Ready);
    assert_eq!(health.state(at(20)), HealthState::Healthy);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Probe(ProbeResult),
    Outcome(Outcome),
}

#[test]
fn one_that_failed_requests_but_answers_probes_can_serve_and_one_that_refused_a_connection_cannot() {
    let mut health = healthy();
    health.on_probe(at(0), ProbeResult::Ready);
    while health.state(at(1)) == HealthState::Healthy {
        health.on_outcome(at(1), Outcome::ServerError);
    }
    assert!(health.can_serve(at(1)));
    health.on_outcome(at(1), Outcome::ConnectFailed);
    assert!(!health.can_serve(at(1)));
    health.on_probe(at(1), ProbeResult::Ready);
    assert!(health.can_serve(at(1)));
    health.on_probe(at(1), ProbeResult::Draining);
    assert!(!health.can_serve(at(1)));
    assert!(!Health::new(&HealthConfig::default()).can_serve(at(1)), "nothing was heard of it");
}

#[test]
fn silence_is_a_row_of_failed_probes_and_ends_with_a_good_one() {
    let mut health = healthy();
    let row = HealthConfig::default().probe_failures_max;
    for count in 1..=row {
        health.on_probe(at(1), ProbeResult::Failed);
        assert_eq!(health.is_silent(), count == row);
    }
    health.on_probe(at(2), ProbeResult::Ready);
    assert!(!health.is_silent());
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Probe(ProbeResult::Ready)),
        Just(Event::Probe(ProbeResult::Draining)),
        Just(Event::Probe(ProbeResult::Failed)),
        Just(Event::Outcome(Outcome::Success)),
        Just(Event::Outcome(Outcome::ConnectFailed)),
        Just(Event::Outcome(Outcome::BrokenOff)),
        Just(Event::Outcome(Outcome::ServerError)),
        Just(Event::Outcome(Outcome::Overloaded)),
    ]
}

proptest! {
    #[test]
    fn nothing_that_happens_shortens_an_ejection(
        events in prop::collection::vec((event(), 0..3_000_u64), 1..80),
    ) {
        let mut health = healthy();
        let mut now = Duration::ZERO;
        let mut out_until = Duration::ZERO;
        for (event, pause_ms) in events {
            now += Duration::from_millis(pause_ms);
            let before = health.state(now);
            match event {
                Event::Probe(result) => health.on_probe(now, result),
                Event::Outcome(outcome) => health.on_outcome(now, outcome),
            }
            let after = health.state(now);
            prop_assert!(after != HealthState::Healthy || now >= out_until, "back before {:?}", out_until);
            if before == HealthState::Healthy && after == HealthState::Unhealthy {
                out_until = now + at(1);
            }
            let left_draining = before == HealthState::Draining && after != HealthState::Draining;
            prop_assert!(!left_draining || matches!(event, Event::Probe(ProbeResult::Ready)));
        }
    }
}
