//! What steers a simulated engine while it runs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Makes a simulated engine hang, slow down or talk nonsense. A hang stops the step under way; the rest
/// begins with the next one.
#[derive(Debug, Default)]
pub struct Simulation {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hang_until: Option<Instant>,
    slowness: Option<f64>,
    is_garbage: bool,
}

impl Simulation {
    /// No step ends before so much time has passed.
    pub fn hang(&self, duration: Duration) {
        self.change(|state| state.hang_until = Some(Instant::now() + duration));
    }

    /// Further steps take so many times as long as they would.
    pub fn slow(&self, factor: f64) {
        self.change(|state| state.slowness = Some(factor));
    }

    /// Answers are of other words from now on.
    pub fn garbage(&self) {
        self.change(|state| state.is_garbage = true);
    }

    /// Everything as it should be.
    pub fn heal(&self) {
        self.change(|state| *state = State::default());
    }

    /// Whether steps stand still.
    pub fn is_hanging(&self) -> bool {
        self.state().hang_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn is_garbage(&self) -> bool {
        self.state().is_garbage
    }

    pub(super) fn slowness(&self) -> f64 {
        self.state().slowness.unwrap_or(1.0)
    }

    /// Waits for the deadline, or for the end of a hang if that is later. Returns which time it was.
    pub(super) fn wait_until(&self, deadline: Instant) -> Instant {
        let mut state = self.state();
        loop {
            let until = state.hang_until.map_or(deadline, |hang| hang.max(deadline));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return until;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
