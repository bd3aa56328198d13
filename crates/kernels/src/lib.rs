//! What is hot in a transformer on a CPU: matrix products of few bits, attention over a paged KV-cache, norms.
//!
//! Weights are 8-bit integers in groups of [`GROUP`] inputs with one scale, or of 4 bits with a scale and a minimum where
//! that is what a file has, laid out once for the order in which they are read. Activations are quantized in the same
//! groups to two bytes, products are summed in 32-bit integers, and groups in `f32`, in the order of inputs. No output's
//! order of summation depends on how many rows are computed together or by how many threads, so a row's result is the
//! same to the bit alone, in a batch, and in any cut of a prompt.
//!
//! This is the one crate with `unsafe`: for vector instructions (`simd`), for work that borrows from a caller
//! who waits (`pool`), for threads that write different columns of one matrix (`columns` and its two users), and for
//! memory of the system's own (`zeroed`).

mod attention;
mod columns;
mod four_bits;
mod matrix;
mod norm;
mod panel;
pub mod peak;
mod pool;
mod product;
mod rows;
mod simd;
mod zeroed;

pub use attention::{AttentionBatch, AttentionRun, KvCache, KvFormat, KvLayout, Rope};
pub use four_bits::FourBits;
pub use matrix::{GROUP, Matrix, UnfinishedMatrix};
pub use norm::rms_norm;
pub use pool::Pool;
pub use product::{Product, gated_product, products};
pub use rows::Rows;
pub use simd::LANES;

/// The vector instructions that kernels use on this processor, in words.
pub fn instructions() -> &'static str {
    simd::Form::best().name()
}

#[cfg(test)]
mod tests;
