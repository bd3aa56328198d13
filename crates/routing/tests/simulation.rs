//! Policies against each other over a simulated pool: workers with bounded caches, requests that come and go.

#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::VecDeque;

use protocol::PrefixDigest;
use routing::{Config, HealthState, PickRequest, Picker, Policy, PrefixIndex, WorkerId, WorkerSnapshot};

/// A small generator with a seed (splitmix64), so that every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `weights.len()`, each as often as its weight says.
    fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut rest = self.unit() * weights.iter().sum::<f64>();
        weights
            .iter()
            .position(|weight| {
                rest -= weight;
                rest < 0.0
            })
            .unwrap_or(weights.len() - 1)
    }
}

const WORKERS: usize = 8;
/// Shared starts that one worker can keep; all workers together keep 160.
const CACHED_PREFIXES: usize = 20;
/// Blocks that all requests of one prefix share, of `PROMPT_BLOCKS`.
const SHARED_BLOCKS: u64 = 8;
const PROMPT_BLOCKS: u64 = 10;
const STEPS: usize = 4_000;
const WARM_UP_STEPS: usize = 1_000;

/// What came of a run, after its warm-up.
struct Report {
    /// Shared blocks found in the workers' real caches, of all shared blocks.
    hit_share: f64,
    /// The busiest worker against the mean, averaged over time.
    imbalance_mean: f64,
    /// Requests of the busiest worker above `1.5 · mean`, at the worst moment.
    excess_max: f64,
    /// Requests that each worker got.
    requests: Vec<usize>,
}

/// Two requests a step, each of which stays for a while that chance sets.
fn simulate(policy: Policy, prefix_weights: &[f64]) -> Report {
    let config = Config { policy, ..Config::default() };
    let picker = Picker::new(&config);
    let mut index = PrefixIndex::new(&config);
    let mut random = Random(7);
    let mut workers: Vec<WorkerSnapshot> = (0..WORKERS as u32)
        .map(|id| WorkerSnapshot {
            health: HealthState::Healthy,
            ..WorkerSnapshot::new(WorkerId(id), "pool", "m")
        })
        .collect();
    let mut caches: Vec<VecDeque<usize>> = vec![VecDeque::new(); WORKERS];
    let mut running: Vec<(usize, usize)> = Vec::new();
    let (mut turn, mut hits, mut measured) = (0, 0, 0);
    let (mut imbalance, mut excess_max) = (0.0, 0.0_f64);
    let mut requests = vec![0; WORKERS];
    for step in 0..STEPS {
        running.retain(|(end, worker)| {
            let stays = *end > step;
            workers[*worker].in_flight -= u32::from(!stays);
            stays
        });
        for _ in 0..2 {
            turn += 1;
            let prefix = random.weighted(prefix_weights);
            let digests: Vec<PrefixDigest> = (0..PROMPT_BLOCKS)
                .map(|block| match block < SHARED_BLOCKS {
                    true => PrefixDigest(prefix as u64 * 100 + block),
                    false => PrefixDigest((1 << 40) + turn * 100 + block),
                })
                .collect();
            let request = PickRequest {
                model: "m",
                digests: &digests,
                random: random.next(),
                turn,
                ..PickRequest::default()
            };
            let pick = picker.pick(&workers, &request, &index).expect("all workers are healthy");
            index.record(pick.worker, &digests);
            let worker = pick.worker.0 as usize;
            workers[worker].in_flight += 1;
            let stay = 5 + random.weighted(&[1.0; 50]);
            running.push((step + stay, worker));

            let cache = &mut caches[worker];
            let cached = cache.iter().position(|known| *known == prefix);
            cached.map(|place| cache.remove(place));
            cache.push_front(prefix);
            cache.truncate(CACHED_PREFIXES);
            if step >= WARM_UP_STEPS {
                measured += 1;
                hits += usize::from(cached.is_some());
                requests[worker] += 1;
            }
        }
        if step >= WARM_UP_STEPS {
            let max = workers.iter().map(|worker| worker.in_flight).max().map_or(0.0, f64::from);
            let mean = running.len() as f64 / WORKERS as f64;
            imbalance += max / mean / (STEPS - WARM_UP_STEPS) as f64;
            excess_max = excess_max.max(max - 1.5 * mean);
        }
    }
    Report { hit_share: hits as f64 / measured as f64, imbalance_mean: imbalance, excess_max, requests }
}

fn zipf(count: usize) -> Vec<f64> {
    (1..=count).map(|rank| (rank as f64).powf(-0.8)).collect()
}

#[test]
fn affinity_finds_far_more_in_the_caches_than_least_load_and_keeps_the_load_even() {
    let affinity = simulate(Policy::PrefixAffinity, &zipf(300));
    let least_load = simulate(Policy::LeastLoad, &zipf(300));
    println!(
        "hit share {:.3} against {:.3}; busiest to mean {:.3} against {:.3}; excess {:.2}",
        affinity.hit_share,
        least_load.hit_share,
        affinity.imbalance_mean,
        least_load.imbalance_mean,
        affinity.excess_max
    );
    assert!(affinity.hit_share > 0.65, "{}", affinity.hit_share);
    assert!(
        affinity.hit_share > 1.7 * least_load.hit_share,
        "{} {}",
        affinity.hit_share,
        least_load.hit_share
    );
    assert!(affinity.imbalance_mean < 1.5, "{}", affinity.imbalance_mean);
    // `load_slack / load_weight` is 4, and the request just placed is 1.
    assert!(affinity.excess_max <= 5.0, "{}", affinity.excess_max);
}

#[test]
fn one_prefix_that_all_requests_share_is_spread_over_all_workers() {
    let report = simulate(Policy::PrefixAffinity, &[1.0]);
    let total: usize = report.requests.iter().sum();
    println!("requests {:?}; busiest to mean {:.3}", report.requests, report.imbalance_mean);
    for requests in report.requests {
        let share = requests as f64 / total as f64;
        assert!((0.08..0.18).contains(&share), "a worker got {share} of the requests instead of an eighth");
    }
    assert!(report.imbalance_mean < 1.5, "{}", report.imbalance_mean);
    assert!(report.hit_share > 0.99, "{}", report.hit_share);
}

#[test]
fn round_robin_gives_every_worker_the_same_number_of_requests() {
    let requests = simulate(Policy::RoundRobin, &zipf(300)).requests;
    assert!(requests.iter().all(|count| *count == requests[0]), "{requests:?}");
}

/// Requests that stay: how many the fullest of `count` workers has above the mean.
fn fullest_above_mean(policy: Option<Policy>, count: u32, requests: u32) -> u32 {
    let config = Config { policy: policy.unwrap_or_default(), ..Config::default() };
    let (picker, index) = (Picker::new(&config), PrefixIndex::new(&config));
    let mut random = Random(11);
    let mut workers: Vec<WorkerSnapshot> = (0..count)
        .map(|id| WorkerSnapshot {
            health: HealthState::Healthy,
            ..WorkerSnapshot::new(WorkerId(id), "pool", "m")
        })
        .collect();
    for turn in 0..u64::from(requests) {
        let request = PickRequest { model: "m", random: random.next(), turn, ..PickRequest::default() };
        let worker = match policy {
            Some(_) => picker.pick(&workers, &request, &index).expect("all workers are healthy").worker.0,
            None => (request.random % u64::from(count)) as u32,
        };
        workers[worker as usize].in_flight += 1;
    }
    workers.iter().map(|worker| worker.in_flight).max().unwrap_or(0) - requests / count
}

#[test]
fn two_choices_keep_the_fullest_worker_far_below_that_of_one_choice() {
    let one = fullest_above_mean(None, 50, 5_000);
    let two = fullest_above_mean(Some(Policy::PowerOfTwo), 50, 5_000);
    println!("fullest above the mean: {one} with one choice, {two} with two");
    assert!(two <= 4, "{two}");
    assert!(one >= 4 * two, "{one} with one choice, {two} with two");
}
