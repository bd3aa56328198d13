//! The CPU's own path: attention over blocks without gathering them, in parallel over sequences and heads.

use candle_core::{Device, Storage, Tensor};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use rayon::prelude::*;

use super::{Communicator, KvDtype, KvShape, Ops, tensor_linear};
use crate::EngineError;
use crate::model::{Batch, BatchSequence, Linear};

/// Rows of one sequence that are computed together, so that each block is read once for all of them.
const QUERY_TILE: usize = 16;

/// Keys and values in blocks: (block, kv head, slot, dim), so that what one head reads of a block is contiguous.
pub struct CpuOps {
    keys: Vec<Cache>,
    values: Vec<Cache>,
    shape: KvShape,
    communicator: Box<dyn Communicator>,
}

impl std::fmt::Debug for CpuOps {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CpuOps").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// One layer's keys or values. Zeroed memory is only touched, and so only resident, once it is used.
enum Cache {
    /// Bits of `f16`.
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl Cache {
    fn new(shape: &KvShape) -> Self {
        match shape.dtype {
            KvDtype::F16 => Self::F16(vec![0; shape.elements_per_layer()]),
            KvDtype::F32 => Self::F32(vec![0.0; shape.elements_per_layer()]),
        }
    }

    fn write(&mut self, at: usize, row: &[f32]) {
        match self {
            Self::F16(bits) => {
                bits[at..at + row.len()].reinterpret_cast_mut::<f16>().convert_from_f32_slice(row);
            }
            Self::F32(numbers) => numbers[at..at + row.len()].copy_from_slice(row),
        }
    }

    /// `len` numbers as f32, converted into `scratch` if need be.
    fn read<'a>(&'a self, at: usize, len: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::F16(bits) => {
                bits[at..at + len].reinterpret_cast::<f16>().convert_to_f32_slice(&mut scratch[..len]);
                &scratch[..len]
            }
            Self::F32(numbers) => &numbers[at..at + len],
        }
    }
}

impl CpuOps {
    /// An empty cache.
    pub fn new(shape: KvShape, communicator: Box<dyn Communicator>) -> Self {
        let layers = || (0..shape.num_layers).map(|_| Cache::new(&shape)).collect();
        Self { keys: layers(), values: layers(), shape, communicator }
    }

    /// Where a kv head's part of a block begins.
    fn offset(&self, block: u32, kv_head: usize) -> usize {
        (block as usize * self.shape.num_kv_heads + kv_head) * self.shape.block_size * self.shape.head_dim
    }

    fn write(&mut self, layer: usize, key: &[f32], value: &[f32], slots: &[u32]) {
        let KvShape { num_kv_heads, head_dim, block_size, .. } = self.shape;
        for (row, slot) in slots.iter().enumerate() {
            let (block, slot) = (*slot / block_size as u32, *slot as usize % block_size);
            for kv_head in 0..num_kv_heads {
                let at = self.offset(block, kv_head) + slot * head_dim;
                let from = (row * num_kv_heads + kv_head) * head_dim;
                self.keys[layer].write(at, &key[from..from + head_dim]);
                self.values[layer].write(at, &value[from..from + head_dim]);
            }
        }
    }

    /// Some rows of one sequence for the query heads of one kv head. Returns (rows, group, dim).
    fn attend(
        &self,
        layer: usize,
        query: &[f32],
        heads: usize,
        sequence: &BatchSequence,
        tile: Tile,
    ) -> Vec<f32> {
        let KvShape { num_kv_heads, head_dim, block_size, .. } = self.shape;
        let group = heads / num_kv_heads;
        let scale = (head_dim as f32).sqrt().recip();
        let mut states = vec![Softmax::default(); tile.len * group];
        let mut output = vec![0.0; tile.len * group * head_dim];
        let mut scratch = [vec![0.0; block_size * head_dim], vec![0.0; block_size * head_dim]];
        let mut scores = vec![0.0; block_size];
        let [key_scratch, value_scratch] = &mut scratch;
        let end = sequence.start + tile.first + tile.len;
        for (index, block) in sequence.block_table[..end.div_ceil(block_size)].iter().enumerate() {
            let at = self.offset(*block, tile.kv_head);
            let used = (end - index * block_size).min(block_size);
            let keys = self.keys[layer].read(at, used * head_dim, key_scratch);
            let values = self.values[layer].read(at, used * head_dim, value_scratch);
            for row in 0..tile.len {
                // This row sees positions up to its own.
                let visible =
                    (sequence.start + tile.first + row + 1).saturating_sub(index * block_size).min(used);
                if visible == 0 {
                    continue;
                }
                for head in 0..group {
                    let from =
                        ((sequence.row + tile.first + row) * heads + tile.kv_head * group + head) * head_dim;
                    let query = &query[from..from + head_dim];
                    for (score, key) in scores[..visible].iter_mut().zip(keys.chunks_exact(head_dim)) {
                        *score = dot(query, key) * scale;
                    }
                    let at = row * group + head;
                    let output = &mut output[at * head_dim..(at + 1) * head_dim];
                    states[at].add(&mut scores[..visible], values, output);
                }
            }
        }
        for (state, output) in states.iter().zip(output.chunks_exact_mut(head_dim)) {
            output.iter_mut().for_each(|number| *number /= state.sum);
        }
        output
    }
}

/// A piece of work: `len` rows of a sequence, from its row `first`, for one kv head.
#[derive(Clone, Copy)]
struct Tile {
    kv_head: usize,
    first: usize,
    len: usize,
}

/// A softmax that sees its scores block by block, and rescales what it has when a larger one comes
/// (Milakov and Gimelshein, 2018).
#[derive(Clone)]
struct Softmax {
    max: f32,
    sum: f32,
}

impl Default for Softmax {
    fn default() -> Self {
        Self { max: f32::NEG_INFINITY, sum: 0.0 }
    }
}

impl Softmax {
    fn add(&mut self, scores: &mut [f32], values: &[f32], output: &mut [f32]) {
        let max = scores.iter().copied().fold(self.max, f32::max);
        if max > self.max {
            let rescale = (self.max - max).exp();
            self.sum *= rescale;
            output.iter_mut().for_each(|number| *number *= rescale);
            self.max = max;
        }
        for (score, value) in scores.iter_mut().zip(values.chunks_exact(output.len())) {
            *score = (*score - self.max).exp();
            self.sum += *score;
            output.iter_mut().zip(value).for_each(|(number, value)| *number += *score * value);
        }
    }
}

/// Eight partial sums, so that the compiler can use vectors.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, right) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(left, right)| left * right).sum();
    for (left, right) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Runs `f` on a contiguous f32 CPU tensor's numbers, without a copy.
fn with_slice<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R, EngineError> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(EngineError::Config("the CPU path was given a tensor on another device".into()));
    };
    let start = layout.start_offset();
    Ok(f(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()]))
}

impl Ops for CpuOps {
    fn linear(&self, linear: &Linear, x: &Tensor) -> Result<Tensor, EngineError> {
        tensor_linear(linear, x)
    }

    fn attention(
        &mut self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        batch: &Batch,
    ) -> Result<Tensor, EngineError> {
        let (rows, heads, head_dim) = query.dims3()?;
        with_slice(key, |key| with_slice(value, |value| self.write(layer, key, value, &batch.slots)))??;
        let group = heads / self.shape.num_kv_heads;
        let tiles: Vec<(&BatchSequence, Tile)> = batch
            .sequences
            .iter()
            .flat_map(|sequence| (0..sequence.len).step_by(QUERY_TILE).map(move |first| (sequence, first)))
            .flat_map(|(sequence, first)| {
                let len = QUERY_TILE.min(sequence.len - first);
                (0..self.shape.num_kv_heads).map(move |kv_head| (sequence, Tile { kv_head, first, len }))
            })
            .collect();
        let this = &*self;
        let parts: Vec<Vec<f32>> = with_slice(query, |query| {
            tiles
                .par_iter()
                .map(|(sequence, tile)| this.attend(layer, query, heads, sequence, *tile))
                .collect()
        })?;
        let mut output = vec![0.0; rows * heads * head_dim];
        for ((sequence, tile), part) in tiles.iter().zip(&parts) {
            for (row, part) in part.chunks_exact(group * head_dim).enumerate() {
                let at = ((sequence.row + tile.first + row) * heads + tile.kv_head * group) * head_dim;
                output[at..at + part.len()].copy_from_slice(part);
            }
        }
        Ok(Tensor::from_vec(output, (rows, heads * head_dim), &Device::Cpu)?)
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor, EngineError> {
        let numbers = with_slice(gate, |gate| {
            with_slice(up, |up| {
                gate.par_iter()
                    .with_min_len(4096)
                    .zip(up)
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect::<Vec<f32>>()
            })
        })??;
        Ok(Tensor::from_vec(numbers, gate.shape(), &Device::Cpu)?)
    }

    fn all_reduce(&self, x: Tensor) -> Result<Tensor, EngineError> {
        self.communicator.all_reduce(x)
    }
}
