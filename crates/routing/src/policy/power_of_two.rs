//! The less loaded of two workers that chance draws.
//!
//! Least load, seen by many gateways through the same report, sends all of them to the same worker at once. Two random
//! choices avoid that at little cost: the longest queue is shorter by an exponent than with one (Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", 2001).

use super::{Candidate, by_load};
use crate::WorkerSnapshot;

pub(super) fn pick<'a>(candidates: &[Candidate<'a>], random: u64) -> &'a WorkerSnapshot {
    let count = candidates.len();
    let first = below(count, random >> 32);
    // Among the others, so that the two differ.
    let second = match count {
        1 => first,
        _ => (first + 1 + below(count - 1, random & 0xffff_ffff)) % count,
    };
    let (first, second) = (&candidates[first], &candidates[second]);
    if by_load(second, first).is_lt() { second.worker } else { first.worker }
}

/// Maps 32 random bits to a number below `count`.
fn below(count: usize, bits: u64) -> usize {
    ((bits * count as u64) >> 32) as usize
}
