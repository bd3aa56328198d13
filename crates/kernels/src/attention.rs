//! Attention over a KV-cache in blocks.

#![expect(unsafe_code, reason = "threads write different heads of the same rows")]

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::columns::Columns;
use crate::pool::Pool;
use crate::simd::{Form, LANES, Lanes, Simd, Work};

/// Rows of one sequence that are computed together, so that each block is read once for all of them.
const ROWS_PER_TILE: usize = 16;
/// Queries whose scores are computed together: as many as keep a block's keys in registers busy.
const QUERIES: usize = 4;

/// How numbers lie in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
}

/// A cache's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Blocks in all.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How numbers are kept.
    pub format: KvFormat,
}

impl KvLayout {
    /// Slots of a block in whole vectors.
    const fn slots(&self) -> usize {
        self.block_size.next_multiple_of(LANES)
    }

    /// A value's width in whole vectors.
    const fn dims(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    const fn key_block(&self) -> usize {
        self.head_dim * self.slots()
    }

    const fn value_block(&self) -> usize {
        self.block_size * self.dims()
    }
}

/// One layer's keys and values. A block's part for one head is contiguous: keys as (dim, slot), so that one vector holds
/// one dimension of sixteen keys and scores need no sums across lanes; values as (slot, dim).
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    keys: Numbers,
    values: Numbers,
}

/// Zeroed memory is only touched, and so only resident, once it is used.
#[derive(Debug)]
enum Numbers {
    Half(Vec<f16>),
    Single(Vec<f32>),
}

impl Numbers {
    fn new(format: KvFormat, len: usize) -> Self {
        match format {
            KvFormat::F16 => Self::Half(vec![f16::ZERO; len]),
            KvFormat::F32 => Self::Single(vec![0.0; len]),
        }
    }

    fn set(&mut self, at: usize, value: f32) {
        match self {
            Self::Half(numbers) => numbers[at] = f16::from_f32(value),
            Self::Single(numbers) => numbers[at] = value,
        }
    }

    /// Some numbers as `f32`, converted into `scratch` if need be.
    fn get<'a>(&'a self, at: usize, len: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        match self {
            Self::Half(numbers) => {
                let scratch = &mut scratch[..len];
                numbers[at..at + len].convert_to_f32_slice(scratch);
                scratch
            }
            Self::Single(numbers) => &numbers[at..at + len],
        }
    }
}

/// Cosines and sines by which queries and keys are rotated, (rows, head_dim / 2) each.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
}

impl Rope<'_> {
    /// Rotates one head of a row: its halves are the real and the imaginary parts.
    fn rotate(&self, row: usize, head: &[f32], rotated: &mut [f32]) {
        let half = head.len() / 2;
        let (cos, sin) = (&self.cos[row * half..][..half], &self.sin[row * half..][..half]);
        let (real, imaginary) = head.split_at(half);
        let (to_real, to_imaginary) = rotated.split_at_mut(half);
        for index in 0..half {
            to_real[index] = real[index] * cos[index] - imaginary[index] * sin[index];
            to_imaginary[index] = real[index] * sin[index] + imaginary[index] * cos[index];
        }
    }
}

/// Consecutive rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRun<'a> {
    /// The first of its rows.
    pub row: usize,
    /// How many rows it has.
    pub len: usize,
    /// The position of its first row.
    pub start: usize,
    /// The blocks that hold positions `0..start + len`.
    pub block_table: &'a [u32],
}

/// A ragged batch of T rows.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBatch<'a> {
    /// (T, heads, head_dim), not rotated yet.
    pub query: &'a [f32],
    /// (T, kv heads, head_dim), not rotated yet.
    pub key: &'a [f32],
    /// (T, kv heads, head_dim)
    pub value: &'a [f32],
    /// Query heads.
    pub num_heads: usize,
    /// By row.
    pub rope: Rope<'a>,
    /// Slot of the cache of each row: block times block size plus offset.
    pub slots: &'a [u32],
    /// Who the rows belong to.
    pub runs: &'a [AttentionRun<'a>],
}

impl KvCache {
    /// An empty cache.
    pub fn new(layout: KvLayout) -> Self {
        let blocks = layout.num_blocks * layout.num_kv_heads;
        Self {
            layout,
            keys: Numbers::new(layout.format, blocks * layout.key_block()),
            values: Numbers::new(layout.format, blocks * layout.value_block()),
        }
    }

    /// Writes the batch's keys, rotated, and its values.
    ///
    /// # Panics
    /// If widths do not fit together, or a slot is beyond the cache.
    pub fn write(&mut self, batch: &AttentionBatch<'_>) {
        let KvLayout { block_size, num_kv_heads, head_dim, .. } = self.layout;
        let (slots, dims) = (self.layout.slots(), self.layout.dims());
        let (key_block, value_block) = (self.layout.key_block(), self.layout.value_block());
        let width = num_kv_heads * head_dim;
        assert!(batch.key.len() == batch.slots.len() * width && batch.value.len() == batch.key.len());
        let mut rotated = vec![0.0; head_dim];
        for (row, slot) in batch.slots.iter().enumerate() {
            let (block, slot) = (*slot as usize / block_size, *slot as usize % block_size);
            for kv_head in 0..num_kv_heads {
                let from = row * width + kv_head * head_dim;
                batch.rope.rotate(row, &batch.key[from..from + head_dim], &mut rotated);
                let part = block * num_kv_heads + kv_head;
                for (dim, value) in rotated.iter().enumerate() {
                    self.keys.set(part * key_block + dim * slots + slot, *value);
                }
                for (dim, value) in batch.value[from..from + head_dim].iter().enumerate() {
                    self.values.set(part * value_block + slot * dims + dim, *value);
                }
            }
        }
    }

    /// Lets each row attend to its own sequence up to its own position, into `output` (T, heads, head_dim).
    ///
    /// # Panics
    /// If widths do not fit together, or a block is beyond the cache.
    pub fn attend(&self, pool: &Pool, batch: &AttentionBatch<'_>, output: &mut [f32]) {
        assert_eq!(batch.query.len(), output.len(), "an output for each query");
        let form = pool.form();
        let output = Columns::new(output, batch.num_heads * self.layout.head_dim);
        let tiles: Vec<Tile<'_>> = batch
            .runs
            .iter()
            .flat_map(|run| (0..run.len).step_by(ROWS_PER_TILE).map(move |first| (run, first)))
            .flat_map(|(run, first)| {
                let len = ROWS_PER_TILE.min(run.len - first);
                (0..self.layout.num_kv_heads).map(move |kv_head| Tile { run, first, len, kv_head })
            })
            // The longest first, so that no thread is left with one at the end.
            .rev()
            .collect();
        pool.for_each(tiles, |_, tile| self.attend_tile(form, batch, tile, &output));
    }

    fn attend_tile(&self, form: Form, batch: &AttentionBatch<'_>, tile: Tile<'_>, output: &Columns<'_>) {
        let KvLayout { num_kv_heads, head_dim, .. } = self.layout;
        let group = batch.num_heads / num_kv_heads;
        let mut queries = Queries::new(tile.len * group, head_dim, &self.layout);
        let rotate_head = |query: usize| {
            let row = tile.run.row + tile.first + query / group;
            let head = tile.kv_head * group + query % group;
            (row, head * head_dim)
        };
        let scale = (head_dim as f32).sqrt().recip();
        for (index, query) in queries.rotated.chunks_exact_mut(head_dim).enumerate() {
            let (row, column) = rotate_head(index);
            let from = row * batch.num_heads * head_dim + column;
            batch.rope.rotate(row, &batch.query[from..from + head_dim], query);
            query.iter_mut().for_each(|value| *value *= scale);
        }
        self.fold_blocks(form, &mut queries, tile, group);
        for (index, (sum, state)) in
            queries.sums.chunks_exact(self.layout.dims()).zip(&queries.states).enumerate()
        {
            let (row, column) = rotate_head(index);
            // SAFETY: each row's part for the heads of one kv head is in one tile.
            let output = unsafe { output.part(row, column, head_dim) };
            for (output, sum) in output.iter_mut().zip(sum) {
                *output = sum / state.total;
            }
        }
    }

    /// Goes over the blocks once; for all queries of the tile each.
    fn fold_blocks(&self, form: Form, queries: &mut Queries, tile: Tile<'_>, group: usize) {
        let KvLayout { block_size, num_kv_heads, .. } = self.layout;
        let (key_block, value_block) = (self.layout.key_block(), self.layout.value_block());
        let first = tile.run.start + tile.first;
        let end = first + tile.len;
        let (mut key_scratch, mut value_scratch) = (vec![0.0; key_block], vec![0.0; value_block]);
        for (index, block) in tile.run.block_table[..end.div_ceil(block_size)].iter().enumerate() {
            let part = *block as usize * num_kv_heads + tile.kv_head;
            let keys = self.keys.get(part * key_block, key_block, &mut key_scratch);
            let used = (end - index * block_size).min(block_size);
            let values = self.values.get(part * value_block, used * self.layout.dims(), &mut value_scratch);
            form.run(FoldBlock { queries, keys, values, first, group, block_start: index * block_size });
        }
    }
}

/// A piece of work: `len` rows of a run, from its row `first`, for the query heads of one kv head.
#[derive(Clone, Copy, Debug)]
struct Tile<'a> {
    run: &'a AttentionRun<'a>,
    first: usize,
    len: usize,
    kv_head: usize,
}

/// What is known of each query after some blocks: a softmax that sees its scores block by block, and rescales what it
/// has when a larger one comes (Milakov and Gimelshein, 2018).
struct Queries {
    head_dim: usize,
    slots: usize,
    dims: usize,
    /// (queries, head_dim), scaled.
    rotated: Vec<f32>,
    /// (queries, dims)
    sums: Vec<f32>,
    states: Vec<State>,
    /// (QUERIES, slots)
    weights: Vec<Lanes>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    max: f32,
    total: f32,
}

impl Queries {
    fn new(num_queries: usize, head_dim: usize, layout: &KvLayout) -> Self {
        let (slots, dims) = (layout.slots(), layout.dims());
        Self {
            head_dim,
            slots,
            dims,
            rotated: vec![0.0; num_queries * head_dim],
            sums: vec![0.0; num_queries * dims],
            states: vec![State { max: f32::NEG_INFINITY, total: 0.0 }; num_queries],
            weights: vec![[0.0; LANES]; QUERIES * slots / LANES],
        }
    }
}

/// One block, for all queries of a tile.
struct FoldBlock<'a> {
    queries: &'a mut Queries,
    /// (dim, slot)
    keys: &'a [f32],
    /// (slot, dim), as many slots as are in use.
    values: &'a [f32],
    /// The position of the first query.
    first: usize,
    /// Queries that share a position.
    group: usize,
    /// The position of the block's first slot.
    block_start: usize,
}

impl Work for FoldBlock<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let num_queries = self.queries.states.len();
        let mut first = 0;
        while first + QUERIES <= num_queries {
            self.fold::<S, QUERIES>(simd, first);
            first += QUERIES;
        }
        while first < num_queries {
            self.fold::<S, 1>(simd, first);
            first += 1;
        }
    }
}

impl FoldBlock<'_> {
    /// `Q` queries with one block. What is done for one query does not depend on `Q`.
    #[inline(always)]
    fn fold<S: Simd, const Q: usize>(&mut self, simd: S, first: usize) {
        let Queries { head_dim, slots, dims, rotated, sums, states, weights } = &mut *self.queries;
        let (head_dim, vectors, dim_vectors) = (*head_dim, *slots / LANES, *dims / LANES);
        // A query sees positions up to its own, as far as they are in this block.
        let used = self.values.len() / *dims;
        let mut visible = [0; Q];
        let mut most = 0;
        for (index, visible) in visible.iter_mut().enumerate() {
            *visible =
                (self.first + (first + index) / self.group + 1).saturating_sub(self.block_start).min(used);
            most = most.max(*visible);
        }
        if most == 0 {
            return;
        }
        let rotated = &rotated[first * head_dim..(first + Q) * head_dim];
        let (keys, _) = self.keys.as_chunks::<LANES>();
        for vector in 0..vectors {
            let mut scores = [simd.splat(0.0); Q];
            for dim in 0..head_dim {
                let keys = simd.load(&keys[dim * vectors + vector]);
                for (index, score) in scores.iter_mut().enumerate() {
                    *score = simd.mul_add(simd.splat(rotated[index * head_dim + dim]), keys, *score);
                }
            }
            for (index, score) in scores.into_iter().enumerate() {
                let lanes = &mut weights[index * vectors + vector];
                simd.store(score, lanes);
                lanes[visible[index].saturating_sub(vector * LANES).min(LANES)..].fill(f32::NEG_INFINITY);
            }
        }
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        for (index, visible) in visible.into_iter().enumerate() {
            let weights = &mut weights[index * vectors..(index + 1) * vectors];
            if visible > 0 {
                let sums = &mut sums[(first + index) * dim_vectors..][..dim_vectors];
                states[first + index].add(simd, weights, sums);
            } else {
                weights.fill([0.0; LANES]);
            }
        }
        let weights = weights.as_flattened();
        let (values, _) = self.values.as_chunks::<LANES>();
        for vector in 0..dim_vectors {
            let mut folded = [simd.splat(0.0); Q];
            for (index, folded) in folded.iter_mut().enumerate() {
                *folded = simd.load(&sums[(first + index) * dim_vectors + vector]);
            }
            for (slot, values) in values.chunks_exact(dim_vectors).take(most).enumerate() {
                let values = simd.load(&values[vector]);
                for (index, folded) in folded.iter_mut().enumerate() {
                    let weight = weights[index * vectors * LANES + slot];
                    *folded = simd.mul_add(simd.splat(weight), values, *folded);
                }
            }
            for (index, folded) in folded.into_iter().enumerate() {
                simd.store(folded, &mut sums[(first + index) * dim_vectors + vector]);
            }
        }
    }
}

impl State {
    /// Turns scores into weights, under a maximum that may rise.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, scores: &mut [Lanes], sums: &mut [Lanes]) {
        let mut largest = simd.splat(self.max);
        for scores in &*scores {
            largest = simd.max(largest, simd.load(scores));
        }
        let max = simd.largest(largest);
        if max > self.max {
            let rescale = simd.exp(simd.splat(self.max - max));
            let mut lanes = [0.0; LANES];
            simd.store(rescale, &mut lanes);
            let rescale = if self.max == f32::NEG_INFINITY { 0.0 } else { lanes[0] };
            self.total *= rescale;
            for sums in sums {
                simd.store(simd.mul(simd.load(sums), simd.splat(rescale)), sums);
            }
            self.max = max;
        }
        let mut total = simd.splat(0.0);
        for scores in scores {
            let mut weights = [0.0; LANES];
            simd.store(simd.exp(simd.sub(simd.load(scores), simd.splat(self.max))), &mut weights);
            for (weight, score) in weights.iter_mut().zip(*scores) {
                if score == f32::NEG_INFINITY {
                    *weight = 0.0;
                }
            }
            total = simd.add(total, simd.load(&weights));
            *scores = weights;
        }
        self.total += simd.sum(total);
    }
}
