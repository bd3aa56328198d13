//! Attention is what plain loops make of the same numbers, whatever the shape, the blocks and the cut of a prompt, and
//! nothing is read or written beyond what was given.

#![no_main]

use fuzz::numbers::{Numbers, assert_close};
use kernels::{AttentionBatch, AttentionRun, KvCache, KvFormat, KvLayout, Pool, Rope};
use libfuzzer_sys::fuzz_target;

/// The most tokens of a sequence.
const LEN_MAX: usize = 70;

fuzz_target!(|input: ([u8; 6], Vec<u8>, Vec<u8>)| {
    let ([format, block_size, half, heads, group, step], lengths, bytes) = input;
    let format = [KvFormat::F32, KvFormat::F16, KvFormat::Int8][usize::from(format) % 3];
    let lengths: Vec<usize> = lengths.iter().take(4).map(|length| usize::from(*length) % LEN_MAX + 1).collect();
    let within = |byte: u8, most: usize| usize::from(byte) % most + 1;
    let block_size = within(block_size, 40);
    let num_blocks: usize = lengths.iter().map(|length| length.div_ceil(block_size)).sum();
    let layout = KvLayout {
        num_blocks,
        block_size,
        num_kv_heads: within(heads, 3),
        head_dim: 2 * within(half, 40),
        format,
    };
    let case = Case::new(layout, within(group, 12), &lengths, &mut Numbers::new(bytes));
    let whole = case.run(&Pool::new(2), LEN_MAX);
    for (sequence, found) in case.sequences.iter().zip(&whole) {
        assert_close(found, &case.expected(sequence), 1e-3);
    }
    assert_eq!(case.run(&Pool::new(1), within(step, 20)), whole, "the cut of a prompt changes nothing");
});

struct Case {
    layout: KvLayout,
    num_heads: usize,
    sequences: Vec<Sequence>,
}

/// Numbers by position: (heads or kv heads, head_dim).
struct Sequence {
    len: usize,
    block_table: Vec<u32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
}

impl Case {
    fn new(layout: KvLayout, group: usize, lengths: &[usize], numbers: &mut Numbers) -> Self {
        let KvLayout { num_blocks, block_size, num_kv_heads, head_dim, .. } = layout;
        let mut free: Vec<u32> = (0..num_blocks as u32).collect();
        let num_heads = num_kv_heads * group;
        let sequence = |len: &usize| Sequence {
            len: *len,
            block_table: (0..len.div_ceil(block_size))
                .map(|_| free.swap_remove(numbers.index(free.len())))
                .collect(),
            query: numbers.take(len * num_heads * head_dim),
            key: numbers.take(len * num_kv_heads * head_dim),
            value: numbers.take(len * num_kv_heads * head_dim),
        };
        let sequences = lengths.iter().map(sequence).collect();
        Self { layout, num_heads, sequences }
    }

    /// Runs all positions, `step` of each sequence at a time; outputs by sequence.
    fn run(&self, pool: &Pool, step: usize) -> Vec<Vec<f32>> {
        let KvLayout { block_size, num_kv_heads, head_dim, .. } = self.layout;
        let (width, kv_width) = (self.num_heads * head_dim, num_kv_heads * head_dim);
        let mut cache = KvCache::of_layers(self.layout, 1).and_then(|mut layers| layers.pop()).expect("memory");
        let mut outputs = vec![Vec::new(); self.sequences.len()];
        for start in (0..LEN_MAX).step_by(step) {
            let (mut query, mut key, mut value) = (Vec::new(), Vec::new(), Vec::new());
            let (mut slots, mut runs, mut of) = (Vec::new(), Vec::new(), Vec::new());
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            for (index, sequence) in self.sequences.iter().enumerate().filter(|(_, run)| start < run.len) {
                let end = (start + step).min(sequence.len);
                let block_table = sequence.block_table.as_slice();
                runs.push(AttentionRun { row: slots.len(), len: end - start, start, block_table });
                of.push(index);
                query.extend_from_slice(&sequence.query[start * width..end * width]);
                key.extend_from_slice(&sequence.key[start * kv_width..end * kv_width]);
                value.extend_from_slice(&sequence.value[start * kv_width..end * kv_width]);
                for position in start..end {
                    let block = sequence.block_table[position / block_size] as usize;
                    slots.push((block * block_size + position % block_size) as u32);
                    let turn = turn(position);
                    cos.extend(vec![turn.0; head_dim / 2]);
                    sin.extend(vec![turn.1; head_dim / 2]);
                }
            }
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
                outputs[index].extend_from_slice(&output[run.row * width..(run.row + run.len) * width]);
            }
        }
        outputs
    }

    fn expected(&self, sequence: &Sequence) -> Vec<f64> {
        let KvLayout { num_kv_heads, head_dim, .. } = self.layout;
        let head = |numbers: &[f32], at: usize| numbers[at * head_dim..(at + 1) * head_dim].to_vec();
        let key = |position: usize, kv_head: usize| {
            self.kept(turned(&head(&sequence.key, position * num_kv_heads + kv_head), position))
        };
        let value = |position: usize, kv_head: usize| {
            self.kept(head(&sequence.value, position * num_kv_heads + kv_head))
        };
        let mut output = Vec::new();
        for position in 0..sequence.len {
            for query_head in 0..self.num_heads {
                let query = turned(&head(&sequence.query, position * self.num_heads + query_head), position);
                let kv_head = query_head / (self.num_heads / num_kv_heads);
                let dot = |key: Vec<f64>| query.iter().zip(key).map(|(query, key)| f64::from(*query) * key).sum();
                let scores: Vec<f64> = (0..=position)
                    .map(|other| -> f64 { dot(key(other, kv_head)) })
                    .map(|score| score / (head_dim as f64).sqrt())
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut sums = vec![0.0; head_dim];
                for (other, weight) in weights.iter().enumerate() {
                    let value = value(other, kv_head);
                    sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight / total * value);
                }
                output.extend(sums);
            }
        }
        output
    }

    /// What the cache keeps of a head's numbers; they are multiples that 16 bits have.
    fn kept(&self, head: Vec<f32>) -> Vec<f64> {
        if self.layout.format != KvFormat::Int8 {
            return head.into_iter().map(f64::from).collect();
        }
        let largest = head.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let scale = f64::from(largest) / 127.0;
        head.iter().map(|value| f64::from((value * inverse).round_ties_even()) * scale).collect()
    }
}

/// Cosine and sine of a position: quarters of a turn, so that rotating rounds nothing.
fn turn(position: usize) -> (f32, f32) {
    [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][position % 4]
}

fn turned(head: &[f32], position: usize) -> Vec<f32> {
    let (cos, sin) = turn(position);
    let (real, imaginary) = head.split_at(head.len() / 2);
    let pairs = || real.iter().zip(imaginary);
    let to_real = pairs().map(|(real, imaginary)| real * cos - imaginary * sin);
    to_real.chain(pairs().map(|(real, imaginary)| real * sin + imaginary * cos)).collect()
}
