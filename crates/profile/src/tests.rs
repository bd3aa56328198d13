use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn h100() -> Profile {
    shipped("h100-llama-8b").expect("shipped")
}

fn time_us(profile: &Profile, runs: &[(usize, usize)]) -> f64 {
    profile.step_time_us(&runs.iter().copied().collect())
}

#[test]
fn each_shipped_profile_has_its_names_file_and_a_digest_of_its_own_and_survives_being_written() {
    let mut digests = BTreeSet::new();
    for name in shipped_names() {
        let profile = shipped(name).expect("sound");
        assert_eq!(profile.name, name);
        assert_eq!(Profile::parse(&profile.to_toml()).expect("reads back"), profile);
        assert!(digests.insert(profile.digest()), "{name}");
        assert!(profile.figures.iter().any(|figure| figure.fitted) != profile.steps.is_some(), "{name}");
    }
    assert!(digests.len() >= 5);
    let unknown = shipped("h200").expect_err("unknown").to_string();
    assert!(unknown.starts_with("there is no profile `h200`; known are h100-llama-8b, a100"), "{unknown}");
}

/// The file must say what the profile really gives, and what is fitted must be within 5%.
fn residuals_are_true(name: &str) {
    let profile = shipped(name).expect("shipped");
    for (figure, residual) in profile.figures.iter().zip(residuals(&profile)) {
        assert!((figure.residual - residual).abs() < 1e-4, "{name} says {figure:?}, but it is {residual}");
        assert!(!figure.fitted || residual.abs() < 0.05, "{name}: {figure:?}");
    }
}

#[test]
fn the_recorded_residuals_of_one_h100_are_true() {
    residuals_are_true("h100-llama-8b");
}

#[test]
fn the_recorded_residuals_of_one_a100_are_true_and_a_new_fit_finds_the_recorded_numbers() {
    residuals_are_true("a100-llama-8b");
    let recorded = shipped("a100-llama-8b").expect("shipped");
    assert_eq!(fit(&Profile { fitted: Fitted::IDEAL, ..recorded.clone() }), recorded);
}

#[test]
fn the_recorded_residuals_of_one_l40s_are_true() {
    residuals_are_true("l40s-llama-8b");
}

#[test]
fn the_recorded_residuals_of_two_h100_are_true() {
    residuals_are_true("h100x2-llama-70b");
}

#[test]
fn the_cpus_profile_is_what_a_fit_to_its_log_gives() {
    let log = StepLog::parse(include_str!("../profiles/cpu-smollm2-135m.jsonl")).expect("reads");
    let shipped = shipped("cpu-smollm2-135m").expect("shipped");
    let fitted = fit_steps("cpu-smollm2-135m", &log).expect("enough");
    assert_eq!(Profile { source: fitted.source.clone(), ..shipped }, fitted);
}

#[test]
fn a_step_takes_the_longer_of_arithmetic_and_traffic_and_the_overhead() {
    let mut profile = h100();
    profile.fitted = Fitted {
        compute_efficiency: 0.5,
        memory_efficiency: 0.25,
        overhead_us: 100.0,
        sequence_us: 2.0,
        packing_us: 30.0,
    };
    // One decode over 1,000 tokens: 8.03 GB of weights and 1,002 · 64 KiB at a quarter of 3.35 TB/s.
    let traffic = 8_029_995_008.0 + 1002.0 * 65_536.0;
    assert!((time_us(&profile, &[(1, 1000)]) - (traffic / 837_500.0 + 102.0)).abs() < 1e-6);
    // A chunk of 4,096 tokens after 4,096: arithmetic at half of 1,979 TFLOPS.
    let pairs = 4096.0 * 4096.0 + 4096.0 * 4097.0 / 2.0;
    let operations = 2.0 * 6_979_321_856.0 * 4096.0 + 2.0 * 525_336_576.0 + 4.0 * 32.0 * 32.0 * 128.0 * pairs;
    assert!((time_us(&profile, &[(4096, 4096)]) - (operations / 989.5e6 + 132.0)).abs() < 1e-6);
    profile.device.count = 2;
    assert!((time_us(&profile, &[(1, 1000)]) - (traffic / 1_675_000.0 + 102.0)).abs() < 1e-6);
}

#[test]
fn a_prompt_in_chunks_has_the_arithmetic_of_the_whole() {
    let whole: StepShape = [(1000, 0)].into_iter().collect();
    let chunks: StepShape = [(300, 0), (300, 300), (400, 600)].into_iter().collect();
    assert_eq!(chunks.attention_pairs, whole.attention_pairs);
    assert_eq!(chunks.num_tokens, whole.num_tokens);
    assert_eq!(chunks.kv_tokens_read, 300 + 600 + 1000, "but reads what came before again");
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_their_field() {
    let text = h100().to_toml();
    for (from, to, message) in [
        ("count = 1", "count = 0", "the profile's `device.count` is 0, but must be a number above 0"),
        ("memory_efficiency = 0.", "memory_efficiency = 3.", "`fitted.memory_efficiency` is 3."),
        ("overhead_us = ", "overhead_us = -1", "`fitted.overhead_us` is -1"),
        ("max_num_seqs = 2048", "max_num_seqs = 0", "`limits.max_num_seqs` is 0"),
        ("peak_tflops = ", "peak_tflop = ", "unknown field `peak_tflop`"),
    ] {
        let error = Profile::parse(&text.replacen(from, to, 1)).expect_err("nonsense").to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_steady_load_samples_an_answers_tokens_for_each_user_and_keeps_the_limits() {
    let limits = Limits {
        kv_cache_tokens: 64 * 100,
        max_num_seqs: 40,
        max_num_batched_tokens: 128,
        max_model_len: 4096,
    };
    let load = SteadyLoad::run(&limits, Workload { prompt_tokens: 100, answer_tokens: 92 }).expect("fits");
    assert_eq!(load.num_users, 33, "memory holds so many of three blocks");
    let tokens: u64 = load.steps.iter().map(|step| step.num_tokens).sum();
    let whole = 33 * (100 + 92);
    assert!(load.output_tokens.abs_diff(33 * 92) < 100 && tokens.abs_diff(whole) < 300, "{load:?}");
    assert!(load.steps.iter().all(|step| step.num_tokens <= 128 && step.num_sequences <= 33));
    assert_eq!(SteadyLoad::run(&limits, Workload { prompt_tokens: 7000, answer_tokens: 1 }), None);
}

/// A log of steps that take exactly as long as a profile says.
fn log_of(profile: &Profile) -> StepLog {
    let samples = (0..400).map(|at| {
        let mut runs: Vec<_> = (0..at % 16 + 1).map(|run| (1, 50 + 37 * run)).collect();
        if at % 3 == 0 {
            runs.push((1 + at % 200, 0));
        }
        StepSample { seconds: time_us(profile, &runs) / 1e6, runs, num_draft_tokens: 0 }
    });
    let header = StepLogHeader { device: "CPU".into(), model: profile.model.clone(), limits: profile.limits };
    StepLog { header, samples: samples.collect() }
}

#[test]
fn a_fit_to_a_step_log_finds_what_made_it() {
    let mut truth = h100();
    truth.device = Device { peak_tflops: 0.3, peak_gb_s: 20.0, ..truth.device };
    truth.model = shipped("cpu-smollm2-135m").expect("shipped").model;
    truth.fitted = Fitted { overhead_us: 500.0, sequence_us: 80.0, packing_us: 9000.0, ..Fitted::IDEAL };
    let mut log = log_of(&truth);
    log.samples.push(StepSample { seconds: 9.0, runs: vec![(5, 100)], num_draft_tokens: 4 });
    let found = fit_steps("mine", &log).expect("enough");
    let steps = found.steps.expect("fitted to steps");
    assert_eq!(steps.count, 400, "a step with guesses is left out");
    assert!(steps.rms_residual < 0.01 && steps.total_residual.abs() < 0.01, "{steps:?}");
    for runs in [vec![(1, 10)], vec![(1, 500); 8], vec![(400, 0)], vec![(1, 100); 30]] {
        let ratio = time_us(&found, &runs) / time_us(&truth, &runs);
        assert!((0.95..1.05).contains(&ratio), "{runs:?} {ratio}");
    }
}

#[test]
fn a_log_says_which_line_is_wrong_and_a_last_line_without_end_is_left_out() {
    let log = log_of(&h100());
    let line = |value: &StepSample| serde_json::to_string(value).expect("writes") + "\n";
    let head = serde_json::to_string(&log.header).expect("writes") + "\n";
    let two = head.clone() + &line(&log.samples[0]) + &line(&log.samples[1]);
    assert_eq!(StepLog::parse(&two).expect("reads").samples, log.samples[..2]);
    let broken_off = StepLog::parse(two.trim_end()).expect("reads");
    assert_eq!(broken_off.samples, log.samples[..1]);
    for (text, message) in [
        (String::new(), "line 1 of the step log: there is none"),
        ("{}\n".into(), "line 1 of the step log: missing field"),
        (two.clone() + "{\"seconds\":1}\n", "line 4 of the step log: missing field `runs`"),
        (two.clone() + "{\"seconds\":0,\"runs\":[[1,1]]}\n", "line 4 of the step log: a step has runs"),
    ] {
        let error = StepLog::parse(&text).expect_err("wrong").to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let few = fit_steps("mine", &StepLog::parse(&two).expect("reads")).expect_err("too few").to_string();
    assert!(few.starts_with("the step log has 2 steps, but a fit needs at least 20"), "{few}");
}

proptest! {
    #[test]
    fn more_of_anything_never_takes_less_time(
        runs in prop::collection::vec((1_usize..600, 0_usize..4000), 1..40),
        which in any::<prop::sample::Index>(),
    ) {
        let profile = h100();
        let base = time_us(&profile, &runs);
        let at = which.index(runs.len());
        let mut longer = runs.clone();
        longer[at].0 += 1;
        let mut deeper = runs.clone();
        deeper[at].1 += 100;
        let more = [&runs[..], &[(1, 0)]].concat();
        for other in [longer, deeper, more] {
            prop_assert!(time_us(&profile, &other) >= base);
        }
    }

    #[test]
    fn a_batch_takes_less_than_its_parts_one_after_the_other(
        runs in prop::collection::vec((1_usize..600, 0_usize..4000), 2..40),
    ) {
        let profile = h100();
        let apart: f64 = runs.iter().map(|run| time_us(&profile, &[*run])).sum();
        prop_assert!(time_us(&profile, &runs) < apart);
    }
}
