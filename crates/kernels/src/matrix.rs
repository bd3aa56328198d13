//! Weights in 8 bits, laid out for the order in which they are read.

use half::f16;

use crate::LANES;

/// Inputs that share a scale.
pub const GROUP: usize = 32;
/// Inputs that one instruction multiplies.
const QUAD: usize = 4;
/// Added to each weight, so that it is unsigned, as the instruction wants one of its operands.
pub(crate) const OFFSET: i32 = 128;

/// Added and taken away, it leaves the nearest integer, ties to even: numbers of its size have no fractions. The
/// processors that every build is for have no instruction for that.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

/// One group of inputs of one panel of [`LANES`] outputs: four inputs of each output in turn.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Quads(pub(crate) [[u8; QUAD * LANES]; GROUP / QUAD]);

/// A weight matrix (out, in), as panels of [`LANES`] outputs. Widths that do not fill a panel or a group are padded
/// with zeros.
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    /// (panel, group)
    quads: Vec<Quads>,
    /// (panel, group), bits of `f16`
    scales: Vec<[u16; LANES]>,
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {})", self.outputs, self.inputs)
    }
}

impl Matrix {
    /// Quantizes `weights` (out, in). Every weight is within half a scale of its value; the scale is 1/127 of its
    /// group's largest.
    ///
    /// # Panics
    /// If there are not as many weights as the shape says.
    pub fn new(outputs: usize, inputs: usize, weights: &[f32]) -> Self {
        assert_eq!(weights.len(), outputs * inputs, "a matrix of {outputs} × {inputs}");
        let (panels, groups) = (outputs.div_ceil(LANES), inputs.div_ceil(GROUP));
        let mut quads = vec![Quads([[OFFSET as u8; QUAD * LANES]; GROUP / QUAD]); panels * groups];
        let mut scales = vec![[0; LANES]; panels * groups];
        for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            for (group, weights) in row.chunks(GROUP).enumerate() {
                let at = output / LANES * groups + group;
                let lane = output % LANES;
                let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
                let scale = f16::from_f32(largest / 127.0);
                scales[at][lane] = scale.to_bits();
                let inverse = if scale > f16::ZERO { scale.to_f32().recip() } else { 0.0 };
                for (index, weight) in weights.iter().enumerate() {
                    // A scale that was rounded down would lead beyond what 8 bits hold.
                    let scaled = (weight * inverse).clamp(-127.0, 127.0);
                    let quantized = (scaled + ROUNDER - ROUNDER) as i32;
                    quads[at].0[index / QUAD][QUAD * lane + index % QUAD] = (quantized + OFFSET) as u8;
                }
            }
        }
        Self { outputs, inputs, quads, scales }
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
        size_of_val(self.quads.as_slice()) + size_of_val(self.scales.as_slice())
    }

    /// Writes the weights of one output.
    ///
    /// # Panics
    /// If there is no such output, or `row` is not as wide as the matrix.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {self:?}");
        let groups = self.num_groups();
        let lane = output % LANES;
        for (group, weights) in row.chunks_mut(GROUP).enumerate() {
            let at = output / LANES * groups + group;
            let scale = f16::from_bits(self.scales[at][lane]).to_f32();
            for (index, weight) in weights.iter_mut().enumerate() {
                let quantized = i32::from(self.quads[at].0[index / QUAD][QUAD * lane + index % QUAD]);
                *weight = (quantized - OFFSET) as f32 * scale;
            }
        }
    }

    pub(crate) const fn num_groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    pub(crate) const fn num_panels(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The groups of one panel, and their scales.
    pub(crate) fn panel(&self, panel: usize) -> (&[Quads], &[[u16; LANES]]) {
        let groups = self.num_groups();
        let range = panel * groups..(panel + 1) * groups;
        (&self.quads[range.clone()], &self.scales[range])
    }
}
