//! What some blocks add to each query.

use super::cache::{KvLayout, Number, Part};
use crate::simd::{LANES, Lanes, Simd, Work};

/// Blocks of a sequence that are folded in at a time: the largest score is looked for, and sums are rescaled, once for
/// all of them. Counted from the sequence's start, so that what comes out depends on nothing else.
pub(super) const BLOCKS_PER_FOLD: usize = 4;
/// The most queries whose scores are computed together.
const QUERIES_MAX: usize = 8;

/// What is known of each query after some blocks: a softmax that sees its scores bit by bit, and rescales what it has
/// when a larger one comes (Milakov and Gimelshein, 2018).
pub(super) struct Queries {
    head_dim: usize,
    slots: usize,
    dims: usize,
    /// (queries, head_dim), scaled.
    pub(super) rotated: Vec<f32>,
    /// (queries, dims)
    pub(super) sums: Vec<f32>,
    pub(super) states: Vec<State>,
    /// (QUERIES_MAX, BLOCKS_PER_FOLD, slots)
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
            weights: vec![[0.0; LANES]; QUERIES_MAX.min(num_queries) * BLOCKS_PER_FOLD * slots / LANES],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

/// Where queries and blocks are in their sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The position of the first query.
    pub(super) first: usize,
    /// Queries that share a position.
    pub(super) group: usize,
    /// The position of the first block's first slot.
    pub(super) start: usize,
    /// Positions of a block.
    pub(super) block_size: usize,
}

/// Consecutive blocks, for all queries of a tile.
pub(super) struct FoldBlocks<'a, N> {
    pub(super) queries: &'a mut Queries,
    /// As many slots as are in use: all, but for those of the last block.
    pub(super) parts: &'a [Part<'a, N>],
    pub(super) position: Position,
}

impl<N: Number> Work for FoldBlocks<'_, N> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let num_queries = self.queries.len();
        let mut first = 0;
        // As many sums side by side as keep both multipliers of a processor busy, and as registers hold.
        while first < num_queries {
            first += match num_queries - first {
                QUERIES_MAX.. if S::IS_WIDE => self.fold::<S, QUERIES_MAX, 2>(simd, first),
                4.. if S::IS_WIDE => self.fold::<S, 4, 4>(simd, first),
                3 if S::IS_WIDE => self.fold::<S, 3, 4>(simd, first),
                2 if S::IS_WIDE => self.fold::<S, 2, 4>(simd, first),
                4.. => self.fold::<S, 4, 1>(simd, first),
                3 => self.fold::<S, 3, 1>(simd, first),
                2 => self.fold::<S, 2, 2>(simd, first),
                _ => self.fold::<S, 1, 4>(simd, first),
            };
        }
    }
}

impl<N: Number> FoldBlocks<'_, N> {
    /// `Q` queries with all blocks, `V` vectors at a time. What is done for one query depends on neither. Returns `Q`.
    #[inline(always)]
    fn fold<S: Simd, const Q: usize, const V: usize>(&mut self, simd: S, first: usize) -> usize {
        let Self { parts, position, .. } = *self;
        let Position { first: position_of_first, group, start, block_size } = position;
        // A query sees positions up to its own, as far as they are in these blocks.
        let mut visible = [0; Q];
        for (index, visible) in visible.iter_mut().enumerate() {
            *visible = (position_of_first + (first + index) / group + 1).saturating_sub(start);
        }
        let most = visible[Q - 1];
        if most == 0 {
            return Q;
        }
        let seen = &parts[..parts.len().min(most.div_ceil(block_size))];
        let mut seen = FoldBlocks { queries: &mut *self.queries, parts: seen, position };
        seen.score::<S, Q, V>(simd, first);
        for (index, visible) in visible.into_iter().enumerate() {
            seen.weigh(simd, first, index, visible);
        }
        let (mut vector, dim_vectors) = (0, seen.queries.dims / LANES);
        while vector + V <= dim_vectors {
            seen.add_values::<S, Q, V>(simd, first, vector, most);
            vector += V;
        }
        for vector in vector..dim_vectors {
            seen.add_values::<S, Q, 1>(simd, first, vector, most);
        }
        Q
    }

    /// Scores of `Q` queries.
    #[inline(always)]
    fn score<S: Simd, const Q: usize, const V: usize>(&mut self, simd: S, first: usize) {
        let num_vectors = self.parts.len() * self.queries.slots / LANES;
        let mut vector = 0;
        while vector + V <= num_vectors {
            self.score_vectors::<S, Q, V>(simd, first, vector);
            vector += V;
        }
        for vector in vector..num_vectors {
            self.score_vectors::<S, Q, 1>(simd, first, vector);
        }
    }

    /// Scores of `Q` queries with `V` vectors of keys, from the blocks' vector `vector`.
    #[inline(always)]
    fn score_vectors<S: Simd, const Q: usize, const V: usize>(
        &mut self,
        simd: S,
        first: usize,
        vector: usize,
    ) {
        let Queries { head_dim, slots, rotated, weights, .. } = &mut *self.queries;
        let (head_dim, vectors) = (*head_dim, *slots / LANES);
        let mut queries: [&[f32]; Q] = [&[]; Q];
        for (query, rotated) in queries.iter_mut().zip(rotated[first * head_dim..].chunks_exact(head_dim)) {
            *query = &rotated[..head_dim];
        }
        let mut keys: [&[[N; LANES]]; V] = [&[]; V];
        for (at, keys) in keys.iter_mut().enumerate() {
            let part = &self.parts[(vector + at) / vectors];
            *keys = &part.keys.as_chunks::<LANES>().0[(vector + at) % vectors..];
        }
        let mut scores = [[simd.splat(0.0); V]; Q];
        for dim in 0..head_dim {
            let mut loaded = [simd.splat(0.0); V];
            for (loaded, keys) in loaded.iter_mut().zip(keys) {
                *loaded = N::load(simd, &keys[dim * vectors]);
            }
            for (scores, query) in scores.iter_mut().zip(queries) {
                let query = simd.splat(query[dim]);
                for (score, keys) in scores.iter_mut().zip(loaded) {
                    *score = simd.mul_add(query, keys, *score);
                }
            }
        }
        for (index, scores) in scores.into_iter().enumerate() {
            for (at, mut score) in scores.into_iter().enumerate() {
                let (part, in_part) = (&self.parts[(vector + at) / vectors], (vector + at) % vectors);
                if let Some([scales, _]) = part.scales {
                    score = simd.mul(score, simd.load(&scales.as_chunks::<LANES>().0[in_part]));
                }
                simd.store(score, &mut weights[index * BLOCKS_PER_FOLD * vectors + vector + at]);
            }
        }
    }

    /// Makes weights of the scores of one query, which sees as many positions; those of all others are none.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, first: usize, index: usize, visible: usize) {
        let Queries { slots, dims, sums, states, weights, .. } = &mut *self.queries;
        let vectors = *slots / LANES;
        let weights = &mut weights[index * BLOCKS_PER_FOLD * vectors..][..self.parts.len() * vectors];
        if visible == 0 {
            weights.fill([0.0; LANES]);
            return;
        }
        // Of a block's positions, as many as it sees.
        let seen = |block: usize, part: &Part<'_, N>| {
            visible.saturating_sub(block * self.position.block_size).min(part.values.len() / *dims)
        };
        for (block, (part, weights)) in self.parts.iter().zip(weights.chunks_exact_mut(vectors)).enumerate() {
            weights.as_flattened_mut()[seen(block, part)..].fill(f32::NEG_INFINITY);
        }
        let state = &mut states[first + index];
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        let dim_vectors = *dims / LANES;
        state.raise(simd, weights, &mut sums[(first + index) * dim_vectors..][..dim_vectors]);
        let mut total = simd.splat(0.0);
        for (block, (part, weights)) in self.parts.iter().zip(weights.chunks_exact_mut(vectors)).enumerate() {
            for weights in &mut *weights {
                simd.store(simd.exp(simd.sub(simd.load(weights), simd.splat(state.max))), weights);
            }
            weights.as_flattened_mut()[seen(block, part)..].fill(0.0);
            for (vector, weights) in weights.iter_mut().enumerate() {
                let weight = simd.load(weights);
                total = simd.add(total, weight);
                // A value's scale goes into its weight, once it has been counted.
                if let Some([_, scales]) = part.scales {
                    simd.store(simd.mul(weight, simd.load(&scales.as_chunks::<LANES>().0[vector])), weights);
                }
            }
        }
        state.total += simd.sum(total);
    }

    /// Adds the values of the `most` positions that one of `Q` queries sees, times their weights, to `D` vectors of their
    /// sums.
    #[inline(always)]
    fn add_values<S: Simd, const Q: usize, const D: usize>(
        &mut self,
        simd: S,
        first: usize,
        vector: usize,
        most: usize,
    ) {
        let Queries { slots, dims, sums, weights, .. } = &mut *self.queries;
        let (slots, dim_vectors) = (*slots, *dims / LANES);
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        let weights = weights.as_flattened();
        let mut folded = [[simd.splat(0.0); D]; Q];
        for (index, folded) in folded.iter_mut().enumerate() {
            let sums = &sums[(first + index) * dim_vectors + vector..][..D];
            for (folded, sum) in folded.iter_mut().zip(sums) {
                *folded = simd.load(sum);
            }
        }
        for (block, part) in self.parts.iter().enumerate() {
            let (values, _) = part.values.as_chunks::<LANES>();
            let used = (values.len() / dim_vectors).min(most - block * self.position.block_size);
            let mut of_queries: [&[f32]; Q] = [&[]; Q];
            for (index, weights_of) in of_queries.iter_mut().enumerate() {
                *weights_of = &weights[(index * BLOCKS_PER_FOLD + block) * slots..][..used];
            }
            for slot in 0..used {
                let values = &values[slot * dim_vectors + vector..][..D];
                let mut loaded = [simd.splat(0.0); D];
                for (loaded, values) in loaded.iter_mut().zip(values) {
                    *loaded = N::load(simd, values);
                }
                for (folded, weights) in folded.iter_mut().zip(of_queries) {
                    let weight = simd.splat(weights[slot]);
                    for (folded, values) in folded.iter_mut().zip(loaded) {
                        *folded = simd.mul_add(weight, values, *folded);
                    }
                }
            }
        }
        for (index, folded) in folded.into_iter().enumerate() {
            let sums = &mut sums[(first + index) * dim_vectors + vector..][..D];
            for (folded, sum) in folded.into_iter().zip(sums) {
                simd.store(folded, sum);
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
}

/// Some blocks' numbers as `f32`, without their scales.
#[derive(Debug, Default)]
pub(super) struct Wide {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Wide {
    /// The block that was widened as the `index`th, of a layout and with the scales of what it was made from.
    pub(super) fn part<'a, N>(
        &'a self,
        layout: &KvLayout,
        index: usize,
        from: &Part<'a, N>,
    ) -> Part<'a, f32> {
        Part {
            keys: &self.keys[index * layout.key_block()..][..from.keys.len()],
            values: &self.values[index * layout.value_block()..][..from.values.len()],
            scales: from.scales,
        }
    }
}

/// Makes some blocks' numbers `f32`.
pub(super) struct Widen<'a, N> {
    pub(super) from: &'a [Part<'a, N>],
    pub(super) to: &'a mut Wide,
}

impl<N: Number> Work for Widen<'_, N> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { from, to } = self;
        to.keys.clear();
        to.values.clear();
        for part in from {
            for (from, to) in [(part.keys, &mut to.keys), (part.values, &mut to.values)] {
                let start = to.len();
                to.resize(start + from.len(), 0.0);
                for (from, to) in
                    from.as_chunks::<LANES>().0.iter().zip(to[start..].as_chunks_mut::<LANES>().0)
                {
                    simd.store(N::load(simd, from), to);
                }
            }
        }
    }
}
