//! What this machine can do at best, measured.

use std::time::{Duration, Instant};

use kernels::{LANES, Pool, peak};
use serde::Serialize;

use crate::{Error, Progress};

/// What is read to see how fast memory is: well beyond the caches.
const MEMORY_BYTES: usize = 256 << 20;
/// How long each peak is looked for. The best moment counts, for a peak is what nothing got in the way of.
const LOOK: Duration = Duration::from_millis(400);
const LOOKS_MIN: usize = 3;

/// The machine's peaks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peaks {
    /// The vector instructions in use.
    pub instructions: &'static str,
    /// Threads that compute.
    pub threads: usize,
    /// Products of two bytes, each added to a sum, a second, of one thread: the plain product of one-byte activations.
    pub byte_products_per_s_one_thread: f64,
    /// The same of all threads.
    pub byte_products_per_s: f64,
    /// Multiply-adds of a weight and a two-byte activation a second: each takes two products of bytes.
    pub multiply_adds_per_s: f64,
    /// Multiply-adds of floats a second, as attention has them.
    pub float_multiply_adds_per_s: f64,
    /// Bytes a second that all threads read from memory.
    pub bytes_per_s: f64,
}

/// Measures them, in about two seconds.
pub(crate) async fn measure(threads: usize, progress: &Progress) -> Result<Peaks, Error> {
    progress("peaks of this machine");
    let peaks = tokio::task::spawn_blocking(move || {
        let (one, all) = (Pool::new(1), Pool::new(threads));
        let byte_products_per_s = best(|| peak::multiply_bytes(&all));
        // Written, for pages that never were are all the same one.
        let memory = vec![[1.0_f32; LANES]; MEMORY_BYTES / size_of::<[f32; LANES]>()];
        Peaks {
            instructions: kernels::instructions(),
            threads: all.num_threads(),
            byte_products_per_s_one_thread: best(|| peak::multiply_bytes(&one)),
            byte_products_per_s,
            multiply_adds_per_s: byte_products_per_s / peak::PRODUCTS_PER_MULTIPLY_ADD as f64,
            float_multiply_adds_per_s: best(|| peak::multiply_floats(&all)),
            bytes_per_s: best(|| {
                std::hint::black_box(peak::read(&all, &memory));
                MEMORY_BYTES as u64
            }),
        }
    });
    peaks.await.map_err(|_| Error::broken("the peaks could not be measured"))
}

/// The highest rate at which `work` does what it says, a second.
fn best(work: impl Fn() -> u64) -> f64 {
    let (since, mut best) = (Instant::now(), 0.0_f64);
    for looks in 0.. {
        if looks >= LOOKS_MIN && since.elapsed() > LOOK {
            break;
        }
        let started = Instant::now();
        let done = work() as f64;
        best = best.max(done / started.elapsed().as_secs_f64());
    }
    best
}
