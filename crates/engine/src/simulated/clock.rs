//! Steps at absolute deadlines, so that being woken late does not add up.

use std::time::{Duration, Instant};

use super::Simulation;

/// How far behind its deadlines an engine may be and still catch up. One that stood still for longer, as in a stopped
/// process, goes on from now: a device would not run ahead to make up for it.
pub const CATCH_UP_MAX: Duration = Duration::from_millis(50);

/// How well a step kept to its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepPace {
    /// By the profile and the faults in force.
    pub planned: Duration,
    /// From the end of the step before, or from its own start after a rest.
    pub taken: Duration,
    /// How long after its deadline it ended.
    pub lateness: Duration,
}

/// The deadlines of consecutive steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StepClock {
    /// The last step's deadline and its end; none after a rest.
    last: Option<(Instant, Instant)>,
}

/// Where a step's time counts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepStart {
    /// For its deadline.
    due: Instant,
    /// For what it took.
    began: Instant,
}

impl StepClock {
    /// A step begins: where the one before was to end, if there was no rest between them.
    pub(super) fn start(&self) -> StepStart {
        self.start_at(Instant::now())
    }

    fn start_at(&self, now: Instant) -> StepStart {
        match self.last {
            Some((due, ended)) if now.saturating_duration_since(due) <= CATCH_UP_MAX => {
                StepStart { due, began: ended }
            }
            _ => StepStart { due: now, began: now },
        }
    }

    /// Waits for the step's end.
    pub(super) fn finish(&mut self, start: StepStart, step_us: f64, simulation: &Simulation) -> StepPace {
        let planned = Duration::from_secs_f64(step_us / 1e6 * simulation.slowness());
        let deadline = simulation.wait_until(start.due + planned);
        self.ended(start, planned, deadline, Instant::now())
    }

    fn ended(&mut self, start: StepStart, planned: Duration, deadline: Instant, now: Instant) -> StepPace {
        self.last = Some((deadline, now));
        StepPace {
            planned,
            taken: now.saturating_duration_since(start.began),
            lateness: now.saturating_duration_since(deadline),
        }
    }

    /// Time that passes from now on belongs to no step.
    pub(super) fn rest(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// Runs steps that each end so much after their deadline, and returns when the last one ended.
    fn run(clock: &mut StepClock, from: Instant, lateness_us: &[u64]) -> (Instant, Vec<StepPace>) {
        let mut now = from;
        let mut paces = Vec::new();
        for late in lateness_us {
            let start = clock.start_at(now);
            let deadline = start.due + STEP;
            now = deadline.max(now) + Duration::from_micros(*late);
            paces.push(clock.ended(start, STEP, deadline, now));
        }
        (now, paces)
    }

    #[test]
    fn lateness_does_not_add_up() {
        let from = Instant::now();
        let (ended, paces) = run(&mut StepClock::default(), from, &[900; 1000]);
        assert_eq!(ended - from, 1000 * STEP + Duration::from_micros(900));
        assert_eq!(paces.iter().map(|pace| pace.taken).sum::<Duration>(), ended - from);
    }

    #[test]
    fn a_rest_is_no_part_of_a_step() {
        let mut clock = StepClock::default();
        let (ended, _) = run(&mut clock, Instant::now(), &[100]);
        clock.rest();
        let again = ended + Duration::from_millis(3);
        let (ended, paces) = run(&mut clock, again, &[50]);
        assert_eq!(ended - again, STEP + Duration::from_micros(50));
        assert_eq!(paces[0].taken, ended - again);
    }

    #[test]
    fn an_engine_that_stood_still_does_not_run_ahead_afterwards() {
        let mut clock = StepClock::default();
        let (resumed, _) = run(&mut clock, Instant::now(), &[5_000_000]);
        let (ended, _) = run(&mut clock, resumed, &[0]);
        assert_eq!(ended - resumed, STEP);
    }
}
