//! One step of the engine, as a value.

use serde::{Deserialize, Serialize};

use crate::{BlockId, SequenceId};

/// What to compute in one forward pass. Nothing in it refers to memory, so rank 0 can send it to the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Counts up from 1; steps execute and commit in this order.
    pub step: u64,
    /// The sequences of the batch. Empty when there is nothing to do.
    pub sequences: Vec<ScheduledSequence>,
}

impl StepPlan {
    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Tokens in the batch.
    pub fn num_tokens(&self) -> usize {
        self.sequences.iter().map(ScheduledSequence::num_tokens).sum()
    }
}

/// One sequence's share of a step: a run of tokens that follows what is already in its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledSequence {
    /// Whose.
    pub id: SequenceId,
    /// Position of the first token of the run.
    pub start: usize,
    /// The known tokens of the run, then the guessed ones.
    pub tokens: Vec<u32>,
    /// How many of `tokens`, at their end, are guesses. A token is sampled at each of them and at the one before, up to
    /// the first that is not what was guessed.
    pub num_drafts: usize,
    /// One more token follows `tokens`: the one that the latest uncommitted step samples for this sequence.
    pub awaits_sample: bool,
    /// The blocks that hold positions `0..end`, in order.
    pub block_table: Vec<BlockId>,
    /// The run reaches the end of what is known, so the next token is to be sampled from its last position.
    pub sample: bool,
    /// Log-likelihoods of the prompt are wanted, so logits are needed at every position of the run.
    pub prompt_logprobs: bool,
}

impl ScheduledSequence {
    /// Tokens in the run, the awaited one included.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len() + usize::from(self.awaits_sample)
    }

    /// The position after the run: the length of the context that attention sees.
    pub fn end(&self) -> usize {
        self.start + self.num_tokens()
    }
}
