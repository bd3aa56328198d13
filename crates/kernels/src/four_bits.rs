//! Weights that were of four bits in their file, kept as they were.

use half::f16;

use crate::LANES;
use crate::matrix::GROUP;

/// Four inputs of each output, two such quads in a byte's halves.
const VECTORS: usize = GROUP / 8;

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

/// One group of inputs of one panel of [`LANES`] outputs, all that a product of it reads side by side.
#[repr(align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Nibbles {
    /// Four inputs of each output in turn; upper halves are of inputs that are half a group further.
    pub(crate) vectors: [[u8; 4 * LANES]; VECTORS],
    /// Bits of `f16`
    pub(crate) scales: [u16; LANES],
    /// Bits of `f16`
    pub(crate) minima: [u16; LANES],
}

impl Nibbles {
    pub(crate) const ZERO: Self =
        Self { vectors: [[0; 4 * LANES]; VECTORS], scales: [0; LANES], minima: [0; LANES] };

    pub(crate) fn set(&mut self, lane: usize, group: &FourBits) {
        self.scales[lane] = group.scale.to_bits();
        self.minima[lane] = group.minimum.to_bits();
        for (vector, bytes) in self.vectors.iter_mut().zip(group.nibbles.as_chunks::<4>().0) {
            vector[4 * lane..4 * (lane + 1)].copy_from_slice(bytes);
        }
    }

    pub(crate) fn get(&self, lane: usize) -> FourBits {
        let mut nibbles = [0; GROUP / 2];
        for (vector, bytes) in self.vectors.iter().zip(nibbles.as_chunks_mut::<4>().0) {
            bytes.copy_from_slice(&vector[4 * lane..4 * (lane + 1)]);
        }
        let half = |bits| f16::from_bits(bits);
        FourBits { scale: half(self.scales[lane]), minimum: half(self.minima[lane]), nibbles }
    }
}

#[cfg(test)]
mod tests;
