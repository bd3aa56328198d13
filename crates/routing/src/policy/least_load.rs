//! The worker with the fewest requests, equals by turns.

use super::{Candidate, by_load, least};
use crate::WorkerSnapshot;

pub(super) fn pick<'a>(candidates: &[Candidate<'a>], turn: u64) -> &'a WorkerSnapshot {
    least(candidates, turn, by_load).worker
}
