use std::collections::HashMap;

use proptest::prelude::*;
use scheduler::{Scheduler, SequenceId, SequenceSpec};

use super::*;

/// A profile whose steps take no time worth mentioning.
fn quick() -> Arc<Profile> {
    let mut profile = profile::shipped(profile::DEFAULT_NAME).expect("shipped");
    profile.fitted.overhead_us = 0.0;
    profile.device.peak_gb_s = 1e9;
    profile.device.peak_tflops = 1e9;
    Arc::new(profile)
}

const VOCAB: usize = 300;

/// Runs all prompts through one scheduler and returns each one's answer, with the number of preemptions and hits.
fn answers(
    config: &scheduler::Config,
    prompts: &[(Vec<u32>, String)],
    len: usize,
) -> (Vec<Vec<u32>>, u64, u64) {
    let slots = config.num_blocks * config.block_size;
    let mut backend = SimulatedBackend::new(quick(), slots, VOCAB);
    let mut scheduler = Scheduler::new(config.clone()).expect("sound");
    for (id, (tokens, salt)) in prompts.iter().enumerate() {
        let spec = SequenceSpec {
            id: SequenceId(id as u64),
            tokens: tokens.clone(),
            max_tokens: len,
            priority: 0,
            salt: salt.clone(),
            prompt_logprobs: false,
        };
        scheduler.add(spec).expect("room");
    }
    let mut said: HashMap<SequenceId, Vec<u32>> = HashMap::new();
    while !scheduler.is_idle() {
        let plan = scheduler.schedule();
        assert!(plan.sequences.len() <= config.max_num_seqs, "the batch keeps its bound");
        assert!(plan.num_tokens() <= config.max_num_batched_tokens, "the step keeps its budget");
        let batch = Batch::from_plan(&plan, config.block_size, |id| said[&id].last().copied().expect("one"));
        let mut logits = backend.forward(&batch).expect("never fails");
        let mut rows = logits.rows();
        let mut sampled = Vec::new();
        for run in plan.sequences.iter().filter(|run| run.sample) {
            let row = rows.next().expect("a row a sample");
            let certain: Vec<usize> = (0..row.len()).filter(|at| row[*at] > UNLIKELY).collect();
            assert_eq!(certain.len(), 1, "one word is certain");
            sampled.push((run.id, certain[0] as u32));
        }
        scheduler.commit(plan.step, &sampled);
        for (id, token) in sampled {
            let answer = said.entry(id).or_default();
            answer.push(token);
            if answer.len() == len {
                scheduler.remove(id);
            }
        }
    }
    let answers = (0..prompts.len()).map(|id| said.remove(&SequenceId(id as u64)).expect("an answer"));
    (answers.collect(), scheduler.stats().num_preemptions, scheduler.stats().prefix_hits)
}

fn config() -> scheduler::Config {
    scheduler::Config { block_size: 4, num_blocks: 4096, max_num_waiting: 64, ..scheduler::Config::default() }
}

/// Prompts that begin alike, more or less.
fn prompts() -> impl Strategy<Value = Vec<(Vec<u32>, String)>> {
    let prompt = (0_u32..3, 1_usize..60, prop::collection::vec(0_u32..4, 0..12), "[ab]?");
    let prompt = prompt.prop_map(|(start, len, end, salt)| {
        let shared = (0..len as u32).map(|at| start * 7 + at % 5);
        (shared.chain(end).collect(), salt)
    });
    prop::collection::vec(prompt, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_answer_follows_from_its_prompt_alone_whatever_the_company_the_chunks_and_the_memory(
        prompts in prompts(), len in 1_usize..20, max_num_seqs in 1_usize..6, budget in 16_usize..80,
        num_blocks in 24_usize..60, prefix_caching in any::<bool>(),
    ) {
        let crowded = scheduler::Config {
            max_num_seqs, max_num_batched_tokens: budget, num_blocks, prefix_caching, ..config()
        };
        let (crowded, _, _) = answers(&crowded, &prompts, len);
        for (prompt, found) in prompts.iter().zip(crowded) {
            let (alone, _, _) = answers(&config(), std::slice::from_ref(prompt), len);
            prop_assert_eq!(&alone[0], &found);
        }
    }
}

#[test]
fn preemption_and_prefix_hits_do_happen_in_such_runs() {
    let prompts: Vec<_> = (0..6).map(|end| ((0..40).chain([end]).collect(), String::new())).collect();
    let (_, preemptions, _) =
        answers(&scheduler::Config { num_blocks: 40, prefix_caching: false, ..config() }, &prompts, 19);
    let (_, _, hits) = answers(&scheduler::Config { max_num_seqs: 1, ..config() }, &prompts, 19);
    assert!(preemptions > 0 && hits == 5 * 40, "{preemptions} preemptions, {hits} hits");
}

#[test]
fn every_token_of_a_prompt_matters() {
    let prompt = |changed: usize| {
        let tokens = (0..50).map(|at| u32::from(at == changed));
        (tokens.collect::<Vec<u32>>(), String::new())
    };
    let prompts: Vec<_> = (0..50).map(prompt).collect();
    let (answers, _, _) = answers(&config(), &prompts, 8);
    let distinct: std::collections::BTreeSet<_> = answers.iter().collect();
    assert_eq!(distinct.len(), prompts.len());
}

#[test]
fn a_block_that_holds_something_else_shows() {
    let mut backend = SimulatedBackend::new(quick(), 64, VOCAB);
    let run = |tokens: Vec<u32>, start: u32, slots: Vec<u32>| Batch {
        positions: (start..start + tokens.len() as u32).collect(),
        sequences: vec![BatchSequence {
            row: 0,
            len: tokens.len(),
            start: start as usize,
            block_table: vec![0, 1],
            num_logits: 1,
        }],
        logit_rows: vec![tokens.len() as u32 - 1],
        block_size: 4,
        tokens,
        slots,
    };
    backend.forward(&run(vec![1, 2, 3, 4], 0, vec![0, 1, 2, 3])).expect("runs");
    let right = backend.forward(&run(vec![5], 4, vec![4])).expect("runs");
    backend.forward(&run(vec![1, 2, 3, 9], 0, vec![0, 1, 2, 3])).expect("runs");
    assert_ne!(backend.forward(&run(vec![5], 4, vec![4])).expect("runs"), right);
}

#[test]
fn garbage_is_other_words_and_the_same_ones_each_time() {
    let prompts = [(vec![1, 2, 3], String::new())];
    let batch = |backend: &mut SimulatedBackend| {
        let mut scheduler = Scheduler::new(config()).expect("sound");
        let spec = SequenceSpec {
            id: SequenceId(0),
            tokens: prompts[0].0.clone(),
            max_tokens: 1,
            priority: 0,
            salt: String::new(),
            prompt_logprobs: false,
        };
        scheduler.add(spec).expect("room");
        backend.forward(&Batch::from_plan(&scheduler.schedule(), 4, |_| 0)).expect("runs")
    };
    let mut backend = SimulatedBackend::new(quick(), 4096 * 4, VOCAB);
    let sound = batch(&mut backend);
    backend.simulation().expect("simulated").garbage();
    let garbage = batch(&mut backend);
    assert_ne!(garbage, sound);
    assert_eq!(batch(&mut backend), garbage);
    backend.simulation().expect("simulated").heal();
    assert_eq!(batch(&mut backend), sound);
}

#[test]
fn any_text_has_ids_that_give_it_back_and_known_words_are_one_each() {
    let tokenizer = crate::tokenizer::Tokenizer::from_words(&WORDS).expect("sound");
    for text in ["the world is a place", " Grüße, 世界!\n\t\u{0}🦀 123", "", "<|im_start|>user\nhi<|im_end|>"]
    {
        for parse_special in [false, true] {
            let ids = tokenizer.encode(text, true, parse_special).expect("any text has ids");
            assert_eq!(tokenizer.decode(&ids, false), text);
        }
    }
    let sentence: String = WORDS.iter().map(|word| format!(" {word}")).collect();
    let ids = tokenizer.encode(&sentence, true, true).expect("ids");
    assert_eq!(ids, (0..WORDS.len() as u32).collect::<Vec<_>>());
    assert!(tokenizer.encode(" <|im_end|>", true, true).expect("ids").iter().any(|id| tokenizer.is_eog(*id)));
}
