//! Each worker in turn, whatever its load.

use super::Candidate;
use crate::WorkerSnapshot;

pub(super) fn pick<'a>(candidates: &[Candidate<'a>], turn: u64) -> &'a WorkerSnapshot {
    candidates[(turn % candidates.len() as u64) as usize].worker
}
