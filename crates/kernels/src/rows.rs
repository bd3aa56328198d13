//! Activations in 8 bits.

use crate::matrix::{GROUP, OFFSET};
use crate::pool::Pool;
use crate::simd::{Form, LANES, Lanes, Simd, Work};

/// Rows of activations, quantized in groups of [`GROUP`]; each value is within half a scale of what it was.
#[derive(Debug, Default)]
pub struct Rows {
    num_rows: usize,
    num_groups: usize,
    groups: Vec<Group>,
}

/// One group of one row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Group {
    /// Four signed bytes each.
    pub(crate) quads: [i32; GROUP / 4],
    pub(crate) scale: f32,
    /// Minus the sum of the values: times what was added to each weight, it takes that back.
    pub(crate) minus_sum: i32,
}

impl Rows {
    /// Quantizes (rows, `width`) numbers. Each row may be changed before by `prepare`, which is given the row's index
    /// and its numbers.
    pub(crate) fn new(
        pool: &Pool,
        x: &[f32],
        width: usize,
        prepare: impl Fn(Form, &[f32], &mut [f32]) + Sync,
    ) -> Self {
        let num_rows = x.len().checked_div(width).unwrap_or(0);
        assert_eq!(x.len(), num_rows * width, "rows are whole");
        let num_groups = width.div_ceil(GROUP);
        let mut groups = vec![Group::default(); num_rows * num_groups];
        let form = pool.form();
        let chunks: Vec<_> = groups.chunks_mut(num_groups.max(1) * ROWS_PER_CHUNK).collect();
        pool.for_each(chunks, |index, chunk| {
            let mut prepared = vec![0.0; num_groups * GROUP];
            for (row, groups) in chunk.chunks_exact_mut(num_groups).enumerate() {
                let row = index * ROWS_PER_CHUNK + row;
                prepare(form, &x[row * width..(row + 1) * width], &mut prepared[..width]);
                form.run(Quantize { x: &prepared, groups });
            }
        });
        Self { num_rows, num_groups, groups }
    }

    /// Quantizes (rows, `width`) numbers.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn quantize(pool: &Pool, x: &[f32], width: usize) -> Self {
        Self::new(pool, x, width, |_, x, prepared| prepared.copy_from_slice(x))
    }

    /// Norms rows as [`crate::rms_norm`] does, and quantizes what comes of it.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn norm_and_quantize(pool: &Pool, x: &[f32], weight: &[f32], eps: f32) -> Self {
        Self::new(pool, x, weight.len(), |form, x, prepared| {
            crate::norm::norm_row(form, x, weight, eps, prepared);
        })
    }

    /// How many there are.
    pub const fn num_rows(&self) -> usize {
        self.num_rows
    }

    pub(crate) const fn num_groups(&self) -> usize {
        self.num_groups
    }

    pub(crate) fn row(&self, row: usize) -> &[Group] {
        &self.groups[row * self.num_groups..(row + 1) * self.num_groups]
    }
}

/// Few enough that a prompt's rows are spread over threads, enough that handing them out costs nothing.
const ROWS_PER_CHUNK: usize = 8;

/// Quantizes one padded row.
struct Quantize<'a> {
    x: &'a [f32],
    groups: &'a mut [Group],
}

impl Work for Quantize<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, groups } = self;
        for (x, group) in x.as_chunks::<GROUP>().0.iter().zip(groups) {
            quantize_group(simd, x, group);
        }
    }
}

#[inline(always)]
fn quantize_group<S: Simd>(simd: S, x: &[f32; GROUP], group: &mut Group) {
    let (halves, _) = x.as_chunks::<LANES>();
    let zero = simd.splat(0.0);
    let mut largest = zero;
    for half in halves {
        let half = simd.load(half);
        largest = simd.max(largest, simd.max(half, simd.sub(zero, half)));
    }
    let largest = simd.largest(largest);
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut quantized = [0_i8; GROUP];
    for (half, quantized) in halves.iter().zip(quantized.as_chunks_mut::<LANES>().0) {
        let rounded = simd.round(simd.mul(simd.load(half), simd.splat(inverse)));
        let mut lanes: Lanes = [0.0; LANES];
        simd.store(rounded, &mut lanes);
        for (quantized, lane) in quantized.iter_mut().zip(lanes) {
            // Rust's conversion saturates, and makes 0 of NaN.
            *quantized = lane as i8;
        }
    }
    let mut minus_sum = 0;
    for value in quantized {
        minus_sum -= i32::from(value);
    }
    for (quad, bytes) in group.quads.iter_mut().zip(quantized.as_chunks::<4>().0) {
        *quad = i32::from_le_bytes(bytes.map(i8::cast_unsigned));
    }
    group.scale = largest / 127.0;
    group.minus_sum = minus_sum;
}

const _: () = assert!(OFFSET == 128, "weights have 128 added, and sums of activations take it back");
