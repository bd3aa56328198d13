//! Attention against its definition, in every form and cut.

use proptest::prelude::*;

use super::cache::Number as _;
use super::{AttentionBatch, AttentionRun, KvCache, KvFormat, KvLayout, Rope};
use crate::pool::Pool;
use crate::tests::{assert_close, noise, pools};

/// Sequences over a cache whose blocks are shuffled, and what attention is by its definition.
struct Case {
    layout: KvLayout,
    num_heads: usize,
    lengths: Vec<usize>,
    blocks: Vec<Vec<u32>>,
    /// By sequence and position: (heads or kv heads, head_dim).
    query: Vec<Vec<f32>>,
    key: Vec<Vec<f32>>,
    value: Vec<Vec<f32>>,
}

impl Case {
    fn new(format: KvFormat, block_size: usize, head_dim: usize, group: usize, lengths: &[usize]) -> Self {
        let num_kv_heads = 2;
        let mut next = 0;
        let mut blocks: Vec<Vec<u32>> = Vec::new();
        for length in lengths {
            let count = length.div_ceil(block_size) as u32;
            // Neighbours in a sequence are not neighbours in the cache.
            blocks.push((next..next + count).rev().collect());
            next += count;
        }
        let layout = KvLayout { num_blocks: next as usize, block_size, num_kv_heads, head_dim, format };
        let numbers = |salt: u64, heads: usize| -> Vec<Vec<f32>> {
            let number =
                |(index, length): (usize, &usize)| noise(salt + index as u64, length * heads * head_dim);
            lengths.iter().enumerate().map(number).collect()
        };
        Self {
            layout,
            num_heads: num_kv_heads * group,
            lengths: lengths.to_vec(),
            blocks,
            query: numbers(100, num_kv_heads * group),
            key: numbers(200, num_kv_heads),
            value: numbers(300, num_kv_heads),
        }
    }

    /// Runs all positions, `step` of each sequence at a time; outputs by sequence.
    fn run(&self, pool: &Pool, step: usize) -> Vec<Vec<f32>> {
        let KvLayout { head_dim, num_kv_heads, block_size, .. } = self.layout;
        let mut cache =
            KvCache::of_layers(self.layout, 1).and_then(|mut layers| layers.pop()).expect("memory");
        let mut outputs = vec![Vec::new(); self.lengths.len()];
        for start in (0..*self.lengths.iter().max().expect("some")).step_by(step) {
            let (mut query, mut key, mut value, mut slots) = (vec![], vec![], vec![], vec![]);
            let (mut runs, mut of, mut positions) = (vec![], vec![], vec![]);
            for (index, length) in self.lengths.iter().enumerate().filter(|(_, length)| start < **length) {
                let end = (start + step).min(*length);
                runs.push(AttentionRun {
                    row: slots.len(),
                    len: end - start,
                    start,
                    block_table: &self.blocks[index],
                });
                of.push(index);
                let (heads, kv) = (self.num_heads * head_dim, num_kv_heads * head_dim);
                query.extend_from_slice(&self.query[index][start * heads..end * heads]);
                key.extend_from_slice(&self.key[index][start * kv..end * kv]);
                value.extend_from_slice(&self.value[index][start * kv..end * kv]);
                positions.extend(start..end);
                slots.extend((start..end).map(|position| {
                    self.blocks[index][position / block_size] * block_size as u32
                        + (position % block_size) as u32
                }));
            }
            let angles =
                positions.iter().flat_map(|position| (0..head_dim / 2).map(move |dim| angle(*position, dim)));
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
            let batch = AttentionBatch {
                query: &query,
                key: &key,
                value: &value,
                num_heads: self.num_heads,
                rope: Rope { cos: &cos, sin: &sin },
                slots: &slots,
                runs: &runs,
            };
            cache.write(&batch);
            let mut output = vec![0.0; query.len()];
            cache.attend(pool, &batch, &mut output);
            for (run, index) in runs.iter().zip(of) {
                let width = self.num_heads * head_dim;
                outputs[index].extend_from_slice(&output[run.row * width..(run.row + run.len) * width]);
            }
        }
        outputs
    }

    /// What the cache keeps of a head's numbers.
    fn kept(&self, mut head: Vec<f64>) -> Vec<f64> {
        if self.layout.format == KvFormat::Int8 {
            let largest = head.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            head.iter_mut().for_each(|value| *value = (*value / scale).round_ties_even() * scale);
        }
        head
    }

    fn expected(&self, sequence: usize) -> Vec<f64> {
        let KvLayout { head_dim, num_kv_heads, .. } = self.layout;
        let head = |numbers: &[f32], heads: usize, position: usize, head: usize| {
            let from = (position * heads + head) * head_dim;
            numbers[from..from + head_dim].iter().map(|number| f64::from(*number)).collect::<Vec<f64>>()
        };
        let rotated = |numbers: Vec<f64>, position: usize| {
            let half = head_dim / 2;
            let turn = |index: usize| {
                let (sin, cos) = f64::from(angle(position, index % half)).sin_cos();
                let (real, imaginary) = (numbers[index % half], numbers[index % half + half]);
                if index < half { real * cos - imaginary * sin } else { real * sin + imaginary * cos }
            };
            (0..head_dim).map(turn).collect::<Vec<f64>>()
        };
        let mut output = Vec::new();
        for position in 0..self.lengths[sequence] {
            for query_head in 0..self.num_heads {
                let kv_head = query_head / (self.num_heads / num_kv_heads);
                let query =
                    rotated(head(&self.query[sequence], self.num_heads, position, query_head), position);
                let weights: Vec<f64> = (0..=position)
                    .map(|other| {
                        let key = rotated(head(&self.key[sequence], num_kv_heads, other, kv_head), other);
                        let key = self.kept(key);
                        let dot: f64 = query.iter().zip(&key).map(|(query, key)| query * key).sum();
                        (dot / (head_dim as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                let mut sums = vec![0.0; head_dim];
                for (other, weight) in weights.iter().enumerate() {
                    let value = self.kept(head(&self.value[sequence], num_kv_heads, other, kv_head));
                    sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight / total * value);
                }
                output.extend(sums);
            }
        }
        output
    }
}

fn angle(position: usize, dim: usize) -> f32 {
    position as f32 * 0.3_f32.powi(dim as i32 % 5)
}

/// Every form, whole and in pieces, against the definition.
fn check(case: &Case, tolerance: f64) {
    let expected: Vec<Vec<f64>> = (0..case.lengths.len()).map(|sequence| case.expected(sequence)).collect();
    let mut first = None;
    for pool in pools() {
        let whole = case.run(&pool, usize::MAX >> 1);
        for (found, expected) in whole.iter().zip(&expected) {
            assert_close(found, expected, tolerance);
        }
        for step in [1, 7, 19] {
            assert_eq!(case.run(&pool, step), whole, "the cut of a prompt changes nothing, {step}");
        }
        assert_eq!(first.get_or_insert_with(|| whole.clone()), &whole, "forms agree to the bit");
    }
}

/// With the differences to be expected where a number may be rounded the one way here and the other there.
const FORMATS: [(KvFormat, f64); 3] = [(KvFormat::F32, 1e-5), (KvFormat::F16, 2e-3), (KvFormat::Int8, 4e-3)];

#[test]
fn attention_is_what_its_definition_says_in_every_shape() {
    let shapes =
        [(16, 64, 3, &[1, 16, 17, 70][..]), (4, 8, 1, &[5, 33]), (32, 20, 4, &[40]), (24, 80, 2, &[3, 50])];
    for (block_size, head_dim, group, lengths) in shapes {
        for (format, tolerance) in FORMATS {
            check(&Case::new(format, block_size, head_dim, group, lengths), tolerance);
        }
    }
}

#[test]
fn zeros_and_outliers_are_attended_to_as_well() {
    for (format, tolerance) in FORMATS {
        let mut case = Case::new(format, 16, 16, 3, &[40]);
        // A key and a value of nothing but zeros, and one number that leaves the others of its head no bits.
        for numbers in [&mut case.key[0], &mut case.value[0]] {
            numbers[5 * 32..6 * 32].fill(0.0);
            numbers[9 * 32 + 3] = 60.0;
            numbers[38 * 32 + 17] = -1000.0;
        }
        // What is left of it in 16 bits is as many units away as it is large.
        check(&case, 30.0 * tolerance);
    }
}

#[test]
fn a_slot_in_8_bits_is_within_half_a_scale_and_of_itself_alone() {
    for head_dim in [2, 16, 50] {
        let head = noise(9, head_dim);
        let mut kept = vec![0_i8; head_dim];
        let scale = i8::convert(&head, &mut kept);
        let largest = head.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        assert!((scale - largest / 127.0).abs() <= largest * 1e-6);
        for (kept, value) in kept.iter().zip(&head) {
            assert!((f32::from(*kept) * scale - value).abs() <= 0.501 * scale, "{kept} for {value}");
        }
    }
    let mut kept = [1_i8; 3];
    assert_eq!((i8::convert(&[0.0; 3], &mut kept), kept), (0.0, [0; 3]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_shape_attention_is_what_its_definition_says(
        block_size in 1_usize..40, half in 1_usize..40, group in 1_usize..12,
        lengths in prop::collection::vec(1_usize..40, 1..4), format in 0..FORMATS.len(),
    ) {
        let (format, tolerance) = FORMATS[format];
        check(&Case::new(format, block_size, 2 * half, group, &lengths), tolerance);
    }
}

#[test]
fn a_cache_that_no_machine_has_memory_for_is_refused() {
    for format in [KvFormat::F16, KvFormat::F32, KvFormat::Int8] {
        let layout =
            |num_blocks| KvLayout { num_blocks, block_size: 16, num_kv_heads: 4, head_dim: 64, format };
        assert_eq!(KvCache::of_layers(layout(4), 3).map(|layers| layers.len()), Some(3));
        for (num_blocks, num_layers) in
            [(1 << 40, 1), (1 << 28, 1 << 12), (usize::MAX / 2, 1), (1 << 40, usize::MAX)]
        {
            assert!(KvCache::of_layers(layout(num_blocks), num_layers).is_none());
        }
    }
}
