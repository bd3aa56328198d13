//! What this processor can do at best: the same instructions as the kernels', with nothing to wait for.
//!
//! These do work and say how much it was; whoever calls them holds the clock.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::pool::Pool;
use crate::simd::{Form, LANES, Lanes, Simd, Work};

/// Sums that grow side by side: more than instructions are under way at once, few enough for the registers.
const SUMS: usize = 12;
/// The same for forms with half as many.
const SUMS_OF_FEW: usize = SUMS / 2;
/// Vectors of weights that are multiplied in turn; they stay in the nearest cache.
const VECTORS: usize = 8;
/// Products of bytes that one instruction, or its stand-in of an older form, adds to each lane.
const PRODUCTS: usize = 4;
/// Vectors of memory that one thread reads at a time: a mebibyte.
const VECTORS_PER_PIECE: usize = (1 << 20) / size_of::<Lanes>();

/// Products of bytes that the kernels need for one multiply-add, as activations have two; see [`crate::Rows`].
pub const PRODUCTS_PER_MULTIPLY_ADD: u64 = 2;

/// How often the vectors are gone through: some milliseconds, and no sum of integers overflows.
const ROUNDS: usize = 1 << 18;

/// Multiplies bytes on each of the pool's threads for some milliseconds, and returns how many products those were in
/// all.
pub fn multiply_bytes(pool: &Pool) -> u64 {
    let vectors = black_box([[WEIGHT; PRODUCTS * LANES]; VECTORS]);
    run_on_all(pool, |form, sums| form.run(All(Bytes { vectors: &vectors, rounds: ROUNDS, sums })));
    pool.num_threads() as u64 * (ROUNDS * VECTORS * SUMS * LANES * PRODUCTS) as u64
}

/// The same with floats, as attention multiplies.
pub fn multiply_floats(pool: &Pool) -> u64 {
    let vectors = black_box([[1.0; LANES]; VECTORS]);
    run_on_all(pool, |form, sums| form.run(All(Floats { vectors: &vectors, rounds: ROUNDS, sums })));
    pool.num_threads() as u64 * (ROUNDS * VECTORS * SUMS * LANES) as u64
}

/// Reads all of `memory` once, shared among the pool's threads. The result is of no use but that it cannot be had
/// without reading.
pub fn read(pool: &Pool, memory: &[[f32; LANES]]) -> u64 {
    let seen = AtomicU64::new(0);
    let form = pool.form();
    let pieces: Vec<_> = memory.chunks(VECTORS_PER_PIECE).collect();
    pool.for_each(pieces, |_, piece| {
        let mut sums = [[0.0; LANES]; STREAMS];
        form.run(Read { piece, sums: &mut sums });
        seen.fetch_add(sums.iter().flatten().sum::<f32>() as u64, Ordering::Relaxed);
    });
    seen.into_inner()
}

/// Once on each thread, and on all at the same time: nobody takes a second piece before all have come for their first.
fn run_on_all(pool: &Pool, work: impl Fn(Form, &mut Sums) + Sync) {
    let barrier = Barrier::new(pool.num_threads());
    let form = pool.form();
    pool.run(pool.num_threads(), &|_| {
        barrier.wait();
        let mut sums = [[0.0; LANES]; SUMS];
        work(form, &mut sums);
        black_box(sums);
    });
}

type Sums = [Lanes; SUMS];

/// Without the 128 that is added to each: -1.
const WEIGHT: u8 = 127;
/// 1, 1, 1 and 1.
const INPUTS: i32 = 0x0101_0101;

/// Multiplies for as many of the sums, from the `first` one, as registers hold.
trait Multiply {
    fn multiply<S: Simd, const N: usize>(&mut self, simd: S, first: usize);
}

/// For all sums.
struct All<M>(M);

impl<M: Multiply> Work for All<M> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        if S::IS_WIDE {
            return self.0.multiply::<S, SUMS>(simd, 0);
        }
        for first in (0..SUMS).step_by(SUMS_OF_FEW) {
            self.0.multiply::<S, SUMS_OF_FEW>(simd, first);
        }
    }
}

struct Bytes<'a> {
    vectors: &'a [[u8; PRODUCTS * LANES]; VECTORS],
    rounds: usize,
    sums: &'a mut Sums,
}

impl Multiply for Bytes<'_> {
    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let mut sums = [simd.splat_i32(0); N];
        for _ in 0..self.rounds {
            // Without it, plain loops would be worked out before they run.
            let inputs = black_box([INPUTS; N]);
            for vector in self.vectors {
                let weights = simd.load_weights(vector);
                for (sum, inputs) in sums.iter_mut().zip(&inputs) {
                    *sum = simd.dot(*sum, weights, simd.load_quad(inputs));
                }
            }
        }
        for (sum, seen) in sums.into_iter().zip(&mut self.sums[first..]) {
            simd.store(simd.to_f32(sum), seen);
        }
    }
}

struct Floats<'a> {
    vectors: &'a [Lanes; VECTORS],
    rounds: usize,
    sums: &'a mut Sums,
}

impl Multiply for Floats<'_> {
    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let mut sums = [simd.splat(0.0); N];
        for _ in 0..self.rounds {
            let inputs = black_box([1.0; N]);
            for vector in self.vectors {
                let vector = simd.load(vector);
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = simd.mul_add(vector, simd.splat(input), *sum);
                }
            }
        }
        for (sum, seen) in sums.into_iter().zip(&mut self.sums[first..]) {
            simd.store(sum, seen);
        }
    }
}

/// Places of a piece that are read in turn, each from its start.
const STREAMS: usize = 4;

struct Read<'a> {
    piece: &'a [Lanes],
    sums: &'a mut [Lanes; STREAMS],
}

impl Work for Read<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sums = [simd.splat(0.0); STREAMS];
        let (fours, rest) = self.piece.as_chunks::<STREAMS>();
        for four in fours {
            for (sum, vector) in sums.iter_mut().zip(four) {
                *sum = simd.add(*sum, simd.load(vector));
            }
        }
        for vector in rest {
            sums[0] = simd.add(sums[0], simd.load(vector));
        }
        for (sum, seen) in sums.into_iter().zip(self.sums) {
            simd.store(sum, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_does_as_many_multiply_adds_as_are_counted() {
        let rounds = 5;
        let expected = (rounds * VECTORS) as f32;
        for form in Form::all() {
            let mut sums = [[0.0; LANES]; SUMS];
            form.run(All(Floats { vectors: &[[1.0; LANES]; VECTORS], rounds, sums: &mut sums }));
            assert_eq!(sums, [[expected; LANES]; SUMS], "{form:?}");
            form.run(All(Bytes { vectors: &[[WEIGHT; PRODUCTS * LANES]; VECTORS], rounds, sums: &mut sums }));
            // Each product is -1, and 127 where the 128 is still added.
            let of_each = sums[0][0] / (expected * PRODUCTS as f32);
            assert!([-1.0, 127.0].contains(&of_each), "{form:?}: {of_each}");
            assert_eq!(sums, [sums[0]; SUMS], "{form:?}");
        }
    }

    #[test]
    fn each_thread_multiplies_once() {
        let calls = AtomicU64::new(0);
        let pool = Pool::new(3);
        run_on_all(&pool, |_, _| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 3);
        assert_eq!(multiply_floats(&pool) * PRODUCTS as u64, multiply_bytes(&pool));
    }

    #[test]
    fn all_of_memory_is_read_once() {
        let memory = vec![[1.0; LANES]; 2 * VECTORS_PER_PIECE + 7];
        for form in Form::all() {
            assert_eq!(read(&Pool::with_form(2, form), &memory), (memory.len() * LANES) as u64, "{form:?}");
        }
    }
}
