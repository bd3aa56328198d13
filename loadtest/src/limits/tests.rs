use super::*;
use crate::scrape::{Source, TESTER};

const MOMENTS: usize = 8;

type Series<'a> = (&'a str, &'a [f64]);

/// One server with these series, the same value throughout where there is only one.
fn read(series: &[Series]) -> TargetMetrics {
    let series = series.iter().map(|(name, values)| {
        let values = if values.len() == 1 { vec![values[0]; MOMENTS] } else { values.to_vec() };
        ((*name).to_owned(), values.into_iter().map(Some).collect())
    });
    let server =
        Source { address: "http://127.0.0.1:1".into(), series: series.collect(), ..Source::default() };
    TargetMetrics {
        cores: Some(2),
        times_s: (0..MOMENTS).map(|second| second as f64).collect(),
        sources: vec![server],
    }
}

const GROWING: &[f64] = &[0.0, 1.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0];

#[test]
fn each_limit_is_told_from_its_own_signs() {
    let cpu: Vec<f64> = (0..MOMENTS).map(|second| 1.9 * second as f64).collect();
    let step_tokens: Vec<f64> = (0..MOMENTS).map(|second| 20_480.0 * second as f64).collect();
    let steps: Vec<f64> = (0..MOMENTS).map(|second| 10.0 * second as f64).collect();
    let wobbling: &[f64] = &[3.0, 8.0, 4.0, 9.0, 2.0, 5.0, 7.0, 3.0];
    let calm =
        [(names::RUNNING, &[3.0, 5.0, 4.0, 3.0, 2.0, 4.0, 3.0, 3.0][..]), (names::WAITING, &[0.0][..])];
    let none: &[Series] = &[];
    let cases: &[(&[Series], Limit, &str)] = &[
        (
            &[(names::KV_USAGE, &[0.97]), (names::WAITING, &[4.0]), (names::RUNNING, wobbling)],
            Limit::KvBlocks,
            "100% of the time at least 90% of the KV blocks were taken, while up to 4 requests waited",
        ),
        (
            &[(names::PREEMPTIONS, GROWING), (names::KV_USAGE, &[0.5])],
            Limit::KvBlocks,
            "24 requests lost their KV blocks to others and started again; usage reached 50%",
        ),
        (&[(names::KV_USAGE, &[0.97]), calm[0], calm[1]], Limit::None, "the target kept up"),
        (
            &[(names::RUNNING, &[16.0]), (names::WAITING, &[9.0]), (names::KV_USAGE, &[0.4])],
            Limit::BatchBudget,
            "16 requests ran at a time and no more, while up to 9 waited",
        ),
        (
            &[
                (names::RUNNING, wobbling),
                (names::WAITING, &[9.0]),
                (names::STEP_TOKENS, &step_tokens),
                (names::STEPS, &steps),
            ],
            Limit::BatchBudget,
            "steps were full at about 2048 tokens",
        ),
        (
            &[(names::CPU, &cpu), calm[0], calm[1]],
            Limit::Cpu,
            "the servers took 1.90 and the tester took 0.00 of the",
        ),
        (
            &[(names::GATEWAY_QUEUE, GROWING)],
            Limit::Queue,
            "the gateway's queue grew from 0.5 to 22.0 requests",
        ),
        (&[(names::RUNNING, wobbling), (names::WAITING, GROWING)], Limit::Queue, "the workers' queue grew"),
        (&calm, Limit::None, "up to 5 requests ran and none waited"),
        (none, Limit::Unknown, "could not be read"),
        (&[(names::RUNNING, wobbling)], Limit::Unknown, "does not say how many requests wait"),
    ];
    for (series, limit, evidence) in cases {
        let found = judge(&read(series), &Seen::default());
        assert_eq!(found[0].limit, *limit, "{series:?} {found:?}");
        assert!(found[0].evidence.contains(evidence), "{found:?}");
    }
}

#[test]
fn time_that_the_server_does_not_know_of_is_the_networks() {
    let seconds: Vec<f64> = (0..MOMENTS).map(|second| second as f64).collect();
    let counts: Vec<f64> = (0..MOMENTS).map(|second| 100.0 * second as f64).collect();
    let read = read(&[(names::WORKER_TTFT_SUM, &seconds), (names::WORKER_TTFT_COUNT, &counts)]);
    let limits = |ttft_mean_ms| {
        let seen = Seen { ttft_mean_ms: Some(ttft_mean_ms), sent: 100, broken: 0, ..Seen::default() };
        judge(&read, &seen)[0].clone()
    };
    assert_eq!(limits(14.0).limit, Limit::Unknown);
    let found = limits(50.0);
    assert_eq!(found.limit, Limit::Network);
    assert!(
        found.evidence.contains("took 50.0 ms in the mean, of which the server knows 10.0 ms"),
        "{found:?}"
    );
}

#[test]
fn connections_that_break_are_the_networks() {
    let seen = Seen { sent: 100, broken: 2, ..Seen::default() };
    let found = judge(&TargetMetrics::default(), &seen);
    assert_eq!(found[0].limit, Limit::Network);
    assert_eq!(found[0].evidence, "2 of 100 requests got no connection or lost it");
}

#[test]
fn the_testers_own_cpu_time_counts_where_it_shares_the_machine() {
    let cpu = |rate: f64| (0..MOMENTS).map(|second| rate * second as f64).collect::<Vec<_>>();
    let mut both = read(&[(names::CPU, &cpu(1.2))]);
    let mut tester = read(&[(names::CPU, &cpu(0.7))]).sources.remove(0);
    tester.address = TESTER.into();
    both.sources.push(tester);
    let found = judge(&both, &Seen::default());
    assert_eq!(found[0].limit, Limit::Cpu);
    assert!(found[0].evidence.starts_with("the servers took 1.20 and the tester took 0.70 of"), "{found:?}");
    both.cores = None;
    assert_ne!(
        judge(&both, &Seen::default())[0].limit,
        Limit::Cpu,
        "of another machine the CPUs are not known"
    );
}

#[test]
fn causes_come_before_their_effects() {
    let read = read(&[(names::KV_USAGE, &[1.0]), (names::RUNNING, &[16.0]), (names::WAITING, GROWING)]);
    let found: Vec<Limit> = judge(&read, &Seen::default()).iter().map(|finding| finding.limit).collect();
    assert_eq!(found, [Limit::KvBlocks, Limit::BatchBudget, Limit::Queue]);
}

/// What the run itself saw of requests that came for 20 s.
fn flow(due: u64, ended: u64, e2e_p50_s: f64) -> Seen {
    Seen { flow: Some(Flow { due, ended, sending_s: 20.0, e2e_p50_s }), ..Seen::default() }
}

#[test]
fn requests_that_come_and_do_not_go_are_a_queue_whoever_tells_of_none() {
    let silent = read(&[(names::GATEWAY_QUEUE, &[0.0])]);
    let found = judge(&silent, &flow(100, 60, 3.0));
    assert_eq!(found[0].limit, Limit::Queue, "{found:?}");
    assert!(found[0].evidence.contains("100 requests came and 60 ended"), "{found:?}");
    assert_eq!(judge(&silent, &flow(100, 90, 3.0))[0].limit, Limit::None);
    assert_eq!(judge(&silent, &flow(9, 0, 3.0))[0].limit, Limit::None, "too few to tell");
    let brief = judge(&silent, &flow(100, 0, 15.0));
    assert_eq!(brief[0].limit, Limit::Unknown);
    assert!(brief[0].evidence.contains("took 15.0 s in the median and were sent for 20.0 s"), "{brief:?}");
}

#[test]
fn a_target_that_misses_its_targets_did_not_keep_up() {
    let silent = read(&[(names::GATEWAY_QUEUE, &[0.0])]);
    let missed = judge(&silent, &Seen { good_share: Some(0.4), ..Seen::default() });
    assert_eq!(missed[0].limit, Limit::Unknown);
    assert!(missed[0].evidence.contains("only 40.0% of requests met their targets"), "{missed:?}");
    let met = judge(&silent, &Seen { good_share: Some(0.99), ..Seen::default() });
    assert!(
        met[0].evidence.starts_with("none waited in the gateway: the target kept up; the workers' own"),
        "{met:?}"
    );
}

/// Servers, tester and the whole machine take so many CPUs.
fn machine(servers: f64, tester: f64, all: f64) -> TargetMetrics {
    let seconds = |a_second: f64| (0..MOMENTS).map(|second| Some(a_second * second as f64)).collect();
    let mut read = read(&[(names::GATEWAY_QUEUE, &[0.0])]);
    read.sources[0].series.insert(names::CPU.to_owned(), seconds(servers));
    let series = [(names::CPU, tester), (names::MACHINE_CPU, all)];
    let series = series.map(|(name, rate)| (name.to_owned(), seconds(rate)));
    read.sources.push(Source { address: TESTER.into(), series: series.into(), ..Source::default() });
    read
}

#[test]
fn a_machine_that_others_keep_busy_is_told_with_what_they_take() {
    let busy = machine(1.0, 0.1, 1.95);
    assert_eq!(
        judge(&busy, &Seen::default())[0].evidence,
        "the servers took 1.00, the tester took 0.10 and other programs took 0.85 of the machine's 2 CPUs, which they share"
    );
    assert!(
        disturbance(&busy).expect("told").starts_with("other programs took 0.85 of the machine's 2 CPUs")
    );
    assert_eq!(disturbance(&machine(1.7, 0.1, 1.95)), None);
}

#[test]
fn others_do_not_limit_servers_that_hardly_want_a_cpu() {
    let idle = machine(0.1, 0.05, 2.0);
    assert_eq!(judge(&idle, &Seen::default())[0].limit, Limit::None);
    assert!(disturbance(&idle).is_some());
}
