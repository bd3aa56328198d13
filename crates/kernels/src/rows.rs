//! Activations in two bytes.
//!
//! One byte would do for speed and nearly for perplexity, but a small model then answers easy questions wrongly. A value
//! is 255 · high + low, both within ±127: two products of bytes, joined in integers, so that nothing is rounded between.

use crate::matrix::{GROUP, OFFSET};
use crate::pool::Pool;
use crate::simd::{Form, LANES, Simd, Work};

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
    /// Four signed bytes each: the high part of each value.
    pub(crate) high: [i32; GROUP / 4],
    /// The low part.
    pub(crate) low: [i32; GROUP / 4],
    pub(crate) scale: f32,
    /// Takes back what was added to each weight: minus the sum of the values, as many times.
    pub(crate) offset: i32,
    /// The sum of the values: times what weights of four bits have in common.
    pub(crate) sum: f32,
}

impl Rows {
    /// Quantizes (rows, `width`) numbers. Each row's numbers go through `prepare` first, from one slice to another.
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

    pub(crate) const fn bytes_per_row(&self) -> usize {
        self.num_groups * size_of::<Group>()
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
    let inverse = VALUE_MAX / largest;
    let inverse = simd.splat(if inverse.is_finite() { inverse } else { 0.0 });
    let (mut high, mut low) = ([[0; LANES]; GROUP / LANES], [[0; LANES]; GROUP / LANES]);
    let mut sum = zero;
    for ((half, high), low) in halves.iter().zip(&mut high).zip(&mut low) {
        let rounded = simd.round(simd.mul(simd.load(half), inverse));
        let of_high = simd.round(simd.mul(rounded, simd.splat(BASE.recip())));
        simd.store_bytes(of_high, high);
        simd.store_bytes(simd.sub(rounded, simd.mul(of_high, simd.splat(BASE))), low);
        sum = simd.add(sum, rounded);
    }
    // Exact, being below 2^24; no number, if one of them is none.
    let sum = simd.sum(sum);
    group.high = quads(high.as_flattened());
    group.low = quads(low.as_flattened());
    // Maxima and conversions to integers would hide what is no number.
    group.scale = largest / VALUE_MAX + sum * 0.0;
    group.offset = -OFFSET * sum as i32;
    group.sum = sum;
}

#[inline(always)]
fn quads(bytes: &[i8]) -> [i32; GROUP / 4] {
    let (quads, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|at| i32::from_le_bytes(quads[at].map(i8::cast_unsigned)))
}

/// What the high part counts.
const BASE: f32 = 255.0;
/// The largest value of both parts.
const VALUE_MAX: f32 = 127.0 * BASE + 127.0;
