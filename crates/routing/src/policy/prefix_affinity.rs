//! The worker that has most of the prompt cached, unless it is too busy.
//!
//! The score is `matched / prompt − load_weight · (load − min load) / (mean load + load_slack)`. What a cached prompt
//! is worth is bounded by 1 and what load costs is not, so affinity always yields: no worker is chosen that has more
//! than `(mean load + load_slack) / load_weight` requests above the idlest one. With the default weight of 2 and many
//! requests this keeps the busiest worker below one and a half times the mean, as consistent hashing with bounded
//! loads does (Mirrokni, Thorup, Zadimoghaddam, 2018).

use super::{Candidate, PickRequest, by_load, least};
use crate::{PrefixIndex, WorkerSnapshot};

pub(super) fn pick<'a>(
    candidates: &[Candidate<'a>],
    request: &PickRequest<'_>,
    prefixes: &PrefixIndex,
    load_weight: f64,
    load_slack: f64,
) -> &'a WorkerSnapshot {
    let matches = prefixes.matches(request.digests);
    let load_min = candidates.iter().map(|candidate| candidate.load).fold(f64::INFINITY, f64::min);
    let load_mean = candidates.iter().map(|candidate| candidate.load).sum::<f64>() / candidates.len() as f64;
    let scored: Vec<(f64, &Candidate<'a>)> = candidates
        .iter()
        .map(|candidate| {
            let matched =
                matches.iter().find(|(worker, _)| *worker == candidate.worker.id).map_or(0, |found| found.1);
            let affinity = matched as f64 / request.digests.len().max(1) as f64;
            let relative_load = (candidate.load - load_min) / (load_mean + load_slack);
            (affinity - load_weight * relative_load, candidate)
        })
        .collect();
    let order = |left: &(f64, &Candidate<'_>), right: &(f64, &Candidate<'_>)| {
        right.0.total_cmp(&left.0).then_with(|| by_load(left.1, right.1))
    };
    least(&scored, request.turn, order).1.worker
}
