//! AVX-512 with VNNI: one register for sixteen lanes, and four products a lane in one instruction.

#![expect(unsafe_code, reason = "vector instructions; each block says why it is sound")]

use super::{LANES, Lanes, Simd, Work};

use std::arch::x86_64::*;

/// Proof that the processor has AVX-512 F, BW, DQ, VL and VNNI. Only [`Self::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        has.then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn run<S: Simd>(simd: S, work: impl Work) {
    work.run(simd);
}

/// Calls an intrinsic. SAFETY, for all uses: `Avx512` exists only where `detect` found the instructions, and pointers
/// come from references to arrays of the size that is read or written.
macro_rules! have {
    ($($call:tt)*) => {
        // SAFETY: see the macro's comment.
        unsafe { $($call)* }
    };
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Weights = __m512i;
    type Quad = __m512i;

    const KEEPS_OFFSET: bool = true;
    const IS_WIDE: bool = true;
    const ROWS: usize = 4;

    #[inline(always)]
    fn vectorize(self, work: impl Work) {
        have!(run(self, work));
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        have!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        have!(_mm512_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut Lanes) {
        have!(_mm512_storeu_ps(to.as_mut_ptr(), value));
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> __m512 {
        have!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> __m512 {
        have!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))))
    }

    #[inline(always)]
    fn store_bytes(self, value: __m512, to: &mut [i8; LANES]) {
        have!(_mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value))));
    }

    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        have!(_mm512_add_ps(left, right))
    }

    #[inline(always)]
    fn sub(self, left: __m512, right: __m512) -> __m512 {
        have!(_mm512_sub_ps(left, right))
    }

    #[inline(always)]
    fn mul(self, left: __m512, right: __m512) -> __m512 {
        have!(_mm512_mul_ps(left, right))
    }

    #[inline(always)]
    fn div(self, left: __m512, right: __m512) -> __m512 {
        have!(_mm512_div_ps(left, right))
    }

    #[inline(always)]
    fn mul_add(self, left: __m512, right: __m512, sum: __m512) -> __m512 {
        have!(_mm512_fmadd_ps(left, right, sum))
    }

    #[inline(always)]
    fn max(self, left: __m512, right: __m512) -> __m512 {
        have!(_mm512_max_ps(left, right))
    }

    #[inline(always)]
    fn round(self, value: __m512) -> __m512 {
        have!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value))
    }

    #[inline(always)]
    fn exp2_of_integer(self, value: __m512) -> __m512 {
        have!({
            let power = _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(power))
        })
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m512i {
        have!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn join(self, high: __m512i, low: __m512i) -> __m512i {
        have!(_mm512_add_epi32(_mm512_slli_epi32::<8>(high), _mm512_sub_epi32(low, high)))
    }

    #[inline(always)]
    fn to_f32(self, value: __m512i) -> __m512 {
        have!(_mm512_cvtepi32_ps(value))
    }

    #[inline(always)]
    fn load_weights(self, from: &[u8; 4 * LANES]) -> __m512i {
        have!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn prefetch(self, from: &[u8; 4 * LANES], ahead: usize) {
        have!(_mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead).cast()));
    }

    #[inline(always)]
    fn load_quad(self, from: &i32) -> __m512i {
        have!(_mm512_set1_epi32(*from))
    }

    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, inputs: __m512i) -> __m512i {
        have!(_mm512_dpbusd_epi32(sum, weights, inputs))
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[u8; 4 * LANES]) -> [__m512i; 2] {
        have!({
            let (both, mask) = (_mm512_loadu_si512(from.as_ptr().cast()), _mm512_set1_epi8(15));
            [_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask)]
        })
    }

    #[inline(always)]
    fn dot_nibbles(self, sum: __m512i, weights: __m512i, inputs: __m512i) -> __m512i {
        self.dot(sum, weights, inputs)
    }
}
