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
    /// Logits are wanted for so many of its rows, at its end: where a token is sampled, or all.
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
            let num_sampled = if run.sample { 1 + run.num_drafts } else { 0 };
            let num_logits = if run.prompt_logprobs { len } else { num_sampled };
            batch.logit_rows.extend((row + len - num_logits..row + len).map(|row| row as u32));
            batch.sequences.push(BatchSequence { row, len, start: run.start, block_table, num_logits });
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use scheduler::{BlockId, ScheduledSequence};

    use super::*;

    fn run(id: u64, start: usize, tokens: &[u32], blocks: &[u32]) -> ScheduledSequence {
        ScheduledSequence {
            id: SequenceId(id),
            start,
            tokens: tokens.to_vec(),
            num_drafts: 0,
            awaits_sample: false,
            block_table: blocks.iter().copied().map(BlockId).collect(),
            sample: false,
            prompt_logprobs: false,
        }
    }

    fn batch(sequences: Vec<ScheduledSequence>) -> Batch {
        let latest = |SequenceId(id)| 100 + id as u32;
        Batch::from_plan(&StepPlan { step: 1, sequences }, 4, latest)
    }

    #[test]
    fn runs_lie_one_after_the_other_each_with_its_own_positions_and_slots() {
        let batch = batch(vec![run(1, 0, &[10, 11], &[7]), run(2, 3, &[20, 21, 22], &[5, 2])]);
        assert_eq!(batch.tokens, [10, 11, 20, 21, 22]);
        assert_eq!(batch.positions, [0, 1, 3, 4, 5]);
        assert_eq!(batch.slots, [28, 29, 23, 8, 9], "the second run crosses from block 5 into block 2");
        let shapes: Vec<_> = batch.sequences.iter().map(|run| (run.row, run.len, run.start)).collect();
        assert_eq!(shapes, [(0, 2, 0), (2, 3, 3)]);
        assert_eq!(batch.sequences[1].block_table, [5, 2]);
        assert!(batch.logit_rows.is_empty() && batch.sequences.iter().all(|run| run.num_logits == 0));
        assert_eq!(batch.block_size, 4);
    }

    #[test]
    fn logits_are_wanted_at_the_last_row_of_a_run_that_samples_and_at_every_row_of_one_that_is_scored() {
        let batch = batch(vec![
            ScheduledSequence { sample: true, ..run(1, 0, &[1, 2, 3], &[0]) },
            run(2, 0, &[4, 5], &[1]),
            ScheduledSequence { prompt_logprobs: true, ..run(3, 0, &[6, 7], &[2]) },
            ScheduledSequence { prompt_logprobs: true, sample: true, ..run(4, 0, &[8], &[3]) },
            ScheduledSequence { sample: true, num_drafts: 2, ..run(5, 0, &[9, 10, 11, 12], &[4]) },
        ]);
        assert_eq!(
            batch.logit_rows,
            [2, 5, 6, 7, 9, 10, 11],
            "and at every guess and the row before the first"
        );
        assert_eq!(batch.sequences.iter().map(|run| run.num_logits).collect::<Vec<_>>(), [1, 0, 2, 1, 3]);
    }

    #[test]
    fn an_awaited_sample_is_the_last_token_of_its_run() {
        let alone = ScheduledSequence { awaits_sample: true, sample: true, ..run(3, 4, &[], &[6, 1]) };
        let after_others = ScheduledSequence { awaits_sample: true, sample: true, ..run(9, 2, &[50], &[3]) };
        let batch = batch(vec![alone, run(5, 0, &[60], &[2]), after_others]);
        assert_eq!(batch.tokens, [103, 60, 50, 109], "each asks for its own sequence's sample");
        assert_eq!(batch.positions, [4, 0, 2, 3]);
        assert_eq!(batch.slots, [4, 8, 14, 15]);
        assert_eq!(batch.logit_rows, [0, 3]);
        assert_eq!(batch.sequences[2].len, 2);
    }

    #[test]
    fn nobody_is_asked_for_a_sample_that_no_run_awaits() {
        let plan = StepPlan { step: 1, sequences: vec![run(1, 0, &[1], &[0])] };
        Batch::from_plan(&plan, 4, |id| panic!("{id:?} awaits nothing"));
        assert_eq!(batch(Vec::new()), Batch { block_size: 4, ..Batch::default() });
    }
}
