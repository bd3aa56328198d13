//! From logits to a token: biases and penalties, temperature, truncation, the draw, and log-likelihoods.
//!
//! Everything here is a function of values. The same logits, [`SamplingParams`], [`TokenHistory`] and position give
//! the same token in any batch, on any thread and after a move to another worker: randomness is computed from
//! (seed, position), sums are of integers and so don't depend on their order, and the exponential is our own, so
//! that no platform's library has a say. It must not know sequences, models or devices.

mod history;
mod logprobs;
mod params;
mod random;
mod sampler;
mod select;
mod weights;

#[cfg(test)]
mod tests;

pub use history::TokenHistory;
pub use logprobs::{Scored, score};
pub use params::SamplingParams;
pub use random::uniform;
pub(crate) use random::{STEP, mix};
pub use sampler::{Sampled, Scratch, sample};
pub(crate) use weights::VOCAB_SIZE_MAX;

/// Why logits gave no token. All of these are faults of the model or its arithmetic, never of a request's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// A logit is NaN.
    #[error(
        "the logit of token {token} is not a number, but must be finite or minus infinity; check the model's weights \
         and its numeric type"
    )]
    NotANumber {
        /// The first such token.
        token: u32,
    },
    /// A logit is plus infinity.
    #[error(
        "the logit of token {token} is infinite, but must be finite or minus infinity; check the model's weights and \
         its numeric type"
    )]
    Infinite {
        /// The first such token.
        token: u32,
    },
    /// There are no logits, or all are minus infinity.
    #[error(
        "none of the {vocab_size} tokens has a finite logit, but at least one must; check what masks the logits"
    )]
    NoCandidate {
        /// How many logits there are.
        vocab_size: usize,
    },
    /// A token to be scored has no logit.
    #[error(
        "token {token} has no logit, since the vocabulary has {vocab_size}; check which tokenizer made the tokens"
    )]
    UnknownToken {
        /// The token.
        token: u32,
        /// How many logits there are.
        vocab_size: usize,
    },
}
