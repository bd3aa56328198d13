//! Attention over a KV-cache in blocks.

#![expect(unsafe_code, reason = "threads write different heads of the same rows")]

mod cache;
mod fold;
#[cfg(test)]
mod tests;

pub use cache::{KvCache, KvFormat, KvLayout};

use cache::{Number, Numbers, Part, Store};
use fold::{BLOCKS_PER_FOLD, FoldBlocks, Position, Queries, Wide, Widen};

use crate::columns::Columns;
use crate::pool::Pool;
use crate::simd::Form;

/// Rows of one sequence that are computed together, so that each block is read once for all of them.
const ROWS_PER_TILE: usize = 16;
/// More queries than these read a block so often that it is turned into `f32` once, in memory, and not each time in
/// registers.
const QUERIES_WORTH_WIDENING: usize = 8;

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
    /// Who the rows belong to, in the order of rows.
    pub runs: &'a [AttentionRun<'a>],
}

impl KvCache {
    /// Lets each row attend to its own sequence up to its own position, into `output` (T, heads, head_dim).
    ///
    /// # Panics
    /// If widths or heads do not fit together, runs share rows, or a block is beyond the cache.
    pub fn attend(&self, pool: &Pool, batch: &AttentionBatch<'_>, output: &mut [f32]) {
        assert_eq!(batch.query.len(), output.len(), "an output for each query");
        let whole_groups = batch.num_heads.is_multiple_of(self.layout.num_kv_heads);
        assert!(whole_groups, "as many query heads for each kv head");
        let apart = batch.runs.windows(2).all(|pair| pair[0].row + pair[0].len <= pair[1].row);
        assert!(apart, "runs in the order of rows, none of which is in two");
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
        let mut queries = Queries::new(tile.len * group, &self.layout);
        // Row and column of one of the tile's queries.
        let place_of = |query: usize| {
            let row = tile.run.row + tile.first + query / group;
            let head = tile.kv_head * group + query % group;
            (row, head * head_dim)
        };
        let scale = (head_dim as f32).sqrt().recip();
        for (index, query) in queries.rotated.chunks_exact_mut(head_dim).enumerate() {
            let (row, column) = place_of(index);
            let from = row * batch.num_heads * head_dim + column;
            batch.rope.rotate(row, &batch.query[from..from + head_dim], query);
            query.iter_mut().for_each(|value| *value *= scale);
        }
        match &self.numbers {
            Numbers::F16(store) => self.fold_blocks(store, form, &mut queries, tile, group),
            Numbers::F32(store) => self.fold_blocks(store, form, &mut queries, tile, group),
            Numbers::Int8(store) => self.fold_blocks(store, form, &mut queries, tile, group),
        }
        for (index, (sum, state)) in
            queries.sums.chunks_exact(self.layout.dims()).zip(&queries.states).enumerate()
        {
            let (row, column) = place_of(index);
            // SAFETY: no row is in two runs, and its part for the heads of one kv head is in one tile.
            let output = unsafe { output.part(row, column, head_dim) };
            for (output, sum) in output.iter_mut().zip(sum) {
                *output = sum / state.total;
            }
        }
    }

    /// Goes over the blocks once; for all queries of the tile each.
    fn fold_blocks<N: Number>(
        &self,
        store: &Store<N>,
        form: Form,
        queries: &mut Queries,
        tile: Tile<'_>,
        group: usize,
    ) {
        let block_size = self.layout.block_size;
        let first = tile.run.start + tile.first;
        let end = first + tile.len;
        let table = &tile.run.block_table[..end.div_ceil(block_size)];
        let mut wide = Wide::default();
        for (index, blocks) in table.chunks(BLOCKS_PER_FOLD).enumerate() {
            let start = index * BLOCKS_PER_FOLD * block_size;
            let position = Position { first, group, start, block_size };
            let mut parts = [Part::EMPTY; BLOCKS_PER_FOLD];
            for (index, (part, block)) in parts.iter_mut().zip(blocks).enumerate() {
                let used = (end - start - index * block_size).min(block_size);
                *part = store.part(&self.layout, *block, tile.kv_head, used);
            }
            let parts = &parts[..blocks.len()];
            if N::IS_NARROW && queries.len() > QUERIES_WORTH_WIDENING {
                form.run(Widen { from: parts, to: &mut wide });
                let mut widened = [Part::EMPTY; BLOCKS_PER_FOLD];
                for (index, (to, from)) in widened.iter_mut().zip(parts).enumerate() {
                    *to = wide.part(&self.layout, index, from);
                }
                form.run(FoldBlocks { queries, parts: &widened[..blocks.len()], position });
            } else {
                form.run(FoldBlocks { queries, parts, position });
            }
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
