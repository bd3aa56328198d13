//! Weights in 8 bits or 4, laid out for the order in which they are read.

mod unfinished;

use half::f16;

pub use self::unfinished::UnfinishedMatrix;
use crate::LANES;
use crate::four_bits::{FourBits, Nibbles};

/// Inputs that share a scale.
pub const GROUP: usize = 32;
/// Inputs that one instruction multiplies.
const QUAD: usize = 4;
/// Vectors of outputs that are computed together: what is loaded of a row is used for all of them.
pub(crate) const VECTORS: usize = 2;
/// Outputs of a panel.
pub(crate) const PANEL: usize = VECTORS * LANES;
/// Added to each weight, so that it is unsigned, as the instruction wants one of its operands.
pub(crate) const OFFSET: i32 = 128;

/// Added and taken away, it leaves the nearest integer, ties to even: numbers of its size have no fractions. The
/// processors that every build is for have no instruction for that.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// Four inputs of each output of a panel, or two such quads of four bits in a byte's halves.
pub(crate) type Quad = [[u8; QUAD * LANES]; VECTORS];
/// The bits of an `f16` of each output of a panel.
pub(crate) type Halves = [[u16; LANES]; VECTORS];

/// One group of inputs of one panel of outputs: four inputs of each output in turn.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Quads(pub(crate) [Quad; GROUP / QUAD]);

/// A weight matrix (out, in), as panels of outputs. Widths that do not fill a panel or a group are padded
/// with zeros.
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    /// (panel, group)
    groups: Groups,
}

enum Groups {
    /// Numbers and their scales.
    Int8(Vec<Quads>, Vec<Halves>),
    Int4(Vec<Nibbles>),
}

/// The groups of one panel.
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// Numbers and their scales.
    Int8(&'a [Quads], &'a [Halves]),
    Int4(&'a [Nibbles]),
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {})", self.outputs, self.inputs)
    }
}

impl Matrix {
    /// Quantizes `weights` (out, in), all of them numbers; see [`UnfinishedMatrix::of_8_bits`].
    ///
    /// # Panics
    /// If there are not as many weights as the shape says.
    pub fn new(outputs: usize, inputs: usize, weights: &[f32]) -> Self {
        let mut matrix = UnfinishedMatrix::of_8_bits(outputs, inputs);
        matrix.push(weights);
        matrix.finish()
    }

    /// Keeps weights (out, in) that were of four bits, given in groups (out, in / [`GROUP`]), as they were.
    ///
    /// # Panics
    /// If `inputs` are no whole groups, or there are not as many groups as the shape says.
    pub fn of_four_bits(outputs: usize, inputs: usize, groups: &[FourBits]) -> Self {
        let mut matrix = UnfinishedMatrix::of_4_bits(outputs, inputs);
        matrix.push_groups(groups);
        matrix.finish()
    }

    /// Rows of the matrix.
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.groups {
            Groups::Int8(quads, scales) => size_of_val(quads.as_slice()) + size_of_val(scales.as_slice()),
            Groups::Int4(nibbles) => size_of_val(nibbles.as_slice()),
        }
    }

    /// Writes the weights of one output.
    ///
    /// # Panics
    /// If there is no such output, or `row` is not as wide as the matrix.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {self:?}");
        let groups = self.num_groups();
        let place = output % PANEL;
        for (group, weights) in row.chunks_mut(GROUP).enumerate() {
            let at = output / PANEL * groups + group;
            match &self.groups {
                Groups::Int8(quads, scales) => {
                    let scale = f16::from_bits(scales[at].as_flattened()[place]).to_f32();
                    for (index, weight) in weights.iter_mut().enumerate() {
                        let quad = quads[at].0[index / QUAD].as_flattened();
                        let quantized = i32::from(quad[QUAD * place + index % QUAD]);
                        *weight = (quantized - OFFSET) as f32 * scale;
                    }
                }
                Groups::Int4(nibbles) => weights.copy_from_slice(&nibbles[at].get(place).weights()),
            }
        }
    }

    pub(crate) const fn num_groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    pub(crate) const fn num_panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    pub(crate) fn panel(&self, panel: usize) -> Panel<'_> {
        let groups = self.num_groups();
        let range = panel * groups..(panel + 1) * groups;
        match &self.groups {
            Groups::Int8(quads, scales) => Panel::Int8(&quads[range.clone()], &scales[range]),
            Groups::Int4(nibbles) => Panel::Int4(&nibbles[range]),
        }
    }
}
