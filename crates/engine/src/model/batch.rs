//! A ragged batch: runs of tokens of several sequences, one after the other.

use scheduler::{SequenceId, StepPlan};

/// The input of one forward pass over T tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// T token ids, the runs of the sequences one after the other.
    pub tokens: Vec<u32>,
    /// T positions in their sequences.
    pub positions: Vec<u32>,
    /// T slots of the KV-cache: block times block size plus offset.
    pub slots: Vec<u32>,
    /// The runs.
    pub sequences: Vec<BatchSequence>,
    /// Rows of the T at which logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
    /// Tokens in a block.
    pub block_size: usize,
}

/// One sequence's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSequence {
    /// The first of its rows.
    pub row: usize,
    /// How many rows it has.
    pub len: usize,
    /// Position of its first row: how much context lies before it.
    pub start: usize,
    /// The blocks that hold positions `0..start + len`.
    pub block_table: Vec<u32>,
    /// Logits are wanted for its last row only, all, or none.
    pub num_logits: usize,
}

impl Batch {
    /// From a plan; `awaited` gives the token that the step before sampled for a sequence.
    pub fn from_plan(plan: &StepPlan, block_size: usize, mut awaited: impl FnMut(SequenceId) -> u32) -> Self {
        let mut batch = Self { block_size, ..Self::default() };
        for run in &plan.sequences {
            let row = batch.tokens.len();
            batch.tokens.extend_from_slice(&run.tokens);
            batch.tokens.extend(run.awaits_sample.then(|| awaited(run.id)));
            let block_table: Vec<u32> = run.block_table.iter().map(|block| block.0).collect();
            for position in run.start..run.end() {
                batch.positions.push(position as u32);
                batch.slots.push(
                    block_table[position / block_size] * block_size as u32 + (position % block_size) as u32,
                );
            }
            let len = run.num_tokens();
            let num_logits = if run.prompt_logprobs { len } else { usize::from(run.sample) };
            batch.logit_rows.extend((row + len - num_logits..row + len).map(|row| row as u32));
            batch.sequences.push(BatchSequence { row, len, start: run.start, block_table, num_logits });
        }
        batch
    }
}
