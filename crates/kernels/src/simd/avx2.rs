//! AVX2 with FMA: two registers for sixteen lanes. With VNNI, where a processor has it, four products a lane are one
//! instruction instead of five.

#![expect(unsafe_code, reason = "vector instructions; each block says why it is sound")]

use super::{LANES, Lanes, Simd, Work};

use std::arch::x86_64::*;

/// Proof that the processor has AVX2, FMA and F16C, and AVX-VNNI if so. Only [`Self::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        has.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run<S: Simd>(simd: S, work: impl Work) {
    work.run(simd);
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn run_with_vnni<S: Simd>(simd: S, work: impl Work) {
    work.run(simd);
}

/// Calls intrinsics. SAFETY, for all uses: `Avx2` exists only where `detect` found the instructions, and pointers come
/// from references to arrays of the size that is read or written.
macro_rules! have {
    ($($call:tt)*) => {
        // SAFETY: see the macro's comment.
        unsafe { $($call)* }
    };
}

type Pair = [__m256; 2];

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F32 = Pair;
    type I32 = [__m256i; 2];
    type Weights = [__m256i; 2];
    type Quad = __m256i;

    const KEEPS_OFFSET: bool = VNNI;
    const IS_WIDE: bool = false;
    const ROWS: usize = if VNNI { 1 } else { 4 };

    #[inline(always)]
    fn vectorize(self, work: impl Work) {
        if VNNI {
            have!(run_with_vnni(self, work));
        } else {
            have!(run(self, work));
        }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        [have!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Pair {
        have!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))])
    }

    #[inline(always)]
    fn store(self, value: Pair, to: &mut Lanes) {
        have!({
            _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
        });
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Pair {
        have!([
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().add(8).cast())),
        ])
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8; LANES]) -> Pair {
        have!([
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().add(8).cast()))),
        ])
    }

    #[inline(always)]
    fn store_bytes(self, value: Pair, to: &mut [i8; LANES]) {
        have!({
            let [first, second] = value.map(|value| _mm256_cvtps_epi32(value));
            // Both halves of a register are packed for themselves, which the permutation mends.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, second));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        });
    }

    #[inline(always)]
    fn add(self, left: Pair, right: Pair) -> Pair {
        have!([_mm256_add_ps(left[0], right[0]), _mm256_add_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn sub(self, left: Pair, right: Pair) -> Pair {
        have!([_mm256_sub_ps(left[0], right[0]), _mm256_sub_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn mul(self, left: Pair, right: Pair) -> Pair {
        have!([_mm256_mul_ps(left[0], right[0]), _mm256_mul_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn div(self, left: Pair, right: Pair) -> Pair {
        have!([_mm256_div_ps(left[0], right[0]), _mm256_div_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn mul_add(self, left: Pair, right: Pair, sum: Pair) -> Pair {
        have!([_mm256_fmadd_ps(left[0], right[0], sum[0]), _mm256_fmadd_ps(left[1], right[1], sum[1]),])
    }

    #[inline(always)]
    fn max(self, left: Pair, right: Pair) -> Pair {
        have!([_mm256_max_ps(left[0], right[0]), _mm256_max_ps(left[1], right[1])])
    }

    #[inline(always)]
    fn round(self, value: Pair) -> Pair {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        have!([_mm256_round_ps::<NEAREST>(value[0]), _mm256_round_ps::<NEAREST>(value[1])])
    }

    #[inline(always)]
    fn exp2_of_integer(self, value: Pair) -> Pair {
        value.map(|value| {
            have!({
                let power = _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(power))
            })
        })
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> [__m256i; 2] {
        [have!(_mm256_set1_epi32(value)); 2]
    }

    #[inline(always)]
    fn join(self, high: [__m256i; 2], low: [__m256i; 2]) -> [__m256i; 2] {
        have!([
            _mm256_add_epi32(_mm256_slli_epi32::<8>(high[0]), _mm256_sub_epi32(low[0], high[0])),
            _mm256_add_epi32(_mm256_slli_epi32::<8>(high[1]), _mm256_sub_epi32(low[1], high[1])),
        ])
    }

    #[inline(always)]
    fn to_f32(self, value: [__m256i; 2]) -> Pair {
        have!([_mm256_cvtepi32_ps(value[0]), _mm256_cvtepi32_ps(value[1])])
    }

    #[inline(always)]
    fn load_weights(self, from: &[u8; 4 * LANES]) -> [__m256i; 2] {
        // Without VNNI back to signed: pairs of products of unsigned bytes would not fit the 16 bits that they are
        // added in.
        have!({
            let offset = _mm256_set1_epi8(if VNNI { 0 } else { -128 });
            [
                _mm256_xor_si256(_mm256_loadu_si256(from.as_ptr().cast()), offset),
                _mm256_xor_si256(_mm256_loadu_si256(from.as_ptr().add(32).cast()), offset),
            ]
        })
    }

    #[inline(always)]
    fn prefetch(self, from: &[u8; 4 * LANES], ahead: usize) {
        have!(_mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead).cast()));
    }

    #[inline(always)]
    fn load_quad(self, from: &i32) -> __m256i {
        have!(_mm256_set1_epi32(*from))
    }

    #[inline(always)]
    fn dot(self, sum: [__m256i; 2], weights: [__m256i; 2], inputs: __m256i) -> [__m256i; 2] {
        if VNNI {
            return have!([
                _mm256_dpbusd_avx_epi32(sum[0], weights[0], inputs),
                _mm256_dpbusd_avx_epi32(sum[1], weights[1], inputs),
            ]);
        }
        // |w| · (x with w's sign): both within ±127, so a pair of products is at most 32,258.
        have!({
            let ones = _mm256_set1_epi16(1);
            let pairs = [
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights[0]), _mm256_sign_epi8(inputs, weights[0])),
                _mm256_maddubs_epi16(_mm256_abs_epi8(weights[1]), _mm256_sign_epi8(inputs, weights[1])),
            ];
            [
                _mm256_add_epi32(sum[0], _mm256_madd_epi16(pairs[0], ones)),
                _mm256_add_epi32(sum[1], _mm256_madd_epi16(pairs[1], ones)),
            ]
        })
    }

    #[inline(always)]
    fn load_nibbles(self, from: &[u8; 4 * LANES]) -> [[__m256i; 2]; 2] {
        have!({
            let mask = _mm256_set1_epi8(15);
            let (first, second) =
                (_mm256_loadu_si256(from.as_ptr().cast()), _mm256_loadu_si256(from.as_ptr().add(32).cast()));
            let upper = |both| _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
            [[_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)], [upper(first), upper(second)]]
        })
    }

    #[inline(always)]
    fn dot_nibbles(self, sum: [__m256i; 2], weights: [__m256i; 2], inputs: __m256i) -> [__m256i; 2] {
        if VNNI {
            return self.dot(sum, weights, inputs);
        }
        // Weights up to 15 and inputs within ±127: a pair of products is at most 3,810.
        have!({
            let ones = _mm256_set1_epi16(1);
            let (first, second) =
                (_mm256_maddubs_epi16(weights[0], inputs), _mm256_maddubs_epi16(weights[1], inputs));
            [
                _mm256_add_epi32(sum[0], _mm256_madd_epi16(first, ones)),
                _mm256_add_epi32(sum[1], _mm256_madd_epi16(second, ones)),
            ]
        })
    }
}
