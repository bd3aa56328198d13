//! Products of rows with one panel of a matrix, in registers.

use crate::four_bits::Nibbles;
use crate::matrix::{GROUP, Halves, Panel, Quad, Quads, VECTORS};
use crate::rows::{Group, Rows};
use crate::simd::{Lanes, Simd, Work};

/// How far ahead weights are asked for: what is computed in the time that memory takes to answer.
const PREFETCH_BYTES: usize = 4 << 10;

/// A row's products with a panel.
pub(crate) type Sums = [Lanes; VECTORS];

/// The products of some rows with one panel.
pub(crate) struct PanelSums<'a> {
    pub(crate) panel: Panel<'a>,
    pub(crate) rows: &'a Rows,
    /// The first of the rows; as many as there are `sums`.
    pub(crate) first: usize,
    pub(crate) sums: &'a mut [Sums],
}

impl Work for PanelSums<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(S::ROWS <= 4, "larger tiles have no arm below") };
        let Self { panel, rows, first, sums } = self;
        for (index, sums) in sums.chunks_mut(S::ROWS).enumerate() {
            let first = first + index * S::ROWS;
            match sums.len() {
                4 => tile_of::<S, 4>(simd, panel, rows, first, sums),
                3 => tile_of::<S, 3>(simd, panel, rows, first, sums),
                2 => tile_of::<S, 2>(simd, panel, rows, first, sums),
                _ => tile_of::<S, 1>(simd, panel, rows, first, sums),
            }
        }
    }
}

/// `M` rows times one panel.
#[inline(always)]
fn tile_of<S: Simd, const M: usize>(
    simd: S,
    panel: Panel<'_>,
    rows: &Rows,
    first: usize,
    output: &mut [Sums],
) {
    let rows = std::array::from_fn(|index| rows.row(first + index));
    let sums = match panel {
        Panel::Int8(quads, scales) => tile_of_8_bits::<S, M>(simd, quads, scales, rows),
        Panel::Int4(nibbles) => tile_of_4_bits::<S, M>(simd, nibbles, rows),
    };
    for (sums, output) in sums.into_iter().zip(output) {
        for (sum, output) in sums.into_iter().zip(output) {
            simd.store(sum, output);
        }
    }
}

/// Sums of a group are exact; groups are added in the order of inputs, whatever `M` is.
#[inline(always)]
fn tile_of_8_bits<S: Simd, const M: usize>(
    simd: S,
    quads: &[Quads],
    scales: &[Halves],
    rows: [&[Group]; M],
) -> [[S::F32; VECTORS]; M] {
    let rows = rows.map(|groups| &groups[..quads.len()]);
    let mut sums = [[simd.splat(0.0); VECTORS]; M];
    for (at, (quads, scales)) in quads.iter().zip(scales).enumerate() {
        let (mut high, mut low) = ([[simd.splat_i32(0); VECTORS]; M], [[simd.splat_i32(0); VECTORS]; M]);
        for (low, groups) in low.iter_mut().zip(rows) {
            *low = [simd.splat_i32(if S::KEEPS_OFFSET { groups[at].offset } else { 0 }); VECTORS];
        }
        for (index, weights) in quads.0.iter().enumerate() {
            prefetch::<S, M>(simd, weights);
            let weights = weights.each_ref().map(|weights| simd.load_weights(weights));
            for ((high, low), groups) in high.iter_mut().zip(&mut low).zip(rows) {
                let [of_high, of_low] =
                    [&groups[at].high[index], &groups[at].low[index]].map(|quad| simd.load_quad(quad));
                for ((high, low), weights) in high.iter_mut().zip(low).zip(weights) {
                    *high = simd.dot(*high, weights, of_high);
                    *low = simd.dot(*low, weights, of_low);
                }
            }
        }
        let scales = scales.each_ref().map(|scales| simd.load_half(scales));
        for (((sums, high), low), groups) in sums.iter_mut().zip(high).zip(low).zip(rows) {
            for (((sum, high), low), scales) in sums.iter_mut().zip(high).zip(low).zip(scales) {
                let scaled = simd.mul(simd.to_f32(simd.join(high, low)), scales);
                *sum = simd.mul_add(scaled, simd.splat(groups[at].scale), *sum);
            }
        }
    }
    sums
}

/// The same with weights of four bits. Sums of a group are exact as floats, too, being below 2^24; what all weights have
/// in common is multiplied with the sum of the values.
#[inline(always)]
fn tile_of_4_bits<S: Simd, const M: usize>(
    simd: S,
    nibbles: &[Nibbles],
    rows: [&[Group]; M],
) -> [[S::F32; VECTORS]; M] {
    let rows = rows.map(|groups| &groups[..nibbles.len()]);
    let mut sums = [[simd.splat(0.0); VECTORS]; M];
    for (at, nibbles) in nibbles.iter().enumerate() {
        let (mut high, mut low) = ([[simd.splat_i32(0); VECTORS]; M], [[simd.splat_i32(0); VECTORS]; M]);
        for (index, both) in nibbles.quads.iter().enumerate() {
            prefetch::<S, M>(simd, both);
            let both = both.each_ref().map(|both| simd.load_nibbles(both));
            for (half, index) in [index, index + GROUP / 8].into_iter().enumerate() {
                for ((high, low), groups) in high.iter_mut().zip(&mut low).zip(rows) {
                    let [of_high, of_low] =
                        [&groups[at].high[index], &groups[at].low[index]].map(|quad| simd.load_quad(quad));
                    for ((high, low), both) in high.iter_mut().zip(low).zip(both) {
                        *high = simd.dot_nibbles(*high, both[half], of_high);
                        *low = simd.dot_nibbles(*low, both[half], of_low);
                    }
                }
            }
        }
        let scales = nibbles.scales.each_ref().map(|scales| simd.load_half(scales));
        let minima = nibbles.minima.each_ref().map(|minima| simd.load_half(minima));
        for (((sums, high), low), groups) in sums.iter_mut().zip(high).zip(low).zip(rows) {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let of_minima = simd.mul(minima[vector], simd.splat(groups[at].sum));
                let joined = simd.to_f32(simd.join(high[vector], low[vector]));
                let scaled = simd.mul_add(joined, scales[vector], of_minima);
                *sum = simd.mul_add(scaled, simd.splat(groups[at].scale), *sum);
            }
        }
    }
    sums
}

/// Asks for weights some way behind these.
#[inline(always)]
fn prefetch<S: Simd, const M: usize>(simd: S, weights: &Quad) {
    // For a few rows the processor finds the way by itself.
    if M > 2 {
        for weights in weights {
            simd.prefetch(weights, PREFETCH_BYTES);
        }
    }
}
