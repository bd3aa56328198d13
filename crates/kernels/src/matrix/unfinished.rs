//! Making a matrix.

use half::f16;

use super::{GROUP, Groups, LANES, Matrix, OFFSET, PANEL, QUAD, Quads, ROUNDER, VECTORS};
use crate::four_bits::{FourBits, Nibbles};

/// A matrix (out, in) that is being made, some outputs at a time: a large one's weights as floats take four times its
/// memory.
#[derive(Debug)]
pub struct UnfinishedMatrix {
    matrix: Matrix,
    /// Outputs that are there.
    pushed: usize,
}

impl UnfinishedMatrix {
    /// Of 8 bits, without any output yet. The scale is 1/127 of a group's largest weight, and every weight is within half
    /// a scale of its value, where the scale is a normal number of 16 bits: of a largest weight between 0.008 and 8
    /// million.
    pub fn of_8_bits(outputs: usize, inputs: usize) -> Self {
        let len = outputs.div_ceil(PANEL) * inputs.div_ceil(GROUP);
        let nothing = Quads([[[OFFSET as u8; QUAD * LANES]; VECTORS]; GROUP / QUAD]);
        let groups = Groups::Int8(vec![nothing; len], vec![[[0; LANES]; VECTORS]; len]);
        Self { matrix: Matrix { outputs, inputs, groups }, pushed: 0 }
    }

    /// Of 4 bits, as they are, without any output yet.
    ///
    /// # Panics
    /// If `inputs` are no whole groups.
    pub fn of_4_bits(outputs: usize, inputs: usize) -> Self {
        assert!(inputs.is_multiple_of(GROUP), "{inputs} inputs are groups of {GROUP}");
        let groups = Groups::Int4(vec![Nibbles::ZERO; outputs.div_ceil(PANEL) * (inputs / GROUP)]);
        Self { matrix: Matrix { outputs, inputs, groups }, pushed: 0 }
    }

    /// Adds the weights of the next outputs, all of them numbers, to a matrix of 8 bits.
    ///
    /// # Panics
    /// If they are not whole outputs, or too many, or the matrix is of 4 bits.
    pub fn push(&mut self, weights: &[f32]) {
        let inputs = self.matrix.inputs;
        let (first, groups) = (self.grow(weights.len(), inputs), self.matrix.num_groups());
        assert!(matches!(self.matrix.groups, Groups::Int8(..)), "the matrix is of 8 bits");
        let Groups::Int8(quads, scales) = &mut self.matrix.groups else { return };
        for (output, row) in (first..).zip(weights.chunks_exact(inputs.max(1))) {
            let (start, place) = (output / PANEL * groups, output % PANEL);
            for (at, weights) in (start..).zip(row.chunks(GROUP)) {
                let (scale, bytes) = quantized(weights);
                scales[at].as_flattened_mut()[place] = scale.to_bits();
                for (quad, bytes) in quads[at].0.iter_mut().zip(bytes.as_chunks::<QUAD>().0) {
                    quad.as_flattened_mut()[QUAD * place..][..QUAD].copy_from_slice(bytes);
                }
            }
        }
    }

    /// Adds the groups of the next outputs to a matrix of 4 bits.
    ///
    /// # Panics
    /// If they are not whole outputs, or too many, or the matrix is of 8 bits.
    pub fn push_groups(&mut self, weights: &[FourBits]) {
        let groups = self.matrix.num_groups();
        let first = self.grow(weights.len(), groups);
        assert!(matches!(self.matrix.groups, Groups::Int4(..)), "the matrix is of 4 bits");
        let Groups::Int4(nibbles) = &mut self.matrix.groups else { return };
        for (output, row) in (first..).zip(weights.chunks_exact(groups.max(1))) {
            for (at, weights) in (output / PANEL * groups..).zip(row) {
                nibbles[at].set(output % PANEL, weights);
            }
        }
    }

    /// Counts outputs of `each` numbers or groups, and returns the first of them.
    fn grow(&mut self, len: usize, each: usize) -> usize {
        let (first, left) = (self.pushed, self.matrix.outputs - self.pushed);
        // Of outputs without inputs nothing is all that is left.
        let outputs = len.checked_div(each).unwrap_or(left);
        assert!(len == outputs * each && outputs <= left, "{len} are outputs of {each}, {left} at most");
        self.pushed += outputs;
        first
    }

    /// The matrix.
    ///
    /// # Panics
    /// If outputs are missing.
    pub fn finish(self) -> Matrix {
        assert_eq!(self.pushed, self.matrix.outputs, "all outputs are there");
        self.matrix
    }
}

/// A group's scale, and its weights with 128 added.
fn quantized(weights: &[f32]) -> (f16, [u8; GROUP]) {
    let scale = f16::from_f32(largest(weights) / 127.0);
    let inverse = if scale > f16::ZERO { scale.to_f32().recip() } else { 0.0 };
    let mut bytes = [OFFSET as u8; GROUP];
    for (byte, weight) in bytes.iter_mut().zip(weights) {
        // A scale that was rounded down would lead beyond what 8 bits hold. The lowest bits of the sum are the integer's.
        let scaled = (weight * inverse).clamp(-127.0, 127.0);
        *byte = ((scaled + ROUNDER).to_bits() as u8).wrapping_add(OFFSET as u8);
    }
    (scale, bytes)
}

/// The largest of a group's weights, of either sign. Eight at a time, as models are large and wait for this.
fn largest(weights: &[f32]) -> f32 {
    let (eights, rest) = weights.as_chunks::<8>();
    let mut largest = [0.0_f32; 8];
    for eight in eights {
        for (largest, weight) in largest.iter_mut().zip(eight) {
            *largest = if weight.abs() > *largest { weight.abs() } else { *largest };
        }
    }
    largest.iter().chain(rest).fold(0.0, |largest, weight| largest.max(weight.abs()))
}
