//! Products of quantized rows with quantized matrices.

#![expect(unsafe_code, reason = "threads write different columns of the same rows")]

use std::ops::Range;

use crate::columns::Columns;
use crate::matrix::{Matrix, PANEL, VECTORS};
use crate::norm::SwiGlu;
use crate::panel::{PanelSums, Sums};
use crate::pool::Pool;
use crate::rows::Rows;
use crate::simd::LANES;

/// How much work is handed to a thread at a time, in multiply-adds: some microseconds.
const MULTIPLY_ADDS_PER_CHUNK: usize = 1 << 18;

/// How much memory a block of rows may take, and the fewest rows that are worth going over all weights for.
const BYTES_PER_BLOCK: usize = 512 << 10;
const ROWS_PER_BLOCK_MIN: usize = 32;

const NOTHING: Sums = [[0.0; LANES]; VECTORS];

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
    let chunks: Vec<_> = blocks(rows)
        .flat_map(|block| work.iter().map(move |part| (part, block.clone())))
        .flat_map(|(part, block)| chunks(part.0, 1, block).map(move |chunk| (part, chunk)))
        .collect();
    let form = pool.form();
    pool.run(chunks.len(), &|index| {
        let ((matrix, bias, columns, add), Chunk { panels, rows: Range { start: first, end } }) =
            &chunks[index];
        let mut sums = vec![NOTHING; end - first];
        for panel in panels.clone() {
            form.run(PanelSums { panel: matrix.panel(panel), rows, first: *first, sums: &mut sums });
            // SAFETY: each panel of a block of rows is in one chunk.
            unsafe {
                write_panel(columns, panel, *first, &sums, |column, output, sums| {
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
    let chunks: Vec<_> = blocks(rows).flat_map(|block| chunks(gate, 2, block)).collect();
    let form = pool.form();
    pool.run(chunks.len(), &|index| {
        let Chunk { panels, rows: Range { start: first, end } } = &chunks[index];
        let (mut gates, mut ups) = (vec![NOTHING; end - first], vec![NOTHING; end - first]);
        for panel in panels.clone() {
            form.run(PanelSums { panel: gate.panel(panel), rows, first: *first, sums: &mut gates });
            form.run(PanelSums { panel: up.panel(panel), rows, first: *first, sums: &mut ups });
            form.run(SwiGlu { gate: gates.as_flattened(), up: ups.as_flattened_mut() });
            // SAFETY: each panel of a block of rows is in one chunk.
            unsafe {
                write_panel(&columns, panel, *first, &ups, |_, output, values| {
                    output.copy_from_slice(values)
                });
            }
        }
    });
}

/// A piece of work.
struct Chunk {
    panels: Range<usize>,
    rows: Range<usize>,
}

/// Blocks of rows, one after the other: those of a long prompt together would not fit the cache in which all weights
/// meet them.
fn blocks(rows: &Rows) -> impl Iterator<Item = Range<usize>> {
    let num_rows = rows.num_rows();
    let step = (BYTES_PER_BLOCK / rows.bytes_per_row().max(1)).max(ROWS_PER_BLOCK_MIN);
    (0..num_rows).step_by(step).map(move |first| first..(first + step).min(num_rows))
}

/// Pieces of as many products with matrices of one shape.
fn chunks(matrix: &Matrix, products: usize, rows: Range<usize>) -> impl Iterator<Item = Chunk> {
    let num_panels = matrix.num_panels();
    let multiply_adds = products * rows.len() * matrix.inputs() * matrix.outputs();
    let step = num_panels.div_ceil(multiply_adds.div_ceil(MULTIPLY_ADDS_PER_CHUNK).max(1)).max(1);
    let panels = (0..num_panels).step_by(step).map(move |first| first..(first + step).min(num_panels));
    panels.map(move |panels| Chunk { panels, rows: rows.clone() })
}

/// Calls `write` with a panel's first column, its part of each row from the `first` one, and what was computed for that.
///
/// # Safety
/// Meanwhile nobody else may use this panel's columns of these rows.
unsafe fn write_panel(
    columns: &Columns<'_>,
    panel: usize,
    first: usize,
    sums: &[Sums],
    write: impl Fn(usize, &mut [f32], &[f32]),
) {
    let column = panel * PANEL;
    let len = PANEL.min(columns.width() - column);
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: alone, by the caller's promise, and one row after the other.
        write(column, unsafe { columns.part(first + row, column, len) }, &sums.as_flattened()[..len]);
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
