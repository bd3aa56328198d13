//! One rollout, second by second.

use super::judged::{Exposed, Flight, Judged};
use super::random::mix;
use super::rules::Rules;
use super::world::World;
use super::{Options, RunOutcome, Scenario};
use crate::weight_of_percent;

/// Simulates one rollout. The same seed gives the same world.
pub fn simulate(options: &Options, scenario: Scenario, seed: u64) -> RunOutcome {
    let mut world = World::new(options, scenario, mix(seed ^ mix(scenario as u64)));
    let mut judged = Judged::new(options);
    let mut rules = Rules::default();
    let mut exposed = Exposed::default();
    let weight = weight_of_percent(options.percent);
    let seconds = (options.minutes * 60.0) as u64;
    let mut landings: Vec<Vec<Flight>> = (0..=seconds).map(|_| Vec::new()).collect();
    for second in 1..=seconds {
        for request in world.next_second() {
            let by_rules = usize::from(request.point < weight);
            if by_rules == 1 {
                exposed.meet(request.user, second);
            }
            let by_judge = judged.version(&request, second);
            let mut fly = |version: usize, for_rules: bool, step: Option<u64>| {
                let answer = world.answer(&request, version);
                let lasts_s = if answer.failed { 0 } else { answer.times_s[2] as u64 };
                // What ends after the end is never heard of.
                if let Some(landing) = landings.get_mut((second + lasts_s) as usize) {
                    landing.push(Flight { request, version, answer, for_rules, step });
                }
            };
            match by_judge {
                Some((version, step)) if version == by_rules => fly(version, true, Some(step)),
                Some((version, step)) => {
                    fly(by_rules, true, None);
                    fly(version, false, Some(step));
                }
                None => fly(by_rules, true, None),
            }
        }
        for flight in std::mem::take(&mut landings[second as usize]) {
            if flight.for_rules {
                let time = flight.answer.times_s[2];
                rules.record(flight.version, (!flight.answer.failed).then_some(time));
            }
            judged.record(&flight);
        }
        rules.look(second, exposed.so_far(second));
        judged.look(second);
    }
    let [threshold, mann_whitney, mann_whitney_each_minute] = rules.outcomes(exposed.so_far(seconds));
    let (outcome, reason, promoted_as_better) = judged.outcome(seconds);
    RunOutcome {
        judged: outcome,
        reason,
        promoted_as_better,
        threshold,
        mann_whitney,
        mann_whitney_each_minute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Ended;

    #[test]
    fn a_version_that_is_half_as_slow_again_is_reverted_within_minutes() {
        let options = Options { minutes: 4.0, ..Options::default() };
        let run = simulate(&options, Scenario::Latency50, 1);
        assert_eq!(run.judged.ended, Ended::Reverted, "{}", run.reason);
        assert!(run.reason.contains("above the 10% that is tolerated"), "{}", run.reason);
        assert_eq!(run, simulate(&options, Scenario::Latency50, 1), "a seed is a run");
    }

    #[test]
    fn little_traffic_holds() {
        let options = Options { minutes: 2.0, ..Options::default() };
        let run = simulate(&options, Scenario::LittleTraffic, 1);
        assert_eq!(run.judged.ended, Ended::Held, "{}", run.reason);
    }

    #[test]
    fn recorded_times_take_the_place_of_made_up_ones() {
        let options = Options { minutes: 2.0, ..Options::default() };
        assert!(options.clone().with_recorded(&[1.0, 0.0]).is_err());
        let recorded = options.with_recorded(&[0.5, 1.0, 1.1, 4.0]).expect("times");
        let run = simulate(&recorded, Scenario::Latency50, 1);
        assert!(run.judged.users_exposed > 0, "{run:?}");
    }
}
