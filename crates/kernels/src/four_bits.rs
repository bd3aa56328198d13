//! Weights that were of four bits in their file, kept as they were.

use half::f16;

use crate::LANES;
use crate::matrix::{GROUP, Halves, Quad, VECTORS};

/// A group of [`GROUP`] weights of one output; each is `nibble · scale + minimum`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FourBits {
    /// What a nibble counts.
    pub scale: f16,
    /// What a nibble of zero is.
    pub minimum: f16,
    /// One byte for each of the first inputs, whose upper half is the input that is half a group further.
    pub nibbles: [u8; GROUP / 2],
}

impl FourBits {
    /// The weights of the group.
    pub(crate) fn weights(&self) -> [f32; GROUP] {
        std::array::from_fn(|index| {
            let byte = self.nibbles[index % (GROUP / 2)];
            let nibble = if index < GROUP / 2 { byte & 15 } else { byte >> 4 };
            f32::from(nibble).mul_add(self.scale.to_f32(), self.minimum.to_f32())
        })
    }
}

/// One group of inputs of one panel of outputs, all that a product of it reads side by side.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Nibbles {
    /// Four inputs of each output in turn; upper halves are of inputs that are half a group further.
    pub(crate) quads: [Quad; GROUP / 8],
    pub(crate) scales: Halves,
    pub(crate) minima: Halves,
}

impl Nibbles {
    pub(crate) const ZERO: Self = Self {
        quads: [[[0; 4 * LANES]; VECTORS]; GROUP / 8],
        scales: [[0; LANES]; VECTORS],
        minima: [[0; LANES]; VECTORS],
    };

    /// Of the panel's output at `place`.
    pub(crate) fn set(&mut self, place: usize, group: &FourBits) {
        self.scales.as_flattened_mut()[place] = group.scale.to_bits();
        self.minima.as_flattened_mut()[place] = group.minimum.to_bits();
        for (quad, bytes) in self.quads.iter_mut().zip(group.nibbles.as_chunks::<4>().0) {
            quad.as_flattened_mut()[4 * place..4 * (place + 1)].copy_from_slice(bytes);
        }
    }

    pub(crate) fn get(&self, place: usize) -> FourBits {
        let mut nibbles = [0; GROUP / 2];
        for (quad, bytes) in self.quads.iter().zip(nibbles.as_chunks_mut::<4>().0) {
            bytes.copy_from_slice(&quad.as_flattened()[4 * place..4 * (place + 1)]);
        }
        let half = |halves: &Halves| f16::from_bits(halves.as_flattened()[place]);
        FourBits { scale: half(&self.scales), minimum: half(&self.minima), nibbles }
    }
}

#[cfg(test)]
mod tests;
