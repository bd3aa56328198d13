//! Faults on request, which only a simulated worker has: what goes wrong in production, at a time of one's choosing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::sampling::uniform;
use engine::simulated::Simulation;
use protocol::ApiError;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Something that goes wrong. Faults of different kinds can be in force together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// The listener closes and every connection is cut, at once and for good; `tenk worker` ends with a failure.
    Crash,
    /// Steps stand still for so long; requests are still taken.
    Hang {
        /// Seconds.
        for_s: f64,
    },
    /// Steps take so many times as long.
    Slow {
        /// At least 1.
        factor: f64,
    },
    /// So many of the requests for answers are refused with status 500.
    ErrorRate {
        /// 0 to 1.
        share: f64,
    },
    /// Answers are of other words than they should be.
    Garbage,
    /// So many of the streamed answers are cut off after a few tokens, without their end mark.
    Drop {
        /// 0 to 1.
        share: f64,
    },
}

/// The longest hang.
const FOR_S_MAX: f64 = 3600.0;
const FACTOR_MAX: f64 = 1000.0;

impl Fault {
    pub(crate) fn validate(&self) -> Result<(), ApiError> {
        let within = |param: &str, value: f64, min: f64, max: f64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(ApiError::invalid(param, format!("`{param}` is {value}, but must be from {min} to {max}")))
        };
        match *self {
            Self::Crash | Self::Garbage => Ok(()),
            Self::Hang { for_s } => within("for_s", for_s, 0.0, FOR_S_MAX),
            Self::Slow { factor } => within("factor", factor, 1.0, FACTOR_MAX),
            Self::ErrorRate { share } | Self::Drop { share } => within("share", share, 0.0, 1.0),
        }
    }
}

/// The faults in force.
#[derive(Debug)]
pub(crate) struct Faults {
    simulation: Arc<Simulation>,
    active: Mutex<Vec<Fault>>,
    /// Requests that a share was drawn for.
    drawn: AtomicU64,
    pub(crate) crashed: CancellationToken,
}

impl Faults {
    pub(crate) fn new(simulation: Arc<Simulation>) -> Self {
        let (active, drawn, crashed) = (Mutex::default(), AtomicU64::new(0), CancellationToken::new());
        Self { simulation, active, drawn, crashed }
    }

    /// Puts a fault in force, in place of one of its kind.
    pub(crate) fn set(&self, fault: Fault) {
        match fault {
            Fault::Crash => self.crashed.cancel(),
            Fault::Hang { for_s } => self.simulation.hang(Duration::from_secs_f64(for_s)),
            Fault::Slow { factor } => self.simulation.slow(factor),
            Fault::Garbage => self.simulation.garbage(),
            Fault::ErrorRate { .. } | Fault::Drop { .. } => {}
        }
        let mut active = self.active();
        active.retain(|other| std::mem::discriminant(other) != std::mem::discriminant(&fault));
        active.push(fault);
    }

    /// Ends all faults but a crash.
    pub(crate) fn heal(&self) {
        self.simulation.heal();
        self.active().clear();
    }

    pub(crate) fn list(&self) -> Vec<Fault> {
        let mut active = self.active();
        active.retain(|fault| !matches!(fault, Fault::Hang { .. }) || self.simulation.is_hanging());
        active.clone()
    }

    /// Whether this request is to fail.
    pub(crate) fn draws_error(&self) -> bool {
        self.draw(|fault| match fault {
            Fault::ErrorRate { share } => Some(*share),
            _ => None,
        })
        .is_some()
    }

    /// After how many pieces this stream is to be cut off, if it is.
    pub(crate) fn draws_drop(&self) -> Option<u32> {
        let random = self.draw(|fault| match fault {
            Fault::Drop { share } => Some(*share),
            _ => None,
        })?;
        Some(1 + (random * PIECES_MAX) as u32)
    }

    /// A number in [0, 1), if this request is among the share. That is met closely over many requests, and the same
    /// ones fail in each run.
    fn draw(&self, share: impl Fn(&Fault) -> Option<f64>) -> Option<f64> {
        let share = self.active().iter().find_map(share)?;
        let drawn = uniform(0, self.drawn.fetch_add(1, Ordering::Relaxed));
        (drawn < share).then(|| drawn / share)
    }

    fn active(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is to be cut off has at most so many pieces before.
const PIECES_MAX: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_is_drawn() {
        let faults = Faults::new(Arc::default());
        assert!(!faults.draws_error() && faults.draws_drop().is_none());
        for (share, least, most) in [(0.0, 0, 0), (0.2, 1900, 2100), (1.0, 10_000, 10_000)] {
            faults.set(Fault::ErrorRate { share });
            let drawn = (0..10_000).filter(|_| faults.draws_error()).count();
            assert!((least..=most).contains(&drawn), "{drawn} of a share of {share}");
        }
        assert_eq!(faults.list(), [Fault::ErrorRate { share: 1.0 }], "the last of a kind is in force");
        faults.heal();
        assert!(!faults.draws_error());
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_the_field() {
        for (fault, param) in [
            (Fault::Hang { for_s: -1.0 }, "for_s"),
            (Fault::Hang { for_s: 1e9 }, "for_s"),
            (Fault::Slow { factor: 0.5 }, "factor"),
            (Fault::ErrorRate { share: 1.1 }, "share"),
            (Fault::Drop { share: f64::NAN }, "share"),
        ] {
            let error = fault.validate().expect_err("out of range");
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }
}
