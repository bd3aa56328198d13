//! The scheduler against a machine that remembers what every slot of every block holds.

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use crate::{
    AddError, BlockHash, BlockId, Config, Scheduler, SequenceId, SequenceSpec, Speculative, StepPlan,
};

const SAMPLED_MAX: usize = 100_000;

/// Executes plans as an engine would: writes each token's key into its slot, reads the whole context back from the
/// blocks, and samples a token that is a function of that context alone.
#[derive(Default)]
struct Machine {
    /// Slot to (token, hash of everything before it and of the salt).
    slots: HashMap<(BlockId, usize), (u32, BlockHash)>,
    latest: HashMap<SequenceId, u32>,
}

impl Machine {
    fn execute(&mut self, plan: &StepPlan, block_size: usize, truth: &mut Truth) -> Vec<(SequenceId, u32)> {
        let mut sampled = Vec::new();
        for run in &plan.sequences {
            let mut tokens = run.tokens.clone();
            if run.awaits_sample {
                tokens.push(self.latest[&run.id]);
            }
            let salt = truth.salt(run.id);
            let mut before = BlockHash::root(&salt);
            for position in 0..run.start {
                let slot = (run.block_table[position / block_size], position % block_size);
                let (token, context) = self.slots[&slot];
                assert_eq!(
                    context, before,
                    "position {position} of {:?} holds this sequence's own past",
                    run.id
                );
                before = before.next(&[token]);
            }
            let mut contexts = Vec::new();
            for (offset, token) in tokens.iter().enumerate() {
                let position = run.start + offset;
                self.slots.insert(
                    (run.block_table[position / block_size], position % block_size),
                    (*token, before),
                );
                before = before.next(&[*token]);
                contexts.push((*token, before));
            }
            // Where a token is sampled: after the last known one, and after each guess.
            let contexts = contexts[contexts.len() - (1 + run.num_drafts)..].iter();
            let guesses = tokens[tokens.len() - run.num_drafts..].iter().map(Some).chain([None]);
            for (at, (context, guess)) in contexts.zip(guesses).enumerate().filter(|_| run.sample) {
                let token = sample(*context);
                truth.sampled(run.id, run.end() - run.num_drafts + at, token);
                self.latest.insert(run.id, token);
                sampled.push((run.id, token));
                if guess != Some(&token) || token == END {
                    break;
                }
            }
        }
        sampled
    }
}

/// Ends an answer before its time.
const END: u32 = 9;

/// Mostly the token after the last one, so that answers repeat themselves for a while.
fn sample((last, context): (u32, BlockHash)) -> u32 {
    let text = serde_json::to_vec(&context).expect("serializes");
    let number = text.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    match number % 24 {
        0 => END,
        1..5 => number / 24 % 5,
        _ => (last + 1) % 5,
    }
}

/// What each sequence must come to, computed with no scheduler at all.
#[derive(Default)]
struct Truth {
    specs: HashMap<SequenceId, SequenceSpec>,
    outputs: HashMap<SequenceId, Vec<u32>>,
}

impl Truth {
    fn salt(&self, id: SequenceId) -> String {
        self.specs[&id].salt.clone()
    }

    fn alone(spec: &SequenceSpec) -> Vec<u32> {
        let mut context =
            spec.tokens.iter().fold(BlockHash::root(&spec.salt), |hash, token| hash.next(&[*token]));
        let mut output: Vec<u32> = Vec::new();
        while output.len() < spec.max_tokens && output.last() != Some(&END) {
            let last = output.last().or(spec.tokens.last()).expect("a prompt");
            let token = sample((*last, context));
            context = context.next(&[token]);
            output.push(token);
        }
        output
    }

    fn has_ended(&self, id: SequenceId) -> bool {
        let output = self.outputs.get(&id).map(Vec::as_slice).unwrap_or_default();
        output.len() == self.specs[&id].max_tokens || output.last() == Some(&END)
    }

    fn sampled(&mut self, id: SequenceId, end: usize, token: u32) {
        let spec = &self.specs[&id];
        let expected = Self::alone(spec);
        let at = end - spec.tokens.len();
        assert!(at < spec.max_tokens, "no token is computed that the length limit makes useless");
        if at >= expected.len() {
            return; // A step planned before the end was known.
        }
        assert_eq!(token, expected[at], "what is sampled does not depend on company");
        let output = self.outputs.entry(id).or_default();
        assert_eq!(output.len(), at, "each token is sampled once, in order");
        output.push(token);
    }
}

/// A scheduler, a machine, and up to `depth` planned steps between them.
struct Rig {
    scheduler: Scheduler,
    machine: Machine,
    truth: Truth,
    planned: VecDeque<StepPlan>,
    depth: usize,
    steps: usize,
}

impl Rig {
    fn new(config: Config, depth: usize) -> Self {
        Self {
            scheduler: Scheduler::new(config).expect("the bounds are sound"),
            machine: Machine::default(),
            truth: Truth::default(),
            planned: VecDeque::new(),
            depth,
            steps: 0,
        }
    }

    fn add(&mut self, spec: SequenceSpec) -> Result<(), AddError> {
        self.scheduler.add(spec.clone())?;
        self.truth.specs.insert(spec.id, spec);
        Ok(())
    }

    fn step(&mut self) {
        let config = self.scheduler.config().clone();
        let mut without_drafts = self.scheduler.without_drafts().schedule();
        let plan = self.scheduler.schedule();
        self.scheduler.check();
        for (run, other) in plan.sequences.iter().zip(&mut without_drafts.sequences) {
            let (known, drafts) = run.tokens.split_at(run.tokens.len() - run.num_drafts);
            assert!(drafts.len() <= config.speculative.num_speculative_tokens && known == other.tokens);
            (other.num_drafts, other.tokens, other.block_table) =
                (drafts.len(), run.tokens.clone(), run.block_table.clone());
        }
        assert_eq!(plan, without_drafts, "guesses take nothing from anybody");
        assert!(plan.num_tokens() <= config.max_num_batched_tokens, "the token budget holds");
        assert!(plan.sequences.len() <= config.max_num_seqs, "the places hold");
        assert!(self.scheduler.stats().num_running <= config.max_num_seqs, "the places hold");
        assert!(
            plan.sequences
                .iter()
                .all(|run| run.num_tokens() > 0 && run.block_table.len() * config.block_size >= run.end())
        );
        if !plan.is_empty() {
            self.planned.push_back(plan);
        }
        if self.planned.len() >= self.depth
            || self.planned.back().is_none_or(|_| self.scheduler.stats().num_running == 0)
        {
            self.finish_oldest();
        }
        self.steps += 1;
    }

    fn finish_oldest(&mut self) {
        let Some(plan) = self.planned.pop_front() else { return };
        let sampled = self.machine.execute(&plan, self.scheduler.config().block_size, &mut self.truth);
        self.scheduler.commit(plan.step, &sampled);
        self.scheduler.check();
        for (id, _) in sampled {
            if self.scheduler.contains(id) && self.truth.has_ended(id) {
                self.scheduler.remove(id);
                self.scheduler.check();
            }
        }
    }

    fn run_to_the_end(&mut self) {
        while !self.scheduler.is_idle() || !self.planned.is_empty() {
            if self.scheduler.is_idle() {
                self.finish_oldest()
            } else {
                self.step()
            }
            // Pipelined steps may plan nothing while results are awaited.
            if self.planned.len() < self.depth && self.steps % 2 == 1 {
                self.finish_oldest();
            }
            assert!(self.steps < SAMPLED_MAX, "everything comes to an end");
        }
        assert_eq!(self.scheduler.stats().num_blocks_used, 0, "no block is lost");
    }
}

fn spec(id: u64, tokens: Vec<u32>, max_tokens: usize) -> SequenceSpec {
    SequenceSpec {
        id: SequenceId(id),
        tokens,
        max_tokens,
        priority: 0,
        salt: String::new(),
        prompt_logprobs: false,
    }
}

#[derive(Clone, Debug)]
enum Event {
    Add { prefix: usize, own: Vec<u32>, max_tokens: usize, priority: i32, salt: u8, prompt_logprobs: bool },
    Cancel { which: usize },
    Step,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0_usize..24, prop::collection::vec(0_u32..4, 1..20), 1_usize..12, -2_i32..3, 0_u8..2, prop::bool::weighted(0.1))
            .prop_map(|(prefix, own, max_tokens, priority, salt, prompt_logprobs)| Event::Add {
                prefix, own, max_tokens, priority, salt, prompt_logprobs
            }),
        1 => (0_usize..40).prop_map(|which| Event::Cancel { which }),
        6 => Just(Event::Step),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let speculative = (0_usize..9, 1_usize..4, 0_u32..40).prop_map(|(tokens, min, cost)| Speculative {
        num_speculative_tokens: tokens,
        prompt_lookup_min: min,
        row_cost_percent: cost,
    });
    (1_usize..6, 1_usize..5, 14_usize..40, 0_usize..20, any::<bool>(), speculative).prop_map(
        |(max_num_seqs, block_size, num_blocks, extra, prefix_caching, speculative)| Config {
            max_num_seqs,
            max_num_batched_tokens: 16 + extra,
            max_num_waiting: 8,
            block_size,
            num_blocks,
            prefix_caching,
            ageing_steps: 5,
            speculative,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_workloads_lose_no_block_break_no_bound_and_compute_what_each_would_alone(
        config in config(), depth in 1_usize..3, events in prop::collection::vec(event(), 1..80),
    ) {
        let mut rig = Rig::new(config, depth);
        let mut next_id = 0;
        for event in events {
            match event {
                Event::Step => rig.step(),
                Event::Cancel { which } => {
                    if let Some(id) = rig.truth.specs.keys().min_by_key(|id| (id.0 as usize).abs_diff(which)).copied() {
                        let before = rig.scheduler.stats().num_blocks_used;
                        rig.scheduler.remove(id);
                        rig.scheduler.check();
                        prop_assert!(rig.scheduler.stats().num_blocks_used <= before);
                    }
                }
                Event::Add { prefix, own, max_tokens, priority, salt, prompt_logprobs } => {
                    let mut tokens: Vec<u32> = (0..prefix as u32).collect();
                    tokens.extend(own);
                    let spec = SequenceSpec {
                        id: SequenceId(next_id), tokens, max_tokens, priority, salt: salt.to_string(), prompt_logprobs,
                    };
                    next_id += 1;
                    let full = rig.scheduler.stats().num_waiting >= rig.scheduler.config().max_num_waiting;
                    match rig.add(spec) {
                        Ok(()) => prop_assert!(!full),
                        Err(AddError::Full { .. }) => prop_assert!(full),
                        Err(AddError::TooLong { needed, num_blocks, .. }) => prop_assert!(needed > num_blocks),
                    }
                }
            }
        }
        rig.run_to_the_end();
    }
}

/// Every guess that there is, on a step's budget of 16 tokens.
fn guessing(max: usize) -> Config {
    let speculative = Speculative { num_speculative_tokens: max, prompt_lookup_min: 2, row_cost_percent: 0 };
    Config { speculative, ..small() }
}

#[test]
fn an_answer_that_repeats_its_prompt_takes_fewer_steps_and_is_the_same() {
    let run = |config| {
        let mut rig = Rig::new(config, 1);
        for id in 0..8 {
            rig.add(spec(id, (0..20 + id as u32).map(|at| at % 5).collect(), 40)).expect("room");
        }
        rig.run_to_the_end();
        (rig.truth.outputs, rig.steps, rig.scheduler.stats())
    };
    let (plain, plain_steps, without) = run(small());
    let (guessed, steps, stats) = run(guessing(4));
    assert_eq!(plain, guessed);
    assert_eq!((without.num_drafts, without.num_draft_tokens, without.num_accepted_tokens), (0, 0, 0));
    assert!(steps * 3 < plain_steps * 2, "{steps} steps, {plain_steps} without guesses");
    let tokens: usize = guessed.values().map(Vec::len).sum();
    assert!(stats.num_accepted_tokens as usize * 3 > tokens, "{stats:?} of {tokens} tokens");
    assert!(stats.num_accepted_tokens < stats.num_draft_tokens, "and some were wrong");
    assert!((stats.num_drafts..=4 * stats.num_drafts).contains(&stats.num_draft_tokens));
}

#[test]
fn wrong_guesses_give_their_blocks_back_in_the_commit() {
    let mut scheduler = Scheduler::new(guessing(6)).expect("sound");
    scheduler.add(spec(1, vec![1, 2, 3, 4, 5, 6, 7, 1, 2], 20)).expect("room");
    let step = scheduler.schedule().step;
    scheduler.commit(step, &[(SequenceId(1), 3)]);
    let plan = scheduler.schedule();
    assert_eq!(
        (&plan.sequences[0].tokens[..], plan.sequences[0].num_drafts),
        (&[3, 4, 5, 6, 7, 1, 2][..], 6)
    );
    assert_eq!(scheduler.stats().num_blocks_used, 4, "positions 0 to 15");
    assert!(scheduler.schedule().is_empty(), "what follows depends on how many come true");
    scheduler.commit(plan.step, &[4, 9].map(|token| (SequenceId(1), token)));
    scheduler.check();
    assert_eq!(scheduler.stats().num_blocks_used, 3, "positions 0 to 10");
    let plan = scheduler.schedule();
    assert_eq!(
        (plan.sequences[0].start, &plan.sequences[0].tokens[..]),
        (11, &[9][..]),
        "nothing follows 4, 9"
    );
}

#[test]
fn no_guess_goes_beyond_the_length_limit() {
    let mut scheduler = Scheduler::new(guessing(6)).expect("sound");
    scheduler.add(spec(1, vec![1; 8], 4)).expect("room");
    let step = scheduler.schedule().step;
    scheduler.commit(step, &[(SequenceId(1), 1)]);
    assert_eq!(scheduler.schedule().sequences[0].num_drafts, 2, "with the token after them, three are left");
}

fn small() -> Config {
    Config { max_num_seqs: 4, max_num_batched_tokens: 16, block_size: 4, num_blocks: 64, ..Config::default() }
}

#[test]
fn a_long_prompt_is_computed_in_chunks_while_others_decode() {
    let mut rig = Rig::new(small(), 1);
    rig.add(spec(1, vec![1; 4], 10)).expect("room");
    rig.step();
    rig.add(spec(2, vec![2; 40], 2)).expect("room");
    let sizes: Vec<BTreeMap<u64, usize>> = (0..4)
        .map(|_| {
            let plan = rig.scheduler.schedule();
            let sampled = rig.machine.execute(&plan, 4, &mut rig.truth);
            rig.scheduler.commit(plan.step, &sampled);
            plan.sequences.iter().map(|run| (run.id.0, run.num_tokens())).collect()
        })
        .collect();
    let expected =
        [[(1, 1), (2, 15)], [(1, 1), (2, 15)], [(1, 1), (2, 10)], [(1, 1), (2, 1)]].map(BTreeMap::from);
    assert_eq!(sizes, expected);
}

#[test]
fn a_long_prompt_lets_short_ones_through_and_takes_at_least_half_of_each_step() {
    let sizes = |prompts: &[usize]| {
        let mut scheduler = Scheduler::new(small()).expect("sound");
        for (id, len) in prompts.iter().enumerate() {
            scheduler.add(spec(id as u64, vec![id as u32; *len], 1)).expect("room");
        }
        let sizes = |plan: &StepPlan| plan.sequences.iter().map(|run| run.num_tokens()).collect::<Vec<_>>();
        let plan = scheduler.schedule();
        let sampled = plan.sequences.iter().filter(|run| run.sample).map(|run| (run.id, 0));
        scheduler.commit(plan.step, &sampled.collect::<Vec<_>>());
        [sizes(&plan), sizes(&scheduler.schedule())]
    };
    assert_eq!(sizes(&[40]), [[16], [16]], "nobody waits");
    assert_eq!(sizes(&[40, 5]), [vec![11, 5], vec![16]]);
    assert_eq!(sizes(&[40, 3, 4, 2]), [vec![9, 3, 4], vec![14, 2]], "up to eight of sixteen tokens");
    assert_eq!(sizes(&[40, 9]), [[16], [16]], "no part of a prompt goes before");
    assert_eq!(sizes(&[40, 40]), [[16], [16]], "one long prompt after the other");
    assert_eq!(sizes(&[8, 20, 5]), [[8, 8], [12, 4]], "what fits whole leaves nothing back");
}

#[test]
fn a_prefix_is_computed_once_for_equal_tokens_and_salt_only() {
    let mut rig = Rig::new(small(), 1);
    let prompt: Vec<u32> = (0..14).collect();
    let hits = |rig: &mut Rig, id, tokens: Vec<u32>, salt: &str| {
        let before = rig.scheduler.stats().prefix_hits;
        rig.add(SequenceSpec { salt: salt.into(), ..spec(id, tokens, 1) }).expect("room");
        rig.run_to_the_end();
        rig.scheduler.stats().prefix_hits - before
    };
    assert_eq!(hits(&mut rig, 1, prompt.clone(), "a"), 0);
    assert_eq!(hits(&mut rig, 2, prompt.clone(), "a"), 12, "three full blocks of four");
    assert_eq!(hits(&mut rig, 3, prompt.clone(), "b"), 0, "another tenant");
    assert_eq!(hits(&mut rig, 4, prompt[..12].to_vec(), "a"), 8, "one token is always left to compute");
    let other: Vec<u32> = prompt.iter().map(|token| if *token == 5 { 99 } else { *token }).collect();
    assert_eq!(hits(&mut rig, 5, other, "a"), 4, "up to the first block that differs");
}

#[test]
fn the_least_urgent_gives_way_when_blocks_run_out() {
    let mut rig = Rig::new(Config { num_blocks: 8, ..small() }, 1);
    rig.add(SequenceSpec { priority: 1, ..spec(1, vec![1; 8], 16) }).expect("room");
    rig.add(spec(2, vec![2; 8], 16)).expect("room");
    while rig.scheduler.stats().num_preemptions == 0 {
        rig.step();
    }
    assert!(rig.scheduler.stats().num_waiting == 1 && rig.truth.outputs[&SequenceId(2)].len() < 16);
    while rig.scheduler.contains(SequenceId(2)) {
        rig.step();
    }
    assert!(rig.truth.outputs[&SequenceId(1)].len() < 16, "the urgent one ends first");
    rig.run_to_the_end();
    assert_eq!(rig.truth.outputs[&SequenceId(1)].len(), 16, "the other one still ends, with the same tokens");
}

#[test]
fn a_stream_of_urgent_arrivals_cannot_starve_a_patient_one() {
    let mut rig = Rig::new(Config { max_num_seqs: 1, max_num_waiting: 1000, ageing_steps: 10, ..small() }, 1);
    rig.add(SequenceSpec { priority: 2, ..spec(0, vec![1; 4], 1) }).expect("room");
    let mut overtaken = 0;
    for id in 1.. {
        rig.add(spec(id, vec![2; 4], 1)).expect("room");
        rig.step();
        if !rig.scheduler.contains(SequenceId(0)) {
            break;
        }
        overtaken += 1;
    }
    assert!((15..=25).contains(&overtaken), "two levels are worth about twenty steps, not {overtaken}");
}

#[test]
fn cancelling_frees_the_blocks_in_the_same_step() {
    let mut rig = Rig::new(small(), 1);
    rig.add(spec(1, vec![1; 10], 10)).expect("room");
    rig.step();
    assert_eq!(rig.scheduler.stats().num_blocks_used, 3);
    rig.scheduler.remove(SequenceId(1));
    assert_eq!(rig.scheduler.stats().num_blocks_used, 0);
    assert!(rig.scheduler.schedule().is_empty());
}

#[test]
fn what_is_refused_says_which_bound() {
    let mut scheduler = Scheduler::new(Config { max_num_waiting: 1, ..small() }).expect("sound");
    assert_eq!(
        scheduler.add(spec(1, vec![1; 200], 100)),
        Err(AddError::TooLong { len: 300, needed: 75, num_blocks: 64 })
    );
    scheduler.add(spec(2, vec![1], 1)).expect("room");
    assert_eq!(scheduler.add(spec(3, vec![1], 1)), Err(AddError::Full { max_num_waiting: 1 }));
    assert!(
        Scheduler::new(Config { max_num_batched_tokens: 2, max_num_seqs: 8, ..Config::default() }).is_err()
    );
}

#[test]
fn a_plan_survives_the_wire() {
    let mut rig = Rig::new(small(), 1);
    rig.add(spec(1, vec![1, 2, 3], 2)).expect("room");
    let plan = rig.scheduler.schedule();
    let text = serde_json::to_string(&plan).expect("serializes");
    assert_eq!(serde_json::from_str::<StepPlan>(&text).expect("parses"), plan);
}
