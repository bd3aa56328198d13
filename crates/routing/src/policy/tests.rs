use proptest::prelude::*;

use super::*;

const POLICIES: [Policy; 4] =
    [Policy::LeastLoad, Policy::RoundRobin, Policy::PowerOfTwo, Policy::PrefixAffinity];

fn config(policy: Policy) -> Config {
    Config { policy, prefix_entries_max: 100, hot_prefixes_max: 10, ..Config::default() }
}

fn worker(id: u32, in_flight: u32) -> WorkerSnapshot {
    WorkerSnapshot {
        in_flight,
        health: HealthState::Healthy,
        ..WorkerSnapshot::new(WorkerId(id), "pool", "model")
    }
}

fn digests(numbers: impl IntoIterator<Item = u64>) -> Vec<PrefixDigest> {
    numbers.into_iter().map(PrefixDigest).collect()
}

fn request<'a>() -> PickRequest<'a> {
    PickRequest { model: "model", ..PickRequest::default() }
}

/// One choice with nothing known about prefixes.
fn pick(policy: Policy, workers: &[WorkerSnapshot], request: &PickRequest<'_>) -> Result<Pick, RouteError> {
    let config = config(policy);
    Picker::new(&config).pick(workers, request, &PrefixIndex::new(&config))
}

fn any_worker() -> impl Strategy<Value = WorkerSnapshot> {
    let health = prop::sample::select(vec![
        HealthState::Unknown,
        HealthState::Healthy,
        HealthState::Unhealthy,
        HealthState::Draining,
    ]);
    let version = prop::sample::select(vec![None, Some("v1"), Some("v2")]);
    let names =
        (prop::sample::select(vec!["pool", "other"]), prop::sample::select(vec!["model", "model", "other"]));
    (names, version, health, 0..60_u32, 0..20_u32, 0.0..=1.0_f32, prop::option::of(1..300_u32)).prop_map(
        |((pool, model), version, health, in_flight, num_waiting, kv_cache_usage, max_num_seqs)| {
            WorkerSnapshot {
                version: version.map(Into::into),
                health,
                in_flight,
                num_waiting,
                kv_cache_usage,
                max_num_seqs,
                ..WorkerSnapshot::new(WorkerId(0), pool, model)
            }
        },
    )
}

fn any_workers() -> impl Strategy<Value = Vec<WorkerSnapshot>> {
    prop::collection::vec(any_worker(), 0..12).prop_map(|mut workers| {
        for (id, worker) in workers.iter_mut().enumerate() {
            worker.id = WorkerId(id as u32);
        }
        workers
    })
}

proptest! {
    #[test]
    fn every_policy_picks_an_eligible_worker_of_the_best_health_exactly_when_there_is_one(
        workers in any_workers(),
        excluded in prop::collection::vec((0..12_u32).prop_map(WorkerId), 0..4),
        pool in prop::option::of(Just("pool")),
        version in prop::option::of(Just("v1")),
        held in prop::collection::vec((0..12_u32, 1..5_u64), 0..8),
        (random, turn) in any::<(u64, u64)>(),
    ) {
        let eligible = |worker: &&WorkerSnapshot| {
            *worker.model == *"model"
                && (pool.is_none() || *worker.pool == *"pool")
                && (version.is_none() || worker.version.as_deref() != Some("v2"))
                && worker.health != HealthState::Draining
                && !excluded.contains(&worker.id)
        };
        let order = [HealthState::Healthy, HealthState::Unknown, HealthState::Unhealthy];
        let best = order.into_iter().find(|health| workers.iter().filter(eligible).any(|worker| worker.health == *health));
        for policy in POLICIES {
            let config = config(policy);
            let mut prefixes = PrefixIndex::new(&config);
            for (worker, blocks) in &held {
                prefixes.record(WorkerId(*worker), &digests(0..*blocks));
            }
            let digests = digests(0..4);
            let request = PickRequest { pool, version, digests: &digests, excluded: &excluded, random, turn, ..request() };
            match Picker::new(&config).pick(&workers, &request, &prefixes) {
                Ok(pick) => {
                    let picked = workers.iter().find(|worker| worker.id == pick.worker);
                    prop_assert!(picked.as_ref().is_some_and(eligible), "{:?} picked {:?}", policy, picked);
                    prop_assert_eq!(Some(pick.health), best);
                    prop_assert_eq!(picked.map(|worker| worker.health), best);
                    prop_assert_eq!(pick.matched_blocks, prefixes.matched(pick.worker, &digests));
                }
                Err(error) => prop_assert_eq!(best, None, "{:?} failed: {}", policy, error),
            }
        }
    }

    #[test]
    fn affinity_never_picks_a_worker_busier_than_its_bound(
        loads in prop::collection::vec(0..200_u32, 1..20), held in prop::collection::vec(0..20_u32, 0..4),
        load_weight in 0.1..10.0_f64, load_slack in 1..50_u32,
    ) {
        let config = Config { load_weight, load_slack, ..config(Policy::PrefixAffinity) };
        let workers: Vec<_> = (0..).zip(&loads).map(|(id, load)| worker(id, *load)).collect();
        let mut prefixes = PrefixIndex::new(&config);
        let digests = digests(0..4);
        held.iter().for_each(|worker| prefixes.record(WorkerId(*worker), &digests));
        let request = PickRequest { digests: &digests, ..request() };
        let pick = Picker::new(&config).pick(&workers, &request, &prefixes).expect("all are healthy");
        let load = f64::from(loads[pick.worker.0 as usize]);
        let min = f64::from(*loads.iter().min().expect("not empty"));
        let mean = f64::from(loads.iter().sum::<u32>()) / loads.len() as f64;
        prop_assert!(load <= min + (mean + f64::from(load_slack)) / load_weight + 1e-6);
    }

    #[test]
    fn power_of_two_compares_two_different_workers(count in 2..20_u32, random: u64) {
        // Only the last one is busy, so it is chosen only if it was compared with itself.
        let workers: Vec<_> = (0..count).map(|id| worker(id, u32::from(id == count - 1))).collect();
        let picked = pick(Policy::PowerOfTwo, &workers, &PickRequest { random, ..request() }).expect("all are healthy");
        prop_assert!(picked.worker.0 != count - 1);
    }
}

#[test]
fn a_cached_prompt_draws_a_request_until_its_worker_is_too_busy() {
    let config = config(Policy::PrefixAffinity);
    let mut prefixes = PrefixIndex::new(&config);
    let digests = digests(0..4);
    prefixes.record(WorkerId(2), &digests);
    let picked = |in_flight| {
        let workers = [worker(0, 0), worker(1, 0), worker(2, in_flight), worker(3, 0)];
        let request = PickRequest { digests: &digests, ..request() };
        Picker::new(&config).pick(&workers, &request, &prefixes).expect("all are healthy")
    };
    // 4 requests against a mean of 1: 2 · 4 / (1 + 8) is below 1; at 5 it is 2 · 5 / (1.25 + 8), above.
    assert_eq!(picked(4), Pick { worker: WorkerId(2), matched_blocks: 4, health: HealthState::Healthy });
    assert_ne!(picked(5).worker, WorkerId(2));
    assert_eq!(picked(5).matched_blocks, 0);
}

#[test]
fn more_of_the_prompt_cached_draws_more_strongly() {
    let config = config(Policy::PrefixAffinity);
    let mut prefixes = PrefixIndex::new(&config);
    prefixes.record(WorkerId(0), &digests(0..8));
    prefixes.record(WorkerId(1), &digests(0..2));
    let all = digests(0..10);
    let workers = [worker(0, 2), worker(1, 0), worker(2, 0)];
    let request = PickRequest { digests: &all, ..request() };
    let pick = Picker::new(&config).pick(&workers, &request, &prefixes).expect("all are healthy");
    assert_eq!((pick.worker, pick.matched_blocks), (WorkerId(0), 8));
}

#[test]
fn least_load_counts_waiting_requests_and_equals_take_turns() {
    let mut workers = [worker(0, 3), worker(1, 2), worker(2, 2), worker(3, 1)];
    workers[3].num_waiting = 5;
    let picked =
        |turn| pick(Policy::LeastLoad, &workers, &PickRequest { turn, ..request() }).expect("healthy").worker;
    assert_eq!([picked(0), picked(1), picked(2)], [WorkerId(1), WorkerId(2), WorkerId(1)]);
}

#[test]
fn an_emptier_kv_cache_decides_between_equals_but_noise_in_it_does_not() {
    let mut workers = [worker(0, 2), worker(1, 2)];
    let picks = |workers: &[WorkerSnapshot]| {
        [0, 1].map(|turn| {
            pick(Policy::LeastLoad, workers, &PickRequest { turn, ..request() }).expect("healthy").worker.0
        })
    };
    (workers[0].kv_cache_usage, workers[1].kv_cache_usage) = (0.51, 0.53);
    assert_eq!(picks(&workers), [0, 1]);
    workers[0].kv_cache_usage = 0.82;
    assert_eq!(picks(&workers), [1, 1]);
}

#[test]
fn a_worker_with_a_larger_batch_takes_more_unless_one_does_not_say_its_size() {
    let mut workers = [worker(0, 6), worker(1, 12)];
    workers[0].max_num_seqs = Some(8);
    workers[1].max_num_seqs = Some(64);
    let picked =
        |workers: &[WorkerSnapshot]| pick(Policy::LeastLoad, workers, &request()).expect("healthy").worker;
    assert_eq!(picked(&workers), WorkerId(1));
    workers[1].max_num_seqs = None;
    assert_eq!(picked(&workers), WorkerId(0));
}

#[test]
fn each_reason_for_having_no_worker_has_its_own_error() {
    let failed = |workers: &[WorkerSnapshot], request: &PickRequest<'_>| {
        pick(Policy::PrefixAffinity, workers, request).expect_err("none can take it")
    };
    let draining = WorkerSnapshot { health: HealthState::Draining, ..worker(1, 0) };
    let model = String::from("model");
    assert_eq!(failed(&[], &request()), RouteError::NoWorker { model: model.clone() });
    let elsewhere = PickRequest { pool: Some("other"), ..request() };
    assert_eq!(failed(&[worker(0, 0)], &elsewhere), RouteError::NoWorker { model: model.clone() });
    assert_eq!(
        failed(std::slice::from_ref(&draining), &request()),
        RouteError::AllDraining { model: model.clone() }
    );
    let again = PickRequest { excluded: &[WorkerId(0)], ..request() };
    assert_eq!(failed(&[worker(0, 0), draining], &again), RouteError::AllTried { model });
}
