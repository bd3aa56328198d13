//! What one block adds to each query.

use super::cache::{KvLayout, Number, Part};
use crate::simd::{LANES, Lanes, Simd, Work};

/// The most queries whose scores are computed together: as many as keep both multipliers of a processor busy.
const QUERIES_MAX: usize = 8;

/// What is known of each query after some blocks: a softmax that sees its scores block by block, and rescales what it
/// has when a larger one comes (Milakov and Gimelshein, 2018).
pub(super) struct Queries {
    head_dim: usize,
    slots: usize,
    dims: usize,
    /// (queries, head_dim), scaled.
    pub(super) rotated: Vec<f32>,
    /// (queries, dims)
    pub(super) sums: Vec<f32>,
    pub(super) states: Vec<State>,
    /// (QUERIES_MAX, slots)
    weights: Vec<Lanes>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    max: f32,
    pub(super) total: f32,
}

impl Queries {
    pub(super) fn new(num_queries: usize, layout: &KvLayout) -> Self {
        let (slots, dims, head_dim) = (layout.slots(), layout.dims(), layout.head_dim);
        Self {
            head_dim,
            slots,
            dims,
            rotated: vec![0.0; num_queries * head_dim],
            sums: vec![0.0; num_queries * dims],
            states: vec![State { max: f32::NEG_INFINITY, total: 0.0 }; num_queries],
            weights: vec![[0.0; LANES]; QUERIES_MAX * slots / LANES],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

/// Where queries and a block are in their sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The position of the first query.
    pub(super) first: usize,
    /// Queries that share a position.
    pub(super) group: usize,
    /// The position of the block's first slot.
    pub(super) block_start: usize,
}

/// One block, for all queries of a tile.
pub(super) struct FoldBlock<'a, N> {
    pub(super) queries: &'a mut Queries,
    /// As many slots as are in use.
    pub(super) part: Part<'a, N>,
    pub(super) position: Position,
}

impl<N: Number> Work for FoldBlock<'_, N> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let num_queries = self.queries.len();
        let mut first = 0;
        while first + S::SUMS <= num_queries {
            if S::SUMS == QUERIES_MAX {
                self.fold::<S, QUERIES_MAX>(simd, first);
            } else {
                self.fold::<S, 4>(simd, first);
            }
            first += S::SUMS;
        }
        if first + 4 <= num_queries {
            self.fold::<S, 4>(simd, first);
            first += 4;
        }
        match num_queries - first {
            3 => self.fold::<S, 3>(simd, first),
            2 => self.fold::<S, 2>(simd, first),
            1 => self.fold::<S, 1>(simd, first),
            _ => {}
        }
    }
}

impl<N: Number> FoldBlock<'_, N> {
    /// `Q` queries with one block. What is done for one query does not depend on `Q`.
    #[inline(always)]
    fn fold<S: Simd, const Q: usize>(&mut self, simd: S, first: usize) {
        let Queries { head_dim, slots, dims, rotated, sums, states, weights } = &mut *self.queries;
        let (head_dim, vectors, dim_vectors) = (*head_dim, *slots / LANES, *dims / LANES);
        let Position { first: position, group, block_start } = self.position;
        // A query sees positions up to its own, as far as they are in this block.
        let used = self.part.values.len() / *dims;
        let mut visible = [0; Q];
        let mut most = 0;
        for (index, visible) in visible.iter_mut().enumerate() {
            *visible = (position + (first + index) / group + 1).saturating_sub(block_start).min(used);
            most = most.max(*visible);
        }
        if most == 0 {
            return;
        }
        let [key_scales, value_scales] = self
            .part
            .scales
            .map_or([None; 2], |scales| scales.map(|scales| Some(scales.as_chunks::<LANES>().0)));
        let rotated = &rotated[first * head_dim..(first + Q) * head_dim];
        let (keys, _) = self.part.keys.as_chunks::<LANES>();
        for vector in 0..vectors {
            let mut scores = [simd.splat(0.0); Q];
            for dim in 0..head_dim {
                let keys = N::load(simd, &keys[dim * vectors + vector]);
                for (index, score) in scores.iter_mut().enumerate() {
                    *score = simd.mul_add(simd.splat(rotated[index * head_dim + dim]), keys, *score);
                }
            }
            if let Some(scales) = key_scales {
                let scales = simd.load(&scales[vector]);
                for score in &mut scores {
                    *score = simd.mul(*score, scales);
                }
            }
            for (index, score) in scores.into_iter().enumerate() {
                let lanes = &mut weights[index * vectors + vector];
                simd.store(score, lanes);
                if visible[index] < (vector + 1) * LANES {
                    lanes[visible[index].saturating_sub(vector * LANES)..].fill(f32::NEG_INFINITY);
                }
            }
        }
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        for (index, visible) in visible.into_iter().enumerate() {
            if visible > 0 {
                let sums = &mut sums[(first + index) * dim_vectors..][..dim_vectors];
                states[first + index].raise(simd, &weights[index * vectors..(index + 1) * vectors], sums);
            }
        }
        for (index, visible) in visible.into_iter().enumerate() {
            let weights = &mut weights[index * vectors..(index + 1) * vectors];
            if visible > 0 {
                states[first + index].add(simd, weights, visible);
            } else {
                weights.fill([0.0; LANES]);
            }
            // A value's scale goes into its weight, once it has been counted.
            for (weights, scales) in weights.iter_mut().zip(value_scales.into_iter().flatten()) {
                simd.store(simd.mul(simd.load(weights), simd.load(scales)), weights);
            }
        }
        self.add_values::<S, Q>(simd, first, most);
    }

    /// The values of the block's first `most` slots, times their weights, to `Q` sums.
    #[inline(always)]
    fn add_values<S: Simd, const Q: usize>(&mut self, simd: S, first: usize, most: usize) {
        let Queries { slots, dims, sums, weights, .. } = &mut *self.queries;
        let (vectors, dim_vectors) = (*slots / LANES, *dims / LANES);
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        let weights = weights.as_flattened();
        let (values, _) = self.part.values.as_chunks::<LANES>();
        for vector in 0..dim_vectors {
            let mut folded = [simd.splat(0.0); Q];
            for (index, folded) in folded.iter_mut().enumerate() {
                *folded = simd.load(&sums[(first + index) * dim_vectors + vector]);
            }
            for (slot, values) in values.chunks_exact(dim_vectors).take(most).enumerate() {
                let values = N::load(simd, &values[vector]);
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
    /// Takes note of the largest score; what was summed under a smaller one is rescaled.
    #[inline(always)]
    fn raise<S: Simd>(&mut self, simd: S, scores: &[Lanes], sums: &mut [Lanes]) {
        let mut largest = simd.splat(self.max);
        for scores in scores {
            largest = simd.max(largest, simd.load(scores));
        }
        let max = simd.largest(largest);
        if max > self.max {
            let mut rescale = [0.0; LANES];
            if self.max > f32::NEG_INFINITY {
                simd.store(simd.exp(simd.splat(self.max - max)), &mut rescale);
            }
            self.total *= rescale[0];
            for sums in sums {
                simd.store(simd.mul(simd.load(sums), simd.load(&rescale)), sums);
            }
            self.max = max;
        }
    }

    /// Turns scores into weights, none for what is not visible.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, scores: &mut [Lanes], visible: usize) {
        let mut total = simd.splat(0.0);
        for (vector, scores) in scores.iter_mut().enumerate() {
            simd.store(simd.exp(simd.sub(simd.load(scores), simd.splat(self.max))), scores);
            if visible < (vector + 1) * LANES {
                scores[visible.saturating_sub(vector * LANES)..].fill(0.0);
            }
            total = simd.add(total, simd.load(scores));
        }
        self.total += simd.sum(total);
    }
}

/// A block's numbers as `f32`, without their scales.
#[derive(Debug, Default)]
pub(super) struct Wide {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Wide {
    pub(super) fn part<'a>(&'a self, scales: Option<[&'a [f32]; 2]>) -> Part<'a, f32> {
        Part { keys: &self.keys, values: &self.values, scales }
    }
}

/// Makes a block's numbers `f32`.
pub(super) struct Widen<'a, N> {
    pub(super) from: Part<'a, N>,
    pub(super) to: &'a mut Wide,
}

impl<N: Number> Work for Widen<'_, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, to } = self;
        for (from, to) in [(from.keys, &mut to.keys), (from.values, &mut to.values)] {
            to.resize(from.len(), 0.0);
            for (from, to) in from.as_chunks::<LANES>().0.iter().zip(to.as_chunks_mut::<LANES>().0) {
                simd.store(N::load(simd, from), to);
            }
        }
    }
}
