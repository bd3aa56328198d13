//! One token from one row of logits.

use std::cmp::Reverse;

use super::logprobs::{Scored, score};
use super::select::{argmax, key, largest, logit_of, token_of};
use super::weights::{BLOCK, ONE, Weights};
use super::{SampleError, SamplingParams, TokenHistory, uniform};

/// Up to this many candidates, sorting is quicker than halving.
const SORT_MAX: usize = 64;

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its log-likelihood and the alternatives; there exactly if [`SamplingParams::logprobs`] asks for it.
    pub logprobs: Option<Scored>,
}

/// Memory that [`sample`] uses again from call to call; one a thread. Its content carries nothing over.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Logits as they were before biases and penalties, in the order of changes.
    changed: Vec<(u32, f32)>,
    /// Candidates that top_k and top_p left.
    pub(super) keys: Vec<u64>,
    block_sums: Vec<u64>,
}

/// Chooses the next token from `logits`, one per token of the vocabulary (at most 524,288). They are
/// changed on the way and put back: a caller finds them as they were.
///
/// In vLLM's order: logit_bias; repetition, frequency and presence penalty; temperature; min_p; top_k; top_p over what
/// is left. Then one draw by inverse cumulative probability in the order of tokens. Of equal logits the lower token is
/// the likelier, so exactly top_k are kept where vLLM keeps all that tie with the last one. Log-likelihoods are of the
/// model's raw distribution, before all of this.
///
/// `position` is the index that the new token will have in the sequence, prompt included: it stays the same
/// when a sequence goes on elsewhere with its output as part of the prompt.
///
/// # Errors
/// If any logit is NaN or plus infinity, or none is finite.
pub fn sample(
    logits: &mut [f32],
    params: &SamplingParams,
    history: &TokenHistory,
    position: u64,
    scratch: &mut Scratch,
) -> Result<Sampled, SampleError> {
    adjust(logits, params, history, &mut scratch.changed);
    let chosen = choose(logits, params, position, scratch);
    for (token, logit) in scratch.changed.drain(..).rev() {
        logits[token as usize] = logit;
    }
    let token = chosen?;
    let logprobs = params.logprobs.map(|top| score(logits, token, top)).transpose()?;
    Ok(Sampled { token, logprobs })
}

/// Biases and penalties. Tokens outside the vocabulary are passed over: a prompt may hold ids that the model reads
/// but never writes.
fn adjust(
    logits: &mut [f32],
    params: &SamplingParams,
    history: &TokenHistory,
    changed: &mut Vec<(u32, f32)>,
) {
    changed.clear();
    let mut change = |token: u32, new: &dyn Fn(f32) -> f32| {
        if let Some(logit) = logits.get_mut(token as usize) {
            changed.push((token, *logit));
            *logit = new(*logit);
        }
    };
    for (token, bias) in &params.logit_bias {
        change(*token, &|logit| logit + bias);
    }
    if !params.uses_history() {
        return;
    }
    let repetition = params.repetition_penalty;
    for (token, count) in history.iter() {
        change(token, &|logit| {
            let repeated = if logit > 0.0 { logit / repetition } else { logit * repetition };
            let presence = if count > 0 { params.presence_penalty } else { 0.0 };
            repeated - params.frequency_penalty * count as f32 - presence
        });
    }
}

fn choose(
    logits: &[f32],
    params: &SamplingParams,
    position: u64,
    scratch: &mut Scratch,
) -> Result<u32, SampleError> {
    let (likeliest, max) = argmax(logits)?;
    if params.is_greedy() {
        return Ok(likeliest);
    }
    let weights = Weights::new(max, params);
    if weights.only_one(logits) {
        return Ok(likeliest);
    }
    let draw = uniform(params.seed, position);
    let chosen = if keep(logits, params, &weights, scratch) {
        draw_from_kept(&mut scratch.keys, &weights, draw)
    } else {
        draw_from_all(logits, &weights, &mut scratch.block_sums, draw)
    };
    Ok(chosen.unwrap_or(likeliest))
}

/// Leaves in `scratch.keys` what top_k and top_p keep, in no order; false where they keep the whole vocabulary.
pub(super) fn keep(
    logits: &[f32],
    params: &SamplingParams,
    weights: &Weights,
    scratch: &mut Scratch,
) -> bool {
    let keys = &mut scratch.keys;
    let top_k = params.top_k as usize;
    let is_cut_by_count = top_k > 0 && top_k < logits.len();
    let is_cut_by_mass = params.top_p < 1.0;
    if is_cut_by_count {
        largest(logits, top_k, keys);
    }
    if is_cut_by_mass {
        let total = if is_cut_by_count {
            keys.iter().map(|key| weights.of(logit_of(*key))).sum()
        } else {
            weights.blocks(logits, &mut scratch.block_sums)
        };
        let mass = (f64::from(params.top_p) * total as f64).ceil() as u64;
        if !is_cut_by_count {
            collect_above_tail(logits, weights, total - mass.min(total), keys);
        }
        truncate_to_mass(keys, weights, mass, |key| Reverse(*key));
    }
    is_cut_by_count || is_cut_by_mass
}

/// Replaces `keys` with all tokens but some of the least likely, which weigh no more than `tail` together.
fn collect_above_tail(logits: &[f32], weights: &Weights, tail: u64, keys: &mut Vec<u64>) {
    // If no token left out weighs more than its even share of the tail, together they weigh no more than the tail.
    // The margin is far above what rounding can do to a comparison of nats in place of weights.
    let share = tail / logits.len() as u64;
    let nats_min = (share as f64 / ONE as f64).ln() as f32 - 0.01;
    keys.clear();
    let above = logits.iter().enumerate().filter(|(_, logit)| weights.nats(**logit) >= nats_min);
    keys.extend(above.map(|(token, logit)| key(*logit, token)));
}

/// Truncates `keys` to the first, in `order`, that weigh at least `mass` together; the last of them comes last. At least
/// one stays.
///
/// Halves the range that the last may be in: the work falls by half each time, so all of it is linear.
fn truncate_to_mass<K: Ord>(keys: &mut Vec<u64>, weights: &Weights, mass: u64, order: impl Fn(&u64) -> K) {
    let weight = |key: &u64| weights.of(logit_of(*key));
    // keys[..start] are in, keys[end..] are out.
    let (mut start, mut end, mut sum) = (0, keys.len(), 0);
    while end - start > SORT_MAX {
        let half = (end - start) / 2;
        let (first, _, _) = keys[start..end].select_nth_unstable_by_key(half, &order);
        let first_sum: u64 = first.iter().map(weight).sum();
        if sum + first_sum >= mass {
            end = start + half;
        } else {
            sum += first_sum;
            start += half;
        }
    }
    keys[start..end].sort_unstable_by_key(order);
    let last = keys[start..end].iter().position(|key| {
        sum += weight(key);
        sum >= mass
    });
    keys.truncate(last.map_or(end, |last| start + last + 1));
}

/// Draws from `keys` by inverse cumulative weight in the order of tokens, and uses them up.
pub(super) fn draw_from_kept(keys: &mut Vec<u64>, weights: &Weights, draw: f64) -> Option<u32> {
    let total = keys.iter().map(|key| weights.of(logit_of(*key))).sum();
    // The token where the running sum first exceeds the target is the last of those that reach one more.
    truncate_to_mass(keys, weights, scale(draw, total) + 1, |key| token_of(*key));
    keys.last().map(|key| token_of(*key))
}

/// The same from the whole vocabulary.
pub(super) fn draw_from_all(
    logits: &[f32],
    weights: &Weights,
    block_sums: &mut Vec<u64>,
    draw: f64,
) -> Option<u32> {
    let total = weights.blocks(logits, block_sums);
    let (block, target) = locate(block_sums.iter().copied(), scale(draw, total))?;
    let start = block * BLOCK;
    let (at, _) = locate(logits[start..].iter().map(|logit| weights.of(*logit)), target)?;
    Some((start + at) as u32)
}

/// A draw of [0, 1) as a whole number below `total`.
fn scale(draw: f64, total: u64) -> u64 {
    ((draw * total as f64) as u64).min(total.saturating_sub(1))
}

/// Where the running sum first exceeds `target`, and how far into that part `target` lies. None if it never does.
fn locate(parts: impl Iterator<Item = u64>, mut target: u64) -> Option<(usize, u64)> {
    for (at, part) in parts.enumerate() {
        if target < part {
            return Some((at, target));
        }
        target -= part;
    }
    None
}
