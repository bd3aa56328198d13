//! Products of quantized rows with quantized matrices.

#![expect(unsafe_code, reason = "threads write different columns of the same rows")]

use crate::columns::Columns;
use crate::matrix::{Matrix, Quads};
use crate::norm::SwiGlu;
use crate::pool::Pool;
use crate::rows::{Group, Rows};
use crate::simd::{LANES, Lanes, Simd, Work};

/// Rows that are computed together, so that each weight is loaded once for all of them: as many as there are registers
/// for their sums.
const TILE: usize = 8;
/// How far ahead weights are asked for: what is computed in the time that memory takes to answer.
const PREFETCH_BYTES: usize = 4 << 10;
/// The least work that is worth handing to another thread, in multiply-adds.
const MULTIPLY_ADDS_PER_CHUNK: usize = 1 << 17;

/// A product to be computed: `output` (rows, outputs) is `rows · matrixᵀ`, added to what is there already if `add`.
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// (outputs)
    pub bias: Option<&'a [f32]>,
    /// (rows, outputs)
    pub output: &'a mut [f32],
    /// Adds to `output` instead of overwriting it.
    pub add: bool,
}

/// Computes several products of the same rows.
///
/// # Panics
/// If widths do not fit together.
pub fn products(pool: &Pool, rows: &Rows, products: &mut [Product<'_>]) {
    let work: Vec<_> = products
        .iter_mut()
        .map(|product| {
            check(product.matrix, rows, product.output.len());
            assert!(
                product.bias.is_none_or(|bias| bias.len() == product.matrix.outputs()),
                "a bias an output"
            );
            let columns = Columns::new(product.output, product.matrix.outputs());
            (product.matrix, product.bias, columns, product.add)
        })
        .collect();
    let panels_per_chunk = |matrix: &Matrix| panels_per_chunk(matrix, rows.num_rows());
    let chunks: Vec<_> = work
        .iter()
        .flat_map(|part| {
            let step = panels_per_chunk(part.0);
            (0..part.0.num_panels()).step_by(step).map(move |first| (part, first, step))
        })
        .collect();
    let form = pool.form();
    pool.for_each(chunks, |_, ((matrix, bias, columns, add), first, step)| {
        let mut sums = vec![[0.0; LANES]; rows.num_rows()];
        for panel in first..(first + step).min(matrix.num_panels()) {
            form.run(PanelSums { panel: matrix.panel(panel), rows, sums: &mut sums });
            // SAFETY: each panel is in one chunk.
            unsafe {
                write_panel(columns, panel, &sums, |column, output, sums| {
                    for (lane, (output, sum)) in output.iter_mut().zip(sums).enumerate() {
                        let value = sum + bias.map_or(0.0, |bias| bias[column + lane]);
                        *output = if *add { *output + value } else { value };
                    }
                });
            }
        }
    });
}

/// `output` (rows, outputs) is `silu(rows · gateᵀ) · (rows · upᵀ)`.
///
/// # Panics
/// If widths do not fit together.
pub fn gated_product(pool: &Pool, rows: &Rows, gate: &Matrix, up: &Matrix, output: &mut [f32]) {
    check(gate, rows, output.len());
    check(up, rows, output.len());
    assert_eq!(gate.outputs(), up.outputs(), "gate and up are equally wide");
    let columns = Columns::new(output, gate.outputs());
    let step = panels_per_chunk(gate, 2 * rows.num_rows());
    let chunks: Vec<_> = (0..gate.num_panels()).step_by(step).collect();
    let form = pool.form();
    pool.for_each(chunks, |_, first| {
        let (mut gates, mut ups) = (vec![[0.0; LANES]; rows.num_rows()], vec![[0.0; LANES]; rows.num_rows()]);
        for panel in first..(first + step).min(gate.num_panels()) {
            form.run(PanelSums { panel: gate.panel(panel), rows, sums: &mut gates });
            form.run(PanelSums { panel: up.panel(panel), rows, sums: &mut ups });
            form.run(SwiGlu { gate: &gates, up: &mut ups });
            // SAFETY: each panel is in one chunk.
            unsafe { write_panel(&columns, panel, &ups, |_, output, values| output.copy_from_slice(values)) };
        }
    });
}

/// Calls `write` with a panel's first column, each row's part of it, and what was computed for that.
///
/// # Safety
/// Meanwhile nobody else may use this panel's columns.
unsafe fn write_panel(
    columns: &Columns<'_>,
    panel: usize,
    sums: &[Lanes],
    write: impl Fn(usize, &mut [f32], &[f32]),
) {
    let column = panel * LANES;
    let len = LANES.min(columns.width() - column);
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: alone, by the caller's promise, and one row after the other.
        write(column, unsafe { columns.part(row, column, len) }, &sums[..len]);
    }
}

fn check(matrix: &Matrix, rows: &Rows, output: usize) {
    assert_eq!(matrix.num_groups(), rows.num_groups(), "rows are as wide as the matrix");
    assert_eq!(
        output,
        rows.num_rows() * matrix.outputs(),
        "an output for each row and each of the matrix's rows"
    );
}

fn panels_per_chunk(matrix: &Matrix, num_rows: usize) -> usize {
    let per_panel = (num_rows * matrix.inputs() * LANES).max(1);
    MULTIPLY_ADDS_PER_CHUNK.div_ceil(per_panel)
}

/// The sums of one panel, for each row.
struct PanelSums<'a> {
    panel: (&'a [Quads], &'a [[u16; LANES]]),
    rows: &'a Rows,
    sums: &'a mut [Lanes],
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

/// `M` rows times one panel. Sums of a group are exact; groups are added in the order of inputs, whatever `M` is.
#[inline(always)]
fn tile<S: Simd, const M: usize>(
    simd: S,
    (quads, scales): (&[Quads], &[[u16; LANES]]),
    rows: &Rows,
    first: usize,
    output: &mut [Lanes],
) {
    let mut row_groups: [&[Group]; M] = [&[]; M];
    for (index, groups) in row_groups.iter_mut().enumerate() {
        *groups = &rows.row(first + index)[..quads.len()];
    }
    let mut sums = [simd.splat(0.0); M];
    for (at, (quads, scales)) in quads.iter().zip(scales).enumerate() {
        let (mut high, mut low) = ([simd.splat_i32(0); M], [simd.splat_i32(0); M]);
        for (low, groups) in low.iter_mut().zip(row_groups) {
            *low = simd.splat_i32(S::OFFSET * groups[at].minus_sum);
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
