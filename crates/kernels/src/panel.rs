//! Products of rows with one panel of a matrix, in registers.

use crate::four_bits::Nibbles;
use crate::matrix::{GROUP, Panel, Quads};
use crate::rows::{Group, Rows};
use crate::simd::{LANES, Lanes, Simd, Work};

/// Rows that are computed together, so that each weight is loaded once for all of them: as many as there are registers
/// for their sums.
const TILE: usize = 8;
/// How far ahead weights are asked for: what is computed in the time that memory takes to answer.
const PREFETCH_BYTES: usize = 4 << 10;

/// The sums of one panel, for each row.
pub(crate) struct PanelSums<'a> {
    pub(crate) panel: Panel<'a>,
    pub(crate) rows: &'a Rows,
    pub(crate) sums: &'a mut [Lanes],
}

impl Work for PanelSums<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { panel, rows, sums } = self;
        let mut first = 0;
        while first + TILE <= sums.len() {
            tile::<S, TILE>(simd, panel, rows, first, sums);
            first += TILE;
        }
        if first + TILE / 2 <= sums.len() {
            tile::<S, { TILE / 2 }>(simd, panel, rows, first, sums);
            first += TILE / 2;
        }
        match sums.len() - first {
            3 => tile::<S, 3>(simd, panel, rows, first, sums),
            2 => tile::<S, 2>(simd, panel, rows, first, sums),
            1 => tile::<S, 1>(simd, panel, rows, first, sums),
            _ => {}
        }
    }
}

/// `M` rows times one panel.
#[inline(always)]
fn tile<S: Simd, const M: usize>(simd: S, panel: Panel<'_>, rows: &Rows, first: usize, output: &mut [Lanes]) {
    match panel {
        Panel::Int8(quads, scales) => tile_of_8_bits::<S, M>(simd, (quads, scales), rows, first, output),
        Panel::Int4(nibbles) => tile_of_4_bits::<S, M>(simd, nibbles, rows, first, output),
    }
}

/// The first `len` groups of `M` rows.
#[inline(always)]
fn groups_of<const M: usize>(rows: &Rows, first: usize, len: usize) -> [&[Group]; M] {
    std::array::from_fn(|index| &rows.row(first + index)[..len])
}

/// Sums of a group are exact; groups are added in the order of inputs, whatever `M` is.
#[inline(always)]
fn tile_of_8_bits<S: Simd, const M: usize>(
    simd: S,
    (quads, scales): (&[Quads], &[[u16; LANES]]),
    rows: &Rows,
    first: usize,
    output: &mut [Lanes],
) {
    let row_groups = groups_of::<M>(rows, first, quads.len());
    let mut sums = [simd.splat(0.0); M];
    for (at, (quads, scales)) in quads.iter().zip(scales).enumerate() {
        let (mut high, mut low) = ([simd.splat_i32(0); M], [simd.splat_i32(0); M]);
        for (low, groups) in low.iter_mut().zip(row_groups) {
            *low = simd.splat_i32(if S::KEEPS_OFFSET { groups[at].offset } else { 0 });
        }
        for (index, weights) in quads.0.iter().enumerate() {
            // For a few rows the processor finds the way by itself.
            if M >= TILE / 2 {
                simd.prefetch(weights, PREFETCH_BYTES);
            }
            let weights = simd.load_weights(weights);
            for ((high, low), groups) in high.iter_mut().zip(&mut low).zip(row_groups) {
                *high = simd.dot(*high, weights, groups[at].high[index]);
                *low = simd.dot(*low, weights, groups[at].low[index]);
            }
        }
        let scales = simd.load_half(scales);
        for (((sum, high), low), groups) in sums.iter_mut().zip(high).zip(low).zip(row_groups) {
            let scaled = simd.mul(simd.to_f32(simd.join(high, low)), scales);
            *sum = simd.mul_add(scaled, simd.splat(groups[at].scale), *sum);
        }
    }
    for (sum, output) in sums.into_iter().zip(&mut output[first..first + M]) {
        simd.store(sum, output);
    }
}

/// The same with weights of four bits. Sums of a group are exact as floats, too, being below 2^24; what all weights have
/// in common is multiplied with the sum of the values.
#[inline(always)]
fn tile_of_4_bits<S: Simd, const M: usize>(
    simd: S,
    nibbles: &[Nibbles],
    rows: &Rows,
    first: usize,
    output: &mut [Lanes],
) {
    let row_groups = groups_of::<M>(rows, first, nibbles.len());
    let mut sums = [simd.splat(0.0); M];
    for (at, nibbles) in nibbles.iter().enumerate() {
        let (mut high, mut low) = ([simd.splat_i32(0); M], [simd.splat_i32(0); M]);
        for (index, both) in nibbles.vectors.iter().enumerate() {
            // As above.
            if M >= TILE / 2 {
                simd.prefetch(both, PREFETCH_BYTES);
            }
            let [lower, upper] = simd.load_nibbles(both);
            for ((high, low), groups) in high.iter_mut().zip(&mut low).zip(row_groups) {
                let (group, further) = (&groups[at], index + GROUP / 8);
                *high = simd.dot_nibbles(*high, lower, group.high[index]);
                *low = simd.dot_nibbles(*low, lower, group.low[index]);
                *high = simd.dot_nibbles(*high, upper, group.high[further]);
                *low = simd.dot_nibbles(*low, upper, group.low[further]);
            }
        }
        let (scales, minima) = (simd.load_half(&nibbles.scales), simd.load_half(&nibbles.minima));
        for (((sum, high), low), groups) in sums.iter_mut().zip(high).zip(low).zip(row_groups) {
            let of_minima = simd.mul(minima, simd.splat(groups[at].sum));
            let scaled = simd.mul_add(simd.to_f32(simd.join(high, low)), scales, of_minima);
            *sum = simd.mul_add(scaled, simd.splat(groups[at].scale), *sum);
        }
    }
    for (sum, output) in sums.into_iter().zip(&mut output[first..first + M]) {
        simd.store(sum, output);
    }
}
