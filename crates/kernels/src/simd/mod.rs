//! Sixteen lanes at a time, in the widest form that this processor has.
//!
//! Kernels are written once over [`Simd`]. Each form does the same roundings in the same order, so that results are
//! equal to the bit whichever one runs; tests hold the forms together. Another form, such as NEON, is one more file
//! here and one more line in [`Form::best`].

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use std::fmt::Debug;

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use avx512::Avx512;
use portable::Portable;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Sixteen numbers in memory.
pub(crate) type Lanes = [f32; LANES];

/// A form's instructions. A value of the type is proof that the processor has them.
pub(crate) trait Simd: Copy + Debug + Send + Sync {
    /// Sixteen floats.
    type F32: Copy;
    /// Sixteen integers.
    type I32: Copy;
    /// Sixteen times four weights.
    type Weights: Copy;
    /// Four signed bytes, the same for all lanes.
    type Quad: Copy;

    /// Whether there are 32 registers of sixteen lanes each, and not 16 of fewer.
    const IS_WIDE: bool;

    /// Of how many rows products are computed together, four at most, so that each weight is loaded once for all of
    /// them: as many as registers hold sums of, or, where products are slow anyway, as make preparing weights pay.
    const ROWS: usize;

    /// Runs `work`, compiled with this form's instructions.
    fn vectorize(self, work: impl Work);

    fn splat(self, value: f32) -> Self::F32;
    fn load(self, from: &Lanes) -> Self::F32;
    fn store(self, value: Self::F32, to: &mut Lanes);
    /// From the bits of 16-bit floats.
    fn load_half(self, from: &[u16; LANES]) -> Self::F32;
    /// From signed bytes.
    fn load_bytes(self, from: &[i8; LANES]) -> Self::F32;
    /// Integers within ±127, to signed bytes. What becomes of other numbers differs.
    fn store_bytes(self, value: Self::F32, to: &mut [i8; LANES]);
    fn add(self, left: Self::F32, right: Self::F32) -> Self::F32;
    fn sub(self, left: Self::F32, right: Self::F32) -> Self::F32;
    fn mul(self, left: Self::F32, right: Self::F32) -> Self::F32;
    fn div(self, left: Self::F32, right: Self::F32) -> Self::F32;
    /// `left · right + sum`, rounded once.
    fn mul_add(self, left: Self::F32, right: Self::F32, sum: Self::F32) -> Self::F32;
    /// The larger one of each pair; either one where the other is NaN.
    fn max(self, left: Self::F32, right: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round(self, value: Self::F32) -> Self::F32;
    /// 2 to the power of an integer between -126 and 127.
    fn exp2_of_integer(self, value: Self::F32) -> Self::F32;

    fn splat_i32(self, value: i32) -> Self::I32;
    /// `255 · high + low`
    fn join(self, high: Self::I32, low: Self::I32) -> Self::I32;
    fn to_f32(self, value: Self::I32) -> Self::F32;
    /// Sixteen outputs' weights for four inputs, kept with 128 added.
    fn load_weights(self, from: &[u8; 4 * LANES]) -> Self::Weights;
    /// Asks for the memory that lies some bytes behind `from`, if there is any; weights are read in that order.
    fn prefetch(self, from: &[u8; 4 * LANES], ahead: usize);
    /// Four inputs of one row.
    fn load_quad(self, from: &i32) -> Self::Quad;
    /// Adds to each lane the four products of its weights, 128 still added, and `inputs`. Forms that take the 128 away
    /// first must not be given it in `sum`; see [`Self::KEEPS_OFFSET`].
    fn dot(self, sum: Self::I32, weights: Self::Weights, inputs: Self::Quad) -> Self::I32;
    /// Sixteen outputs' weights for four inputs in the lower halves of bytes, and for another four in the upper ones.
    fn load_nibbles(self, from: &[u8; 4 * LANES]) -> [Self::Weights; 2];
    /// Adds to each lane the four products of its weights of four bits, with nothing added, and `inputs`.
    fn dot_nibbles(self, sum: Self::I32, weights: Self::Weights, inputs: Self::Quad) -> Self::I32;
    /// Whether `dot` leaves 128 added to each weight.
    const KEEPS_OFFSET: bool;

    /// The sum of all lanes, halves first.
    #[inline(always)]
    fn sum(self, value: Self::F32) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        fold(&mut lanes, |left, right| left + right)
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self, value: Self::F32) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        fold(&mut lanes, |left, right| if left > right { left } else { right })
    }

    /// e to the power of `value`, at most 88, within two units in the last place; e^-87 below -87.
    #[inline(always)]
    fn exp(self, value: Self::F32) -> Self::F32 {
        // e^x = 2^n · e^r with r in ±ln 2 / 2; the polynomial is the Taylor series to r^7, whose rest is below 2^-25.
        const LEAST: f32 = -87.0;
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        const COEFFICIENTS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
        let value = self.max(value, self.splat(LEAST));
        let power = self.round(self.mul(value, self.splat(std::f32::consts::LOG2_E)));
        let rest = self.mul_add(power, self.splat(-LN_2_HIGH), value);
        let rest = self.mul_add(power, self.splat(-LN_2_LOW), rest);
        let mut sum = self.splat(1.0 / 5040.0);
        for coefficient in COEFFICIENTS {
            sum = self.mul_add(sum, rest, self.splat(coefficient));
        }
        let sum = self.mul_add(sum, rest, self.splat(1.0));
        self.mul(sum, self.exp2_of_integer(power))
    }
}

#[inline(always)]
fn fold(lanes: &mut Lanes, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        let (left, right) = lanes.split_at_mut(half);
        for (left, right) in left.iter_mut().zip(right) {
            *left = f(*left, *right);
        }
        half /= 2;
    }
    lanes[0]
}

/// Which form to use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>),
    Portable(Portable),
}

impl Form {
    /// The widest one of this processor.
    pub(crate) fn best() -> Self {
        Self::all().next().unwrap_or(Self::Portable(Portable))
    }

    /// Every form that this processor has, the widest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [
            Avx512::detect().map(Self::Avx512),
            Avx2::detect().map(Self::AvxVnni),
            Avx2::detect().map(Self::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vectors: [Option<Self>; 0] = [];
        vectors.into_iter().flatten().chain([Self::Portable(Portable)])
    }

    pub(crate) fn run(self, work: impl Work) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(simd) => simd.vectorize(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(work),
            Self::Portable(simd) => simd.vectorize(work),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "AVX-VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Portable(_) => "portable",
        }
    }
}

/// Work that is written over any form. The compiler makes vector code only of what is inlined into
/// [`Simd::vectorize`], so `run` and all that it calls on its way must be `#[inline(always)]`, and closures small.
pub(crate) trait Work {
    fn run<S: Simd>(self, simd: S);
}
