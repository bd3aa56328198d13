//! Any processor.

use super::{LANES, Lanes, Simd, Work};

/// Plain loops, which the compiler makes of what it may assume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

#[inline(always)]
fn map(left: Lanes, right: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    std::array::from_fn(|lane| f(left[lane], right[lane]))
}

impl Simd for Portable {
    type F32 = Lanes;
    type I32 = [i32; LANES];
    type Weights = [u8; 4 * LANES];
    type Quad = [i32; 4];

    const KEEPS_OFFSET: bool = true;
    const IS_WIDE: bool = false;
    const ROWS: usize = 4;

    #[inline(always)]
    fn vectorize(self, work: impl Work) {
        work.run(self);
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, value: Lanes, to: &mut Lanes) {
        *to = value;
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Lanes {
        from.map(|bits| half::f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> Lanes {
        from.map(f32::from)
    }

    #[inline(always)]
    fn store_bytes(self, value: Lanes, to: &mut [i8; LANES]) {
        *to = value.map(|value| value as i8);
    }

    #[inline(always)]
    fn add(self, left: Lanes, right: Lanes) -> Lanes {
        map(left, right, |left, right| left + right)
    }

    #[inline(always)]
    fn sub(self, left: Lanes, right: Lanes) -> Lanes {
        map(left, right, |left, right| left - right)
    }

    #[inline(always)]
    fn mul(self, left: Lanes, right: Lanes) -> Lanes {
        map(left, right, |left, right| left * right)
    }

    #[inline(always)]
    fn div(self, left: Lanes, right: Lanes) -> Lanes {
        map(left, right, |left, right| left / right)
    }

    #[inline(always)]
    fn mul_add(self, left: Lanes, right: Lanes, sum: Lanes) -> Lanes {
        std::array::from_fn(|lane| left[lane].mul_add(right[lane], sum[lane]))
    }

    #[inline(always)]
    fn max(self, left: Lanes, right: Lanes) -> Lanes {
        map(left, right, |left, right| if left > right { left } else { right })
    }

    #[inline(always)]
    fn round(self, value: Lanes) -> Lanes {
        value.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2_of_integer(self, value: Lanes) -> Lanes {
        value.map(|power| f32::from_bits(((power as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn join(self, high: [i32; LANES], low: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| 255 * high[lane] + low[lane])
    }

    #[inline(always)]
    fn to_f32(self, value: [i32; LANES]) -> Lanes {
        value.map(|value| value as f32)
    }

    #[inline(always)]
    fn load_weights(self, from: &[u8; 4 * LANES]) -> Self::Weights {
        *from
    }

    #[inline(always)]
    fn prefetch(self, from: &[u8; 4 * LANES], ahead: usize) {
        let _ = (from, ahead);
    }

    #[inline(always)]
    fn load_quad(self, from: &i32) -> [i32; 4] {
        from.to_le_bytes().map(|byte| i32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn dot(self, sum: [i32; LANES], weights: Self::Weights, inputs: [i32; 4]) -> [i32; LANES] {
        std::array::from_fn(|lane| {
            (0..4).fold(sum[lane], |sum, part| sum + i32::from(weights[4 * lane + part]) * inputs[part])
        })
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[u8; 4 * LANES]) -> [Self::Weights; 2] {
        [from.map(|byte| byte & 15), from.map(|byte| byte >> 4)]
    }

    #[inline(always)]
    fn dot_nibbles(self, sum: [i32; LANES], weights: Self::Weights, inputs: [i32; 4]) -> [i32; LANES] {
        self.dot(sum, weights, inputs)
    }
}
