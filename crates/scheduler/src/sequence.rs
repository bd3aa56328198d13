//! A sequence of tokens on its way through the engine.

use serde::{Deserialize, Serialize};

use crate::draft::Drafter;
use crate::{BlockHash, BlockId};

/// Names a sequence; never used twice in one scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SequenceId(pub u64);

/// What the engine asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSpec {
    /// A new name.
    pub id: SequenceId,
    /// The prompt; at least one token.
    pub tokens: Vec<u32>,
    /// The most tokens to generate; at least one.
    pub max_tokens: usize,
    /// Lower is served earlier.
    pub priority: i32,
    /// Prefix hits happen only among equal salts.
    pub salt: String,
    /// Compute the whole prompt, hits or not, since logits of all its positions are wanted.
    pub prompt_logprobs: bool,
}

/// Orders sequences: priority, made more urgent by age in steps, then arrival.
///
/// A sequence of priority p that arrived at step s ranks by p · `ageing_steps` + s. That says "one level more urgent
/// for every `ageing_steps` waited" without ever changing: what is waited shifts all ranks alike. So a queue ordered by
/// it needs no re-sorting, and only a bounded number of later arrivals can ever rank before a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    aged: i64,
    arrival: u64,
}

impl Rank {
    pub(crate) fn new(priority: i32, ageing_steps: u32, step: u64, arrival: u64) -> Self {
        let urgency = i64::from(priority) * i64::from(ageing_steps);
        Self { aged: urgency.saturating_add_unsigned(step), arrival }
    }
}

/// The scheduler's record of a sequence.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) rank: Rank,
    /// Prompt, then what was sampled and committed.
    pub(crate) tokens: Vec<u32>,
    /// The length at which the engine ends it.
    pub(crate) len_max: usize,
    pub(crate) prompt_logprobs: bool,
    /// Positions whose keys and values are in the blocks, or will be when the steps under way are done.
    pub(crate) num_computed: usize,
    /// Sampled by steps under way, not yet known.
    pub(crate) num_awaited: usize,
    /// Guesses in the step under way. What follows is planned when it is known how many came true.
    pub(crate) num_drafts: usize,
    /// There from the first time that a guess could be made.
    pub(crate) drafter: Option<Drafter>,
    pub(crate) block_table: Vec<BlockId>,
    /// Hashes of the full blocks of `tokens`, as far as anyone asked.
    pub(crate) hashes: Vec<BlockHash>,
    root: BlockHash,
    /// Leading blocks that are in the prefix index under their hash.
    pub(crate) num_indexed: usize,
    /// Counts preemptions: a step planned before one must not vouch for the blocks taken after it.
    pub(crate) incarnation: u32,
}

impl Sequence {
    pub(crate) fn new(spec: SequenceSpec, rank: Rank) -> Self {
        Self {
            rank,
            len_max: spec.tokens.len() + spec.max_tokens,
            tokens: spec.tokens,
            prompt_logprobs: spec.prompt_logprobs,
            num_computed: 0,
            num_awaited: 0,
            num_drafts: 0,
            drafter: None,
            block_table: Vec::new(),
            hashes: Vec::new(),
            root: BlockHash::root(&spec.salt),
            num_indexed: 0,
            incarnation: 0,
        }
    }

    /// Length with the tokens that are being sampled.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len() + self.num_awaited
    }

    /// Positions still to compute; none once the length limit is reached, or while guesses are being checked.
    pub(crate) fn num_uncomputed(&self) -> usize {
        let is_settled = self.num_drafts == 0 && self.len() < self.len_max;
        if is_settled { self.len() - self.num_computed } else { 0 }
    }

    /// The guess after `drafts`, and how likely it and they come true; none where no step could use it.
    pub(crate) fn guess(&mut self, drafts: &[u32], ngram: usize) -> Option<(u32, f64)> {
        if self.num_awaited > 1 || self.tokens.len() + drafts.len() + 2 > self.len_max {
            return None;
        }
        let drafter = self.drafter.get_or_insert_with(|| Drafter::new(&self.tokens, ngram));
        Some((drafter.guess(&self.tokens, drafts)?, drafter.chance(drafts.len())))
    }

    /// Adds a sampled token.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
        if let Some(drafter) = &mut self.drafter {
            drafter.grown(&self.tokens);
        }
    }

    /// Hashes of the first `count` full blocks.
    pub(crate) fn hashes(&mut self, count: usize, block_size: usize) -> &[BlockHash] {
        for block in self.hashes.len()..count {
            let parent = self.hashes.last().unwrap_or(&self.root);
            let hash = parent.next(&self.tokens[block * block_size..(block + 1) * block_size]);
            self.hashes.push(hash);
        }
        &self.hashes[..count]
    }
}
