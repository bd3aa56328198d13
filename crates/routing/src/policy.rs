//! Filter, score, pick: which worker gets a request.

mod least_load;
mod power_of_two;
mod prefix_affinity;
mod round_robin;

use std::cmp::Ordering;

use protocol::PrefixDigest;
use serde::{Deserialize, Serialize};

use crate::{Config, HealthState, PrefixIndex, RouteError, WorkerId, WorkerSnapshot};

/// How one of the workers that can take a request is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The worker with the fewest requests.
    LeastLoad,
    /// Each in turn.
    RoundRobin,
    /// The less loaded of two that chance draws. Gateways that don't know each other's requests make no herd this way.
    PowerOfTwo,
    /// The worker that has most of the prompt cached, unless it is too busy.
    #[default]
    PrefixAffinity,
}

/// What a choice depends on beside the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickRequest<'a> {
    /// The served model's name.
    pub model: &'a str,
    /// Only workers of this pool, where it is set.
    pub pool: Option<&'a str>,
    /// Only workers that serve this version or don't say which they serve, where it is set.
    pub version: Option<&'a str>,
    /// The prompt's prefixes, shortest first; from [`protocol::prefix_digests`].
    pub digests: &'a [PrefixDigest],
    /// Workers that failed this request already.
    pub excluded: &'a [WorkerId],
    /// Evenly spread over all of `u64`, new for each choice; read by [`Policy::PowerOfTwo`].
    pub random: u64,
    /// Counts choices up; whose turn it is among equals.
    pub turn: u64,
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Who gets the request.
    pub worker: WorkerId,
    /// Blocks of the prompt that it has likely cached, 0 to `digests.len()`.
    pub matched_blocks: usize,
    /// Anything but [`HealthState::Healthy`] says that none was healthy.
    pub health: HealthState,
}

/// Makes choices by one policy.
#[derive(Clone, Debug)]
pub struct Picker {
    policy: Policy,
    load_weight: f64,
    load_slack: f64,
}

/// A worker that can take the request.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    worker: &'a WorkerSnapshot,
    /// Requests, as if all candidates had a batch of the same size.
    load: f64,
}

impl Picker {
    /// Takes the policy and its weights from a validated configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            policy: config.policy,
            load_weight: config.load_weight,
            load_slack: f64::from(config.load_slack),
        }
    }

    /// Chooses a worker. Only those of the right model, pool and version count, and of these none that drains or is
    /// excluded. Healthy ones go first, then those of which nothing was heard. Where all are unhealthy one of them is
    /// tried all the same: what took them out may be over, or may have been the gateway's own network, and to refuse
    /// every request would be worse than to have some fail.
    ///
    /// Fails with [`RouteError::NoWorker`], [`RouteError::AllDraining`] or [`RouteError::AllTried`].
    pub fn pick(
        &self,
        workers: &[WorkerSnapshot],
        request: &PickRequest<'_>,
        prefixes: &PrefixIndex,
    ) -> Result<Pick, RouteError> {
        let candidates = candidates(workers, request)?;
        let worker = match self.policy {
            Policy::LeastLoad => least_load::pick(&candidates, request.turn),
            Policy::RoundRobin => round_robin::pick(&candidates, request.turn),
            Policy::PowerOfTwo => power_of_two::pick(&candidates, request.random),
            Policy::PrefixAffinity => {
                prefix_affinity::pick(&candidates, request, prefixes, self.load_weight, self.load_slack)
            }
        };
        let matched_blocks = prefixes.matched(worker.id, request.digests);
        Ok(Pick { worker: worker.id, matched_blocks, health: worker.health })
    }
}

/// The workers to choose from: at least one, all of the same health.
fn candidates<'a>(
    workers: &'a [WorkerSnapshot],
    request: &PickRequest<'_>,
) -> Result<Vec<Candidate<'a>>, RouteError> {
    let mut candidates: Vec<Candidate<'a>> = Vec::with_capacity(workers.len());
    let (mut any_serves, mut any_stays) = (false, false);
    let mut rank_best = u8::MAX;
    for worker in workers.iter().filter(|worker| serves(worker, request)) {
        any_serves = true;
        let Some(rank) = rank(worker.health) else { continue };
        any_stays = true;
        if rank > rank_best || request.excluded.contains(&worker.id) {
            continue;
        }
        if rank < rank_best {
            rank_best = rank;
            candidates.clear();
        }
        candidates.push(Candidate { worker, load: worker.load() });
    }
    if candidates.is_empty() {
        let model = request.model.to_owned();
        return Err(match (any_serves, any_stays) {
            (false, _) => RouteError::NoWorker { model },
            (true, false) => RouteError::AllDraining { model },
            (true, true) => RouteError::AllTried { model },
        });
    }
    scale_to_batch_sizes(&mut candidates);
    Ok(candidates)
}

fn serves(worker: &WorkerSnapshot, request: &PickRequest<'_>) -> bool {
    *worker.model == *request.model
        && request.pool.is_none_or(|pool| *worker.pool == *pool)
        && match (request.version, worker.version.as_deref()) {
            (Some(asked), Some(served)) => asked == served,
            _ => true,
        }
}

/// Lower is better; none for a worker that must not be chosen.
fn rank(health: HealthState) -> Option<u8> {
    match health {
        HealthState::Healthy => Some(0),
        HealthState::Unknown => Some(1),
        HealthState::Unhealthy => Some(2),
        HealthState::Draining => None,
    }
}

/// Eight requests are many for a worker that runs eight at once and few for one that runs 256. Where one of them does
/// not say, all are taken as equal.
fn scale_to_batch_sizes(candidates: &mut [Candidate<'_>]) {
    let size = |candidate: &Candidate<'_>| candidate.worker.max_num_seqs.map(|size| f64::from(size.max(1)));
    let Some(total) = candidates.iter().map(size).sum::<Option<f64>>() else { return };
    let mean = total / candidates.len() as f64;
    for candidate in candidates {
        if let Some(size) = size(candidate) {
            candidate.load *= mean / size;
        }
    }
}

/// Less load is less; between equals a KV cache that is emptier by a tenth is less. Finer differences are noise that
/// would keep equals from taking turns.
fn by_load(left: &Candidate<'_>, right: &Candidate<'_>) -> Ordering {
    let kv_tenths = |candidate: &Candidate<'_>| (candidate.worker.kv_cache_usage * 10.0) as u32;
    left.load.total_cmp(&right.load).then_with(|| kv_tenths(left).cmp(&kv_tenths(right)))
}

/// The least of `items`, equals by turns.
fn least<T>(items: &[T], turn: u64, order: impl Fn(&T, &T) -> Ordering) -> &T {
    assert!(!items.is_empty(), "a choice needs candidates");
    let best = items.iter().fold(&items[0], |best, item| if order(item, best).is_lt() { item } else { best });
    let equals = || items.iter().filter(|item| order(item, best).is_eq());
    equals().nth((turn % equals().count() as u64) as usize).unwrap_or(best)
}

#[cfg(test)]
mod tests;
