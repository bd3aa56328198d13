//! The sampler against a naive one: every step on the whole vocabulary, a full sort, double precision.

use std::cmp::Reverse;

use proptest::prelude::*;

use super::sampler::{draw_from_all, draw_from_kept, keep};
use super::select::{argmax, key, logit_of, token_of};
use super::weights::Weights;
use super::*;

/// One token that the naive sampler keeps, with its part of [0, 1).
#[derive(Clone, Copy, Debug)]
struct Part {
    token: u32,
    start: f64,
    end: f64,
}

/// What the naive sampler keeps, by token; None where a bound lies so close that rounding may decide.
fn naive_parts(logits: &[f32], params: &SamplingParams) -> Option<Vec<Part>> {
    let close = |left: f64, right: f64| (left - right).abs() < 1e-5 * right.abs();
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut all: Vec<(u32, f32, f64)> = (0..)
        .zip(logits)
        .map(|(token, logit)| (token, *logit, (f64::from(logit - max) / f64::from(params.temperature)).exp()))
        .collect();
    all.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));

    let min_p = f64::from(params.min_p);
    let mut is_doubtful = all.iter().any(|(_, _, weight)| close(*weight, min_p) && *weight < 1.0);
    all.retain(|(_, _, weight)| *weight >= min_p);
    if params.top_k > 0 {
        all.truncate(params.top_k as usize);
    }
    let total: f64 = all.iter().map(|(_, _, weight)| weight).sum();
    let mass = f64::from(params.top_p) * total;
    let (mut kept, mut sum) = (0, 0.0);
    while kept < all.len() && (params.top_p >= 1.0 || sum < mass) {
        sum += all[kept].2;
        kept += 1;
        is_doubtful |= params.top_p < 1.0 && close(sum, mass);
    }
    if is_doubtful {
        return None;
    }
    all.truncate(kept);
    all.sort_by_key(|(token, _, _)| *token);
    let mut start = 0.0;
    let parts = all.iter().map(|(token, _, weight)| {
        let part = Part { token: *token, start, end: start + weight / sum };
        start = part.end;
        part
    });
    Some(parts.collect())
}

/// Biases and penalties token by token, counting in the token lists themselves.
fn naive_logits(logits: &[f32], params: &SamplingParams, prompt: &[u32], output: &[u32]) -> Vec<f32> {
    let adjusted = (0..).zip(logits).map(|(token, logit)| {
        let bias: f32 =
            params.logit_bias.iter().filter(|(other, _)| *other == token).map(|(_, bias)| bias).sum();
        let mut logit = logit + bias;
        if prompt.contains(&token) || output.contains(&token) {
            logit = if logit > 0.0 {
                logit / params.repetition_penalty
            } else {
                logit * params.repetition_penalty
            };
        }
        let count = output.iter().filter(|other| **other == token).count();
        logit -= params.frequency_penalty * count as f32;
        if count > 0 { logit - params.presence_penalty } else { logit }
    });
    adjusted.collect()
}

fn history_of(prompt: &[u32], output: &[u32]) -> TokenHistory {
    let mut history = TokenHistory::new(prompt);
    output.iter().for_each(|token| history.push(*token));
    history
}

/// Mostly free values, and some in half steps, so that there are ties. The first is finite.
fn any_logits(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        6 => -12.0_f32..12.0, 3 => (-24_i32..24).prop_map(|half| half as f32 / 2.0), 1 => Just(f32::NEG_INFINITY)
    ];
    (-12.0_f32..12.0, prop::collection::vec(logit, len))
        .prop_map(|(first, rest)| [vec![first], rest].concat())
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    let truncation = (
        prop_oneof![Just(1.0_f32), 0.01_f32..1.0, 0.9_f32..1.0],
        prop_oneof![Just(0_u32), 2_u32..40, 2_u32..500],
        prop_oneof![Just(0.0_f32), 0.0_f32..0.3],
    );
    let penalties = (
        prop_oneof![Just(1.0_f32), 0.5_f32..2.0],
        prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        prop_oneof![Just(0.0_f32), -2.0_f32..2.0],
        prop::collection::btree_map(0_u32..100, -10.0_f32..10.0, 0..4),
    );
    (0.05_f32..3.0, truncation, penalties, any::<u64>()).prop_map(
        |(temperature, truncation, penalties, seed)| SamplingParams {
            temperature,
            top_p: truncation.0,
            top_k: truncation.1,
            min_p: truncation.2,
            repetition_penalty: penalties.0,
            frequency_penalty: penalties.1,
            presence_penalty: penalties.2,
            logit_bias: penalties.3.into_iter().collect(),
            seed,
            logprobs: None,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_sampled_token_is_the_one_that_the_naive_sampler_draws(
        logits in any_logits(0..400),
        params in any_params(),
        prompt in prop::collection::vec(0_u32..420, 0..30),
        output in prop::collection::vec(0_u32..420, 0..30),
    ) {
        let Some(parts) = naive_parts(&naive_logits(&logits, &params, &prompt, &output), &params) else {
            return Ok(());
        };
        let history = history_of(&prompt, &output);
        let mut scratch = Scratch::default();
        for position in 0..16 {
            let token = sample(&mut logits.clone(), &params, &history, position, &mut scratch).expect("finite").token;
            let draw = uniform(params.seed, position);
            let part = parts.iter().find(|part| part.token == token);
            let fits = part.is_some_and(|part| part.start - 1e-5 <= draw && draw <= part.end + 1e-5);
            prop_assert!(fits, "token {} with draw {} is not in {:?}", token, draw, part);
        }
    }

    #[test]
    fn truncation_by_selection_keeps_exactly_what_a_full_sort_keeps(
        logits in any_logits(0..3000),
        // Nearly flat, the bound on what may be in the nucleus is tight.
        spread in prop_oneof![Just(1.0_f32), Just(0.01), Just(0.0)],
        params in any_params(),
        near_one in any::<bool>(),
    ) {
        let spread_out = |logit: f32| if logit.is_finite() { logit * spread } else { logit };
        let logits: Vec<f32> = logits.into_iter().map(spread_out).collect();
        let top_p = if near_one { 1.0 - params.top_p * 1e-3 } else { params.top_p };
        let params = SamplingParams { top_p, ..params };
        let (_, max) = argmax(&logits).expect("finite");
        let weights = Weights::new(max, &params);
        let mut scratch = Scratch::default();
        let is_cut = keep(&logits, &params, &weights, &mut scratch);
        let mut found = scratch.keys;

        let mut sorted: Vec<u64> = logits.iter().enumerate().map(|(token, logit)| key(*logit, token)).collect();
        sorted.sort_by_key(|key| Reverse(*key));
        if !is_cut {
            prop_assert!(top_p >= 1.0 && (params.top_k == 0 || params.top_k as usize >= logits.len()));
            return Ok(());
        }
        if params.top_k > 0 {
            sorted.truncate(params.top_k as usize);
        }
        sorted.retain(|key| logit_of(*key).is_finite());
        if top_p < 1.0 {
            let total: u64 = sorted.iter().map(|key| weights.of(logit_of(*key))).sum();
            let mut sum = 0;
            let reaches = |key: &u64| {
                sum += weights.of(logit_of(*key));
                sum as f64 >= f64::from(top_p) * total as f64
            };
            let kept = sorted.iter().position(reaches).map_or(sorted.len(), |last| last + 1);
            sorted.truncate(kept);
        }
        found.sort_by_key(|key| Reverse(*key));
        prop_assert_eq!(
            found.iter().map(|key| token_of(*key)).collect::<Vec<_>>(),
            sorted.iter().map(|key| token_of(*key)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_bound_that_cuts_nothing_changes_no_draw(mut logits in any_logits(1..700), seed in any::<u64>()) {
        // What top_k cuts has no weight.
        logits[1] = f32::NEG_INFINITY;
        let plain = SamplingParams { seed, ..SamplingParams::default() };
        let vocab_size = logits.len() as u32;
        let loose = [
            SamplingParams { top_k: vocab_size, ..plain.clone() },
            SamplingParams { top_k: vocab_size - 1, ..plain.clone() },
            SamplingParams { min_p: 1e-14, ..plain.clone() },
        ];
        let draw = |params: &SamplingParams, position| {
            let history = TokenHistory::default();
            sample(&mut logits.clone(), params, &history, position, &mut Scratch::default()).expect("finite").token
        };
        for position in 0..4 {
            for params in &loose {
                prop_assert_eq!(draw(params, position), draw(&plain, position));
            }
        }
    }

    #[test]
    fn neither_order_nor_company_nor_thread_changes_a_result(
        requests in prop::collection::vec((any_logits(0..200), any_params(), any::<u64>(), any::<bool>()), 2..12),
    ) {
        let history = history_of(&[1, 2, 3], &[3, 4, 4]);
        let run = |order: Vec<usize>| {
            let mut scratch = Scratch::default();
            let mut results = vec![None; requests.len()];
            for at in order {
                let (logits, params, position, scored) = &requests[at];
                let params = SamplingParams { logprobs: scored.then_some(3), ..params.clone() };
                results[at] = Some(sample(&mut logits.clone(), &params, &history, *position, &mut scratch));
            }
            results
        };
        let forward = run((0..requests.len()).collect());
        let backward = std::thread::scope(|scope| {
            scope.spawn(|| run((0..requests.len()).rev().collect())).join().expect("runs")
        });
        let alone: Vec<_> = (0..requests.len()).map(|at| run(vec![at]).swap_remove(at)).collect();
        prop_assert_eq!(&forward, &backward);
        prop_assert_eq!(&forward, &alone);
    }

    #[test]
    fn logits_are_left_as_they_were(logits in any_logits(0..200), params in any_params()) {
        let mut after = logits.clone();
        let history = history_of(&[0, 1, 1000], &[1, 5]);
        sample(&mut after, &params, &history, 0, &mut Scratch::default()).expect("finite");
        let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&after), bits(&logits));
    }
}

/// All tokens by their logits after biases and penalties: takes the greedy choice and forbids it, over and over.
fn greedy_order(logits: &[f32], params: &SamplingParams, history: &TokenHistory) -> Vec<u32> {
    let mut order = Vec::new();
    let mut params = SamplingParams { temperature: 0.0, ..params.clone() };
    for _ in logits {
        let token =
            sample(&mut logits.to_vec(), &params, history, 0, &mut Scratch::default()).expect("finite").token;
        order.push(token);
        params.logit_bias.push((token, -1e6));
    }
    order
}

#[test]
fn penalties_reorder_tokens_as_worked_out_by_hand() {
    let history = history_of(&[0, 1], &[2, 2, 3]);
    let none = SamplingParams::default();
    let order = |logits: &[f32], params: SamplingParams| greedy_order(logits, &params, &history);

    assert_eq!(order(&[4.0, 3.0, 2.0, 1.0, 0.0], none.clone()), [0, 1, 2, 3, 4]);
    // Prompt and output alike: 4/2, -1*2, 3/2, 1/2, and token 4 stays at 1.8.
    let repetition = SamplingParams { repetition_penalty: 2.0, ..none.clone() };
    assert_eq!(order(&[4.0, -1.0, 3.0, 1.0, 1.8], repetition), [0, 4, 2, 3, 1]);
    // Output only, once per occurrence: 1, 1.5, 4-2*1.2, 3-1.2, 1.7.
    let frequency = SamplingParams { frequency_penalty: 1.2, ..none.clone() };
    assert_eq!(order(&[1.0, 1.5, 4.0, 3.0, 1.7], frequency), [3, 4, 2, 1, 0]);
    // Output only, once: 1, 1.5, 4-1.2, 3-1.2, 1.7.
    let presence = SamplingParams { presence_penalty: 1.2, ..none.clone() };
    assert_eq!(order(&[1.0, 1.5, 4.0, 3.0, 1.7], presence), [2, 3, 4, 1, 0]);
    // A bias comes first: -1+2 = 1 is positive and so divided: 0.5 beats 0.4; multiplied it would be 2.
    let biased = SamplingParams { logit_bias: vec![(1, 2.0)], repetition_penalty: 2.0, ..none.clone() };
    assert_eq!(order(&[-9.0, -1.0, -9.0, -8.0, 0.4], biased.clone()), [1, 4, 3, 0, 2]);
    assert_eq!(order(&[-9.0, -1.0, -9.0, -8.0, 0.6], biased), [4, 1, 3, 0, 2]);
    // Repetition before frequency and presence: 6/2 - 2*0.5 - 0.5 = 1.5, not (6 - 1.5)/2 = 2.25.
    let all =
        SamplingParams { repetition_penalty: 2.0, frequency_penalty: 0.5, presence_penalty: 0.5, ..none };
    assert_eq!(order(&[-9.0, -9.5, 6.0, -9.0, 1.6], all.clone()), [4, 2, 0, 1, 3]);
    assert_eq!(order(&[-9.0, -9.5, 6.0, -9.0, 1.4], all), [2, 4, 0, 1, 3]);
}

#[test]
fn greedy_takes_the_lowest_of_equal_tokens_whatever_the_seed() {
    for seed in 0..50 {
        let params = SamplingParams { temperature: 0.0, seed, ..SamplingParams::default() };
        let mut logits = [1.0, 5.0, 5.0, -2.0];
        let sampled = sample(&mut logits, &params, &TokenHistory::default(), seed, &mut Scratch::default());
        assert_eq!(sampled, Ok(Sampled { token: 1, logprobs: None }));
    }
}

#[test]
fn top_k_keeps_exactly_k_of_equal_tokens_the_lowest_ones() {
    let mut seen = [0; 6];
    let params = SamplingParams { top_k: 3, ..SamplingParams::default() };
    for position in 0..300 {
        let mut logits = [1.0; 6];
        let sampled =
            sample(&mut logits, &params, &TokenHistory::default(), position, &mut Scratch::default());
        seen[sampled.expect("finite").token as usize] += 1;
    }
    assert!(seen[..3].iter().all(|count| *count > 50) && seen[3..] == [0; 3], "{seen:?}");
}

#[test]
fn a_nucleus_that_reaches_its_mass_exactly_takes_no_token_more() {
    let logits = [1.0; 200];
    let params = SamplingParams { top_p: 0.5, ..SamplingParams::default() };
    let mut scratch = Scratch::default();
    assert!(keep(&logits, &params, &Weights::new(1.0, &params), &mut scratch));
    let mut kept: Vec<u32> = scratch.keys.into_iter().map(token_of).collect();
    kept.sort_unstable();
    assert_eq!(kept, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_draw_on_a_boundary_belongs_to_the_token_after_it_and_never_to_one_without_weight() {
    let logits = [-9.0, 2.0, -9.0, 2.0, -9.0];
    let weights = Weights::new(2.0, &SamplingParams { min_p: 0.5, ..SamplingParams::default() });
    let keys: Vec<u64> = logits.iter().enumerate().map(|(token, logit)| key(*logit, token)).collect();
    for (draw, token) in [(0.0, 1), (0.49, 1), (0.5, 3), (1.0_f64.next_down(), 3)] {
        assert_eq!(draw_from_kept(&mut keys.clone(), &weights, draw), Some(token));
        assert_eq!(draw_from_all(&logits, &weights, &mut Vec::new(), draw), Some(token));
    }
}

#[test]
fn a_tiny_top_p_leaves_the_likeliest_token() {
    let params = SamplingParams { top_p: f32::MIN_POSITIVE, temperature: 2.0, ..SamplingParams::default() };
    for position in 0..100 {
        let mut logits = [0.1, 0.3, 0.2];
        let sampled =
            sample(&mut logits, &params, &TokenHistory::default(), position, &mut Scratch::default());
        assert_eq!(sampled.expect("finite").token, 1);
    }
}

#[test]
fn log_likelihoods_are_of_the_raw_distribution() {
    let params = SamplingParams {
        temperature: 0.3,
        top_k: 2,
        frequency_penalty: 1.0,
        logit_bias: vec![(2, 50.0)],
        logprobs: Some(2),
        ..SamplingParams::default()
    };
    let mut logits = [0.5, 2.0, -1.0, 1.0];
    let raw = score(&logits, 2, 2).expect("finite");
    let sampled = sample(&mut logits, &params, &history_of(&[], &[1, 2]), 7, &mut Scratch::default());
    assert_eq!((raw.rank, raw.top[0].0, raw.top[1].0), (4, 1, 3));
    assert_eq!(sampled, Ok(Sampled { token: 2, logprobs: Some(raw) }));
}

#[test]
fn logits_that_give_no_token_are_an_error_and_no_panic() {
    let cases: [(&[f32], SampleError); 4] = [
        (&[0.0, f32::NAN, f32::NAN], SampleError::NotANumber { token: 1 }),
        (&[0.0, f32::INFINITY], SampleError::Infinite { token: 1 }),
        (&[f32::NEG_INFINITY; 3], SampleError::NoCandidate { vocab_size: 3 }),
        (&[], SampleError::NoCandidate { vocab_size: 0 }),
    ];
    for (logits, error) in cases {
        for temperature in [0.0, 1.0] {
            let params = SamplingParams { temperature, top_p: 0.9, ..SamplingParams::default() };
            let history = TokenHistory::new(&[0, 1]);
            let sampled = sample(&mut logits.to_vec(), &params, &history, 0, &mut Scratch::default());
            assert_eq!(sampled, Err(error));
        }
    }
}

#[test]
fn parameters_out_of_range_still_give_a_token() {
    let odd = [f32::NAN, f32::INFINITY, -1.0, 0.0, 7.0];
    for value in odd {
        for params in [
            SamplingParams { top_p: value, ..SamplingParams::default() },
            SamplingParams { min_p: value, ..SamplingParams::default() },
            SamplingParams { temperature: value, ..SamplingParams::default() },
        ] {
            let mut logits = [0.1, 0.3, f32::NEG_INFINITY];
            let sampled = sample(&mut logits, &params, &TokenHistory::default(), 0, &mut Scratch::default());
            assert!(sampled.is_ok_and(|sampled| sampled.token < 2), "{params:?}");
        }
    }
}

/// Pearson's statistic of 20,000 draws against the naive sampler's probabilities, and the degrees of freedom.
fn chi_squared(logits: &[f32], params: &SamplingParams, vary_seed: bool) -> (f64, usize) {
    let count = 20_000_u64;
    let parts = naive_parts(logits, params).expect("no bound is close");
    let mut seen = vec![0_u32; logits.len()];
    let mut scratch = Scratch::default();
    for at in 0..count {
        let (seed, position) = if vary_seed { (at, 17) } else { (17, at) };
        let params = SamplingParams { seed, ..params.clone() };
        let sampled = sample(&mut logits.to_vec(), &params, &TokenHistory::default(), position, &mut scratch);
        seen[sampled.expect("finite").token as usize] += 1;
    }
    assert_eq!(
        parts.iter().map(|part| u64::from(seen[part.token as usize])).sum::<u64>(),
        count,
        "kept tokens only"
    );
    let term = |part: &Part| {
        let expected = (part.end - part.start) * count as f64;
        (f64::from(seen[part.token as usize]) - expected).powi(2) / expected
    };
    (parts.iter().map(term).sum(), parts.len() - 1)
}

#[test]
fn twenty_thousand_draws_follow_the_distribution() {
    /// By degrees of freedom from 1: exceeded once in a thousand times by chance.
    const CRITICAL: [f64; 11] = [10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32, 26.12, 27.88, 29.59, 31.26];
    let logits = [1.0, 0.2, -0.5, 2.1, 0.9, -1.2, 1.7, 0.0, 0.4, -0.8, 1.3, 0.6];
    let default = SamplingParams::default();
    let cases = [
        (default.clone(), 12),
        (SamplingParams { temperature: 0.7, ..default.clone() }, 12),
        (SamplingParams { temperature: 1.8, ..default.clone() }, 12),
        (SamplingParams { top_p: 0.8, ..default.clone() }, 6),
        (SamplingParams { temperature: 0.7, top_p: 0.8, ..default.clone() }, 5),
        (SamplingParams { top_k: 4, ..default.clone() }, 4),
        (SamplingParams { min_p: 0.2, ..default }, 6),
    ];
    for (params, kept) in cases {
        for vary_seed in [false, true] {
            let (statistic, freedom) = chi_squared(&logits, &params, vary_seed);
            assert_eq!(freedom + 1, kept, "{params:?}");
            assert!(
                statistic < CRITICAL[freedom - 1],
                "{statistic} with {freedom} degrees of freedom: {params:?}"
            );
        }
    }
}
