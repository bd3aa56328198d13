//! Products of quantized rows with quantized matrices.

#![expect(unsafe_code, reason = "threads write different columns of the same rows")]

use crate::columns::Columns;
use crate::matrix::Matrix;
use crate::norm::SwiGlu;
use crate::panel::PanelSums;
use crate::pool::Pool;
use crate::rows::Rows;
use crate::simd::{LANES, Lanes};

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
