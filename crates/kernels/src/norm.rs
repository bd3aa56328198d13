//! Root-mean-square norms.

use crate::pool::Pool;
use crate::simd::{Form, LANES, Lanes, Simd, Work};

/// `x / √(mean(x²) + eps) · weight` for each row of `x`, as wide as `weight` is.
///
/// # Panics
/// If `output` is not as long as `x`, or a row is not whole.
pub fn rms_norm(pool: &Pool, x: &[f32], weight: &[f32], eps: f32, output: &mut [f32]) {
    let width = weight.len();
    assert!(x.len() == output.len() && x.len().is_multiple_of(width), "whole rows in and out");
    for (x, output) in x.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        norm_row(pool.form(), x, weight, eps, output);
    }
}

pub(crate) fn norm_row(form: Form, x: &[f32], weight: &[f32], eps: f32, output: &mut [f32]) {
    form.run(NormRow { x, weight, eps, output });
}

struct NormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    output: &'a mut [f32],
}

impl Work for NormRow<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, weight, eps, output } = self;
        let (whole, rest) = x.as_chunks::<LANES>();
        let mut squares = simd.splat(0.0);
        for lanes in whole {
            let lanes = simd.load(lanes);
            squares = simd.mul_add(lanes, lanes, squares);
        }
        let mut squares = simd.sum(squares);
        for x in rest {
            squares += x * x;
        }
        let scale = (squares / x.len() as f32 + eps).sqrt().recip();
        for ((x, weight), output) in x.iter().zip(weight).zip(output) {
            *output = x * scale * weight;
        }
    }
}

/// Makes `silu(gate) · up` of each `up`.
pub(crate) struct SwiGlu<'a> {
    pub(crate) gate: &'a [Lanes],
    pub(crate) up: &'a mut [Lanes],
}

impl Work for SwiGlu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        // Further down the exponential would not be a number of 32 bits, and the gate is as good as closed.
        let closed = simd.splat(-88.0);
        for (gate, up) in self.gate.iter().zip(self.up) {
            let gate = simd.load(gate);
            let silu = simd.div(gate, simd.add(one, simd.exp(simd.sub(zero, simd.max(gate, closed)))));
            simd.store(simd.mul(silu, simd.load(up)), up);
        }
    }
}
