//! Continuous batching: who runs in the next step, with how many tokens.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::config::Speculative;
use crate::draft::StepYield;
use crate::plan::{ScheduledSequence, StepPlan};
use crate::sequence::{Rank, Sequence};
use crate::{BlockPool, Config, ConfigError, SequenceId, SequenceSpec};

/// Why a sequence was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Every place to wait is taken.
    #[error("all {max_num_waiting} places to wait are taken")]
    Full {
        /// The bound.
        max_num_waiting: usize,
    },
    /// It could never run, however empty the engine.
    #[error("{len} tokens need {needed} blocks of keys and values, but there are {num_blocks}")]
    TooLong {
        /// Prompt and longest answer together.
        len: usize,
        /// Blocks for them.
        needed: usize,
        /// Blocks there are.
        num_blocks: usize,
    },
}

/// Counters since the start, and gauges of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that wait.
    pub num_waiting: usize,
    /// Sequences that hold blocks.
    pub num_running: usize,
    /// Blocks that sequences hold.
    pub num_blocks_used: usize,
    /// Blocks in all.
    pub num_blocks: usize,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Those that were found.
    pub prefix_hits: u64,
    /// Sequences that lost their blocks to a more urgent one and were computed again.
    pub num_preemptions: u64,
    /// Runs that held guesses.
    pub num_drafts: u64,
    /// Guesses in them.
    pub num_draft_tokens: u64,
    /// Those that came true.
    pub num_accepted_tokens: u64,
}

/// A step that was planned and has not been committed.
#[derive(Clone, Debug)]
struct InFlight {
    step: u64,
    runs: Vec<Run>,
}

#[derive(Clone, Debug)]
struct Run {
    id: SequenceId,
    end: usize,
    sample: bool,
    num_drafts: usize,
    incarnation: u32,
}

/// Plans steps over a fixed number of blocks.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: Config,
    pool: BlockPool,
    sequences: HashMap<SequenceId, Sequence>,
    waiting: BTreeMap<Rank, SequenceId>,
    running: BTreeMap<Rank, SequenceId>,
    in_flight: VecDeque<InFlight>,
    step: u64,
    arrivals: u64,
    prefix_queries: u64,
    prefix_hits: u64,
    num_preemptions: u64,
    /// Runs with guesses, guesses, and those that came true.
    drafted: [u64; 3],
}

impl Scheduler {
    /// An empty scheduler.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            pool: BlockPool::new(config.num_blocks),
            config,
            sequences: HashMap::new(),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            in_flight: VecDeque::new(),
            step: 0,
            arrivals: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            num_preemptions: 0,
            drafted: [0; 3],
        })
    }

    /// The bounds in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let [num_drafts, num_draft_tokens, num_accepted_tokens] = self.drafted;
        Stats {
            num_waiting: self.waiting.len(),
            num_running: self.running.len(),
            num_blocks_used: self.pool.num_blocks() - self.pool.num_free(),
            num_blocks: self.pool.num_blocks(),
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            num_preemptions: self.num_preemptions,
            num_drafts,
            num_draft_tokens,
            num_accepted_tokens,
        }
    }

    /// Whether no sequence is left.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether a sequence is waiting or running.
    pub fn contains(&self, id: SequenceId) -> bool {
        self.sequences.contains_key(&id)
    }

    /// Puts a sequence in line.
    pub fn add(&mut self, spec: SequenceSpec) -> Result<(), AddError> {
        assert!(
            !spec.tokens.is_empty() && spec.max_tokens > 0,
            "a sequence has a prompt and room for an answer"
        );
        assert!(!self.sequences.contains_key(&spec.id), "a sequence id is used once");
        let len = spec.tokens.len() + spec.max_tokens;
        let (needed, num_blocks) = (self.config.blocks_for(len), self.config.num_blocks);
        if needed > num_blocks {
            return Err(AddError::TooLong { len, needed, num_blocks });
        }
        let max_num_waiting = self.config.max_num_waiting;
        if self.waiting.len() >= max_num_waiting {
            return Err(AddError::Full { max_num_waiting });
        }
        self.arrivals += 1;
        let rank = Rank::new(spec.priority, self.config.ageing_steps, self.step, self.arrivals);
        let id = spec.id;
        self.sequences.insert(id, Sequence::new(spec, rank));
        self.waiting.insert(rank, id);
        Ok(())
    }

    /// Ends a sequence, finished or cancelled, wherever it is; its blocks are free at once. Steps under way that
    /// contain it run to their end, harmlessly: whoever gets its blocks is computed in a later step.
    pub fn remove(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.waiting.remove(&sequence.rank);
            self.running.remove(&sequence.rank);
            release_blocks(&mut self.pool, &mut sequence);
        }
    }

    /// Plans the next step: running sequences that decode, then running ones that are still in their prompt, then
    /// waiting ones, each group in order of rank, until the token budget or the places are used up; a prompt that would
    /// use it up leaves some of it to short ones that wait. Guesses take what is left.
    pub fn schedule(&mut self) -> StepPlan {
        self.step += 1;
        let mut plan = StepPlan { step: self.step, sequences: Vec::new() };
        let mut budget = self.config.max_num_batched_tokens;
        let preemptions_before = self.num_preemptions;
        let (decodes, prefills): (Vec<_>, Vec<_>) = self
            .running
            .values()
            .map(|id| (*id, self.sequences[id].num_uncomputed()))
            .filter(|(_, uncomputed)| *uncomputed > 0)
            .partition(|(_, uncomputed)| *uncomputed == 1);
        for (id, uncomputed) in decodes.into_iter().chain(prefills) {
            if budget == 0 {
                break;
            }
            // A sequence of this list may have been preempted for one before it.
            if self.running.contains_key(&self.sequences[&id].rank) {
                let count = self.share(uncomputed, budget);
                if self.make_room(id, count, &mut plan, &mut budget) {
                    budget -= self.plan_run(id, count, &mut plan);
                }
            }
        }
        // A waiting sequence would only take blocks from the ones that were just found to have too few.
        if self.num_preemptions == preemptions_before {
            self.admit(&mut plan, &mut budget);
        }
        self.add_drafts(&mut plan, budget);
        if !plan.is_empty() {
            self.in_flight.push_back(InFlight { step: plan.step, runs: self.runs_of(&plan) });
        }
        plan
    }

    /// Takes the results of the oldest step under way: the token sampled for each run that was to be sampled, in the
    /// plan's order; where there were guesses, as many as were sampled, one after the other. Results of sequences that
    /// have been removed are ignored.
    pub fn commit(&mut self, step: u64, sampled: &[(SequenceId, u32)]) {
        let Some(done) = self.in_flight.pop_front() else {
            assert!(sampled.is_empty(), "a step is committed once");
            return;
        };
        assert_eq!(done.step, step, "steps commit in the order in which they were planned");
        let mut rest = sampled;
        for run in done.runs {
            let count = rest.iter().take_while(|(id, _)| *id == run.id).count();
            let (own, others) = rest.split_at(count);
            rest = others;
            let Some(sequence) = self.sequences.get_mut(&run.id) else { continue };
            let most = if run.sample { 1 + run.num_drafts } else { 0 };
            assert!(
                count <= most && (count > 0) == run.sample,
                "a run that asks gets a token, and one more for each guess that came true, in the plan's order"
            );
            own.iter().for_each(|(_, token)| sequence.push(*token));
            sequence.num_awaited -= usize::from(run.sample);
            let num_wrong = most - count;
            if run.num_drafts > 0 {
                sequence.num_drafts = 0;
                let counts = [1, run.num_drafts, count - 1];
                self.drafted.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count as u64);
            }
            if run.incarnation != sequence.incarnation {
                continue;
            }
            if num_wrong > 0 {
                sequence.num_computed -= num_wrong;
                let kept = self.config.blocks_for(sequence.num_computed);
                sequence.block_table.drain(kept..).rev().for_each(|block| self.pool.release(block));
            }
            if self.config.prefix_caching {
                index_blocks(&mut self.pool, sequence, run.end - num_wrong, self.config.block_size);
            }
        }
    }

    /// How much of the budget a sequence takes that needs `uncomputed`. What would take all of it leaves up to half to the
    /// next ones that wait, as far as they fit in there whole: a question need not wait for all of a long text before it.
    fn share(&self, uncomputed: usize, budget: usize) -> usize {
        if uncomputed <= budget {
            return uncomputed;
        }
        let places = self.config.max_num_seqs.saturating_sub(self.running.len());
        let next = self.waiting.values().take(places).map(|id| self.sequences[id].len());
        let sums = next.scan(0, |sum, len| {
            *sum += len;
            Some(*sum)
        });
        let has_room = |sum: usize| self.config.blocks_for(budget + sum) + places <= self.pool.num_free();
        budget - sums.take_while(|sum| *sum <= budget / 2 && has_room(*sum)).last().unwrap_or(0)
    }

    /// Takes blocks for the next `count` positions of a running sequence, from less urgent ones if none are free.
    /// False if the sequence itself was the least urgent and gave up its own.
    fn make_room(&mut self, id: SequenceId, count: usize, plan: &mut StepPlan, budget: &mut usize) -> bool {
        loop {
            let sequence = &self.sequences[&id];
            let needed = self.config.blocks_for(sequence.num_computed + count);
            let missing = needed.saturating_sub(sequence.block_table.len());
            if missing <= self.pool.num_free() {
                self.grow(id, needed);
                return true;
            }
            let Some((_, victim)) = self.running.last_key_value() else { return false };
            let victim = *victim;
            self.preempt(victim, plan, budget);
            if victim == id {
                return false;
            }
        }
    }

    /// Sends a running sequence back to wait. It keeps its tokens and will be computed again, from the prefix cache
    /// as far as its blocks are still there by then.
    fn preempt(&mut self, id: SequenceId, plan: &mut StepPlan, budget: &mut usize) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        if let Some(at) = plan.sequences.iter().position(|planned| planned.id == id) {
            let planned = plan.sequences.remove(at);
            *budget += planned.num_tokens();
            sequence.num_awaited -= usize::from(planned.sample);
        }
        sequence.num_computed = 0;
        sequence.incarnation += 1;
        self.running.remove(&sequence.rank);
        self.waiting.insert(sequence.rank, id);
        release_blocks(&mut self.pool, sequence);
        self.num_preemptions += 1;
    }

    /// Starts waiting sequences in order of rank, the first that finds no room ending it: nobody overtakes. One
    /// starts only if blocks for all of it are free, lest many half-computed prompts take them from each other.
    fn admit(&mut self, plan: &mut StepPlan, budget: &mut usize) {
        while *budget > 0 && self.running.len() < self.config.max_num_seqs {
            let Some((rank, id)) = self.waiting.first_key_value() else { return };
            let (rank, id) = (*rank, *id);
            let Some(sequence) = self.sequences.get_mut(&id) else { return };
            // Preempted with a sample under way: what to compute is known once that is committed.
            if sequence.num_awaited > 0 {
                return;
            }
            let len = sequence.len();
            let hits = find_prefix(&self.pool, &self.config, sequence);
            let hits_free = hits.iter().filter(|id| self.pool.is_free(**id)).count();
            if self.config.blocks_for(len) - hits.len() > self.pool.num_free() - hits_free {
                return;
            }
            if self.config.prefix_caching && !sequence.prompt_logprobs {
                self.prefix_queries += len as u64;
                self.prefix_hits += (hits.len() * self.config.block_size) as u64;
            }
            hits.iter().for_each(|id| self.pool.share(*id));
            sequence.num_computed = hits.len() * self.config.block_size;
            sequence.num_indexed = hits.len();
            sequence.block_table = hits;
            self.waiting.remove(&rank);
            self.running.insert(rank, id);
            let count = self.share(len - self.sequences[&id].num_computed, *budget);
            self.grow(id, self.config.blocks_for(self.sequences[&id].num_computed + count));
            *budget -= self.plan_run(id, count, plan);
        }
    }

    fn grow(&mut self, id: SequenceId, num_blocks: usize) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        while sequence.block_table.len() < num_blocks {
            let Some(block) = self.pool.allocate() else { return };
            sequence.block_table.push(block);
        }
    }

    /// Adds `count` positions of a sequence to the plan and returns `count`.
    fn plan_run(&mut self, id: SequenceId, count: usize, plan: &mut StepPlan) -> usize {
        let Some(sequence) = self.sequences.get_mut(&id) else { return 0 };
        let (start, end) = (sequence.num_computed, sequence.num_computed + count);
        let known = end.min(sequence.tokens.len());
        let sample = end == sequence.len();
        plan.sequences.push(ScheduledSequence {
            id,
            start,
            tokens: sequence.tokens[start.min(known)..known].to_vec(),
            num_drafts: 0,
            awaits_sample: end > known,
            block_table: sequence.block_table.clone(),
            sample,
            prompt_logprobs: sequence.prompt_logprobs,
        });
        sequence.num_computed = end;
        sequence.num_awaited += usize::from(sample);
        count
    }

    /// Lets runs of one known token go on with guesses, one more each by turns, as long as each is worth its row. They
    /// take the budget and the blocks that nobody else wants now.
    fn add_drafts(&mut self, plan: &mut StepPlan, mut budget: usize) {
        let Speculative { num_speculative_tokens, prompt_lookup_min, row_cost_percent } =
            self.config.speculative;
        let num_sampled = plan.sequences.iter().filter(|run| run.sample).count();
        let mut step_yield = StepYield::new(num_sampled, row_cost_percent);
        for round in 0..num_speculative_tokens {
            for run in &mut plan.sequences {
                let goes_on = run.sample && run.tokens.len() == 1 + round && run.num_drafts == round;
                let Some(sequence) = self.sequences.get_mut(&run.id).filter(|_| goes_on && budget > 0) else {
                    continue;
                };
                let Some((token, chance)) = sequence.guess(&run.tokens[1..], prompt_lookup_min) else {
                    continue;
                };
                let needs_block = run.end() == run.block_table.len() * self.config.block_size;
                if (needs_block && self.pool.num_free() == 0) || !step_yield.take(chance) {
                    continue;
                }
                let block = needs_block.then(|| self.pool.allocate()).flatten();
                run.block_table.extend(block);
                sequence.block_table.extend(block);
                run.tokens.push(token);
                run.num_drafts += 1;
                (sequence.num_drafts, sequence.num_computed) = (run.num_drafts, run.end());
                budget -= 1;
            }
        }
    }

    fn runs_of(&self, plan: &StepPlan) -> Vec<Run> {
        plan.sequences
            .iter()
            .map(|planned| Run {
                id: planned.id,
                end: planned.end(),
                sample: planned.sample,
                num_drafts: planned.num_drafts,
                incarnation: self.sequences[&planned.id].incarnation,
            })
            .collect()
    }
}

/// The blocks that already hold the start of a sequence. At least one token is left to compute, since sampling needs
/// its logits.
fn find_prefix(pool: &BlockPool, config: &Config, sequence: &mut Sequence) -> Vec<crate::BlockId> {
    if !config.prefix_caching || sequence.prompt_logprobs {
        return Vec::new();
    }
    let full_blocks = (sequence.tokens.len() - 1) / config.block_size;
    sequence.hashes(full_blocks, config.block_size).iter().map_while(|hash| pool.find(hash)).collect()
}

/// Lets others find the blocks of a sequence that are full and computed up to `end`.
fn index_blocks(pool: &mut BlockPool, sequence: &mut Sequence, end: usize, block_size: usize) {
    let full_blocks = end.min(sequence.tokens.len()) / block_size;
    sequence.hashes(full_blocks, block_size);
    for block in sequence.num_indexed..full_blocks {
        pool.index(sequence.block_table[block], sequence.hashes[block]);
    }
    sequence.num_indexed = sequence.num_indexed.max(full_blocks);
}

/// Last block first, so that the start of a prefix outlives its end in the cache.
fn release_blocks(pool: &mut BlockPool, sequence: &mut Sequence) {
    for block in sequence.block_table.drain(..).rev() {
        pool.release(block);
    }
    sequence.num_indexed = 0;
}

#[cfg(test)]
impl Scheduler {
    /// The same, but it makes no guesses from now on.
    pub(crate) fn without_drafts(&self) -> Self {
        let mut other = self.clone();
        other.config.speculative.num_speculative_tokens = 0;
        other
    }

    /// Checks what must hold between any two calls.
    pub(crate) fn check(&self) {
        let mut holders = HashMap::new();
        for sequence in self.sequences.values() {
            sequence.block_table.iter().for_each(|block| *holders.entry(*block).or_insert(0) += 1);
            assert_eq!(
                self.running.contains_key(&sequence.rank),
                !self.waiting.contains_key(&sequence.rank),
                "a sequence either waits or runs"
            );
        }
        assert_eq!(self.waiting.len() + self.running.len(), self.sequences.len());
        self.pool.check(&holders);
    }
}
