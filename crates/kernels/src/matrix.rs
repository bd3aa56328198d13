//! Weights in 8 bits or 4, laid out for the order in which they are read.

use half::f16;

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

/// A matrix (out, in) of 8 bits that is being made, some outputs at a time: as floats a large one takes four times the
/// memory. The scale is 1/127 of a group's largest weight, and every weight is within half a scale of its value, where
/// the scale is a normal number of 16 bits: of a largest weight between 0.008 and 8 million.
pub struct Quantizing {
    outputs: usize,
    inputs: usize,
    /// Outputs that are there.
    pushed: usize,
    quads: Vec<Quads>,
    scales: Vec<Halves>,
}

impl Quantizing {
    /// Without any output yet.
    pub fn new(outputs: usize, inputs: usize) -> Self {
        let len = outputs.div_ceil(PANEL) * inputs.div_ceil(GROUP);
        let nothing = Quads([[[OFFSET as u8; QUAD * LANES]; VECTORS]; GROUP / QUAD]);
        Self {
            outputs,
            inputs,
            pushed: 0,
            quads: vec![nothing; len],
            scales: vec![[[0; LANES]; VECTORS]; len],
        }
    }

    /// Adds the weights of the next outputs, all of them numbers.
    ///
    /// # Panics
    /// If they are not whole outputs, or too many.
    pub fn push(&mut self, weights: &[f32]) {
        let outputs = weights.len().checked_div(self.inputs).unwrap_or(self.outputs - self.pushed);
        assert_eq!(weights.len(), outputs * self.inputs, "outputs of {} inputs are whole", self.inputs);
        assert!(
            outputs <= self.outputs - self.pushed,
            "{outputs} more than {} of {}",
            self.pushed,
            self.outputs
        );
        for (index, row) in weights.chunks_exact(self.inputs.max(1)).enumerate() {
            self.set(self.pushed + index, row);
        }
        self.pushed += outputs;
    }

    fn set(&mut self, output: usize, row: &[f32]) {
        let (first, place) = (output / PANEL * self.inputs.div_ceil(GROUP), output % PANEL);
        for (at, weights) in (first..).zip(row.chunks(GROUP)) {
            let scale = f16::from_f32(largest(weights) / 127.0);
            self.scales[at].as_flattened_mut()[place] = scale.to_bits();
            let inverse = if scale > f16::ZERO { scale.to_f32().recip() } else { 0.0 };
            let mut bytes = [OFFSET as u8; GROUP];
            for (byte, weight) in bytes.iter_mut().zip(weights) {
                // A scale that was rounded down would lead beyond what 8 bits hold. The lowest bits of the sum are the
                // integer's.
                let scaled = (weight * inverse).clamp(-127.0, 127.0);
                *byte = ((scaled + ROUNDER).to_bits() as u8).wrapping_add(OFFSET as u8);
            }
            for (quad, bytes) in self.quads[at].0.iter_mut().zip(bytes.as_chunks::<QUAD>().0) {
                quad.as_flattened_mut()[QUAD * place..][..QUAD].copy_from_slice(bytes);
            }
        }
    }

    /// The matrix.
    ///
    /// # Panics
    /// If outputs are missing.
    pub fn finish(self) -> Matrix {
        let Self { outputs, inputs, pushed, quads, scales } = self;
        assert_eq!(pushed, outputs, "all outputs are there");
        Matrix { outputs, inputs, groups: Groups::Int8(quads, scales) }
    }
}

/// The groups of one panel.
#[derive(Clone, Copy)]
pub(crate) enum Panel<'a> {
    /// Numbers and their scales.
    Int8(&'a [Quads], &'a [Halves]),
    Int4(&'a [Nibbles]),
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

impl std::fmt::Debug for Quantizing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantizing({} of {} × {})", self.pushed, self.outputs, self.inputs)
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} × {})", self.outputs, self.inputs)
    }
}

impl Matrix {
    /// Quantizes `weights` (out, in), all of them numbers; see [`Quantizing`].
    ///
    /// # Panics
    /// If there are not as many weights as the shape says.
    pub fn new(outputs: usize, inputs: usize, weights: &[f32]) -> Self {
        let mut matrix = Quantizing::new(outputs, inputs);
        matrix.push(weights);
        matrix.finish()
    }

    /// Keeps weights (out, in) that were of four bits, given in groups (out, in / [`GROUP`]), as they were.
    ///
    /// # Panics
    /// If `inputs` are no whole groups, or there are not as many groups as the shape says.
    pub fn of_four_bits(outputs: usize, inputs: usize, groups: &[FourBits]) -> Self {
        assert!(inputs.is_multiple_of(GROUP), "{inputs} inputs are groups of {GROUP}");
        let num_groups = inputs / GROUP;
        assert_eq!(groups.len(), outputs * num_groups, "a matrix of {outputs} × {inputs}");
        let mut nibbles = vec![Nibbles::ZERO; outputs.div_ceil(PANEL) * num_groups];
        for (output, row) in groups.chunks_exact(num_groups.max(1)).enumerate() {
            for (group, weights) in row.iter().enumerate() {
                nibbles[output / PANEL * num_groups + group].set(output % PANEL, weights);
            }
        }
        Self { outputs, inputs, groups: Groups::Int4(nibbles) }
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
