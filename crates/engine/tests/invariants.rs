//! What must hold of an engine whatever the model, proven on a tiny one with random weights.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up has failed")]

#[path = "support/tiny.rs"]
mod tiny;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::scheduler::{Scheduler, SequenceId, SequenceSpec};
use candle_core::Device;
use candle_core::quantized::GgmlDType;
use engine::model::{Batch, Placement, Shard, Transformer, WeightDtype, Weights};
use engine::ops::{CpuOps, KvDtype, KvShape, SingleRank, TensorOps};
use engine::sampling::SamplingParams;
use engine::{
    Backend, DeviceKind, Ended, Engine, EngineError, Event, Failure, LoadedModel, Logits, Request,
    SchedulerConfig, TransformerBackend, WeightKind, perplexity,
};
use kernels::Pool;
use protocol::FinishReason;
use tiny::{load_as, load_shape, request, scheduler, submit};
use tiny_model::Shape;
use tokio::sync::mpsc::Receiver;

fn load(kv_cache_tokens: usize) -> LoadedModel {
    load_as(WeightKind::F32, KvDtype::F32, kv_cache_tokens)
}

fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|at| (at * at * 31 + at * 7 + seed * 97 + seed) % 256).collect()
}

/// Tokens with log-likelihoods, and how it ended.
fn drain(mut events: Receiver<Event>) -> (Vec<(u32, f32)>, Ended) {
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv().expect("a last word") {
            Event::Token(token) => tokens.push((token.token, token.score.map_or(0.0, |score| score.logprob))),
            Event::PromptLogprobs(_) => {}
            Event::Ended(ended) => return (tokens, ended),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
}

fn same(left: &[(u32, f32)], right: &[(u32, f32)], tolerance: f32) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left.0, right.0, "the same token");
        assert!((left.1 - right.1).abs() <= tolerance, "log-likelihoods {} and {}", left.1, right.1);
    }
}

#[test]
fn a_request_is_answered_the_same_alone_in_company_in_any_chunking_after_preemption_and_from_a_prefix_hit() {
    company_changes_nothing(&Shape::default(), WeightKind::F32, KvDtype::F32, 1e-3);
}

#[test]
fn with_weights_of_8_bits_it_is_the_same_to_the_bit() {
    company_changes_nothing(&Shape::default(), WeightKind::Int8, KvDtype::F16, 0.0);
}

#[test]
fn with_weights_of_4_bits_it_is_the_same_to_the_bit_too() {
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1] {
        let shape = Shape { dtype, ..Shape::default() };
        let bytes = |kind| load_shape(&shape, kind, KvDtype::F16, 320).shape().weight_bytes;
        assert!(bytes(WeightKind::Auto) < bytes(WeightKind::Int8), "{dtype:?} stays as it is");
        company_changes_nothing(&shape, WeightKind::Auto, KvDtype::F16, 0.0);
    }
}

#[test]
fn with_keys_and_values_of_8_bits_it_is_the_same_to_the_bit_too() {
    company_changes_nothing(&Shape::default(), WeightKind::Int8, KvDtype::Int8, 0.0);
}

fn company_changes_nothing(shape: &Shape, weight_dtype: WeightKind, kv_dtype: KvDtype, tolerance: f32) {
    let load = |kv_cache_tokens| load_shape(shape, weight_dtype, kv_dtype, kv_cache_tokens);
    let prompts: Vec<Vec<u32>> = (0..32).map(|seed| prompt(seed, 20 + 3 * seed as usize)).collect();
    let answer = |model: &LoadedModel, config: SchedulerConfig, prompts: &[Vec<u32>]| {
        let (engine, _thread) = Engine::start(model, scheduler(config), Box::new(|_| {})).expect("starts");
        let events: Vec<_> =
            prompts.iter().map(|prompt| submit(&engine, request(prompt.clone(), 24))).collect();
        let answers: Vec<_> = events.into_iter().map(drain).collect();
        (answers, engine.load().stats)
    };
    let large = load(8192);
    let plain = SchedulerConfig { prefix_caching: false, ..SchedulerConfig::default() };
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| answer(&large, plain.clone(), std::slice::from_ref(prompt)).0.remove(0).0)
        .collect();

    let (company, _) = answer(&large, plain.clone(), &prompts);
    let chunked = SchedulerConfig { max_num_seqs: 5, ..plain.clone() };
    let (chunked, _) = answer(&large, chunked, &prompts);
    let (preempted, stats) = answer(&load(320), plain, &prompts);
    assert!(stats.num_preemptions > 0, "the small cache made someone give way");
    let twice: Vec<Vec<u32>> = prompts.iter().chain(&prompts).cloned().collect();
    let config = SchedulerConfig { max_num_seqs: 8, ..SchedulerConfig::default() };
    let (hits, stats) = answer(&large, config, &twice);
    assert!(stats.prefix_hits > 1000, "the second round starts from the first's blocks");
    assert!(hits.last().expect("there").1.cached_tokens >= 100);

    for (index, alone) in alone.iter().enumerate() {
        for other in
            [&company[index], &chunked[index], &preempted[index], &hits[index], &hits[index + prompts.len()]]
        {
            same(alone, &other.0, tolerance);
            assert_eq!(other.1.reason, FinishReason::Length);
        }
    }
}

#[test]
fn the_cpu_path_and_the_tensor_path_compute_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, &Shape::default()).expect("writes");
    let load = |device: &Device| {
        let mut weights = Weights::open(&path).expect("opens");
        let place = Placement { shard: Shard::WHOLE, device, dtype: WeightDtype::F32 };
        Arc::new(Transformer::load(&mut weights, 512, place).expect("loads"))
    };
    // A GPU, where this is built for one and one is there.
    let device = DeviceKind::Auto.open().expect("falls back");
    let (on_cpu, on_device) = (load(&Device::Cpu), load(&device));
    // A number between two that f16 has may be rounded the one way here and the other there.
    for (dtype, tolerance) in [(KvDtype::F32, 1e-4), (KvDtype::F16, 1e-3)] {
        let shape =
            KvShape { num_layers: 2, num_blocks: 64, block_size: 8, num_kv_heads: 2, head_dim: 16, dtype };
        let ops = CpuOps::new(shape, Arc::new(Pool::new(2)), Box::new(SingleRank)).expect("memory");
        let mut cpu = TransformerBackend::new(Arc::clone(&on_cpu), ops);
        let ops = TensorOps::new(shape, &device, Box::new(SingleRank)).expect("fits");
        let mut tensor = TransformerBackend::new(Arc::clone(&on_device), ops);
        let config = SchedulerConfig { num_blocks: 64, ..scheduler(SchedulerConfig::default()) };
        let mut scheduler = Scheduler::new(config).expect("sound");
        for id in 0..5 {
            let tokens = prompt(id, 101 - 23 * id as usize);
            let spec = SequenceSpec {
                id: SequenceId(u64::from(id)),
                tokens,
                max_tokens: 20,
                priority: 0,
                salt: String::new(),
                prompt_logprobs: id == 2,
            };
            scheduler.add(spec).expect("room");
        }
        let mut num_silent = 0;
        for _ in 0..12 {
            let plan = scheduler.schedule();
            let batch = Batch::from_plan(&plan, 8, |_| 0);
            num_silent += usize::from(batch.logit_rows.is_empty());
            let (mut left, mut right) =
                (cpu.forward(&batch).expect("computes"), tensor.forward(&batch).expect("computes"));
            for (left, right) in left.rows().zip(right.rows()) {
                let worst = left
                    .iter()
                    .zip(right.iter())
                    .map(|(left, right)| (left - right).abs())
                    .fold(0.0, f32::max);
                assert!(worst < tolerance, "{dtype:?} differs by {worst}");
            }
            let sampled: Vec<_> =
                plan.sequences.iter().filter(|run| run.sample).map(|run| (run.id, 7)).collect();
            scheduler.commit(plan.step, &sampled);
        }
        assert!(num_silent > 0, "a part of a long prompt asks for no logits");
    }
}

#[test]
fn the_tensor_path_refuses_a_cache_of_8_bits_and_says_what_to_set() {
    let shape = KvShape {
        num_layers: 2,
        num_blocks: 4,
        block_size: 8,
        num_kv_heads: 2,
        head_dim: 16,
        dtype: KvDtype::Int8,
    };
    let error = TensorOps::new(shape, &Device::Cpu, Box::new(SingleRank)).expect_err("has none").to_string();
    for part in ["`engine.kv_dtype`", "\"int8\"", "\"f16\"", "\"cpu\""] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_log_likelihoods_of_a_prompt_are_those_of_generating_it() {
    let model = load(1024);
    let (engine, _thread) =
        Engine::start(&model, scheduler(SchedulerConfig::default()), Box::new(|_| {})).expect("starts");
    let start = prompt(3, 30);
    let (generated, _) = drain(submit(&engine, request(start.clone(), 100)));
    let whole: Vec<u32> = start.iter().copied().chain(generated.iter().map(|(token, _)| *token)).collect();
    let mut events = submit(&engine, Request { prompt_logprobs: Some(2), ..request(whole.clone(), 1) });
    let Some(Event::PromptLogprobs(scores)) = events.blocking_recv() else { panic!("the scores come first") };
    assert_eq!(scores.len(), whole.len() - 1);
    assert!(
        scores.iter().zip(&whole[1..]).all(|(score, token)| score.token == *token && score.top.len() == 2)
    );
    let generated_scores: Vec<_> = scores[29..].iter().map(|score| (score.token, score.logprob)).collect();
    same(&generated, &generated_scores, 1e-3);
    assert!(scores[29..].iter().all(|score| score.rank == 1), "greedy takes the likeliest");
}

#[test]
fn a_seed_gives_the_same_answer_whatever_the_company() {
    let model = load(8192);
    let (engine, _thread) =
        Engine::start(&model, scheduler(SchedulerConfig::default()), Box::new(|_| {})).expect("starts");
    let seeded = |seed| Request {
        sampling: SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() },
        ..request(prompt(1, 40), 30)
    };
    let tokens = |events| drain(events).0.into_iter().map(|(token, _)| token).collect::<Vec<_>>();
    let alone = tokens(submit(&engine, seeded(5)));
    let company: Vec<_> = (0..8).map(|seed| submit(&engine, seeded(seed))).collect();
    let company: Vec<_> = company.into_iter().map(tokens).collect();
    assert_eq!(alone, company[5]);
    assert_ne!(company[4], company[5], "another seed, another answer");
}

/// Counts steps, and stops in the middle of the one that it is told to.
struct Scripted {
    steps: Arc<AtomicUsize>,
    gate: Arc<Mutex<()>>,
    panic_at: usize,
    nan_at: usize,
}

impl Backend for Scripted {
    fn forward(&mut self, batch: &Batch) -> Result<Logits, EngineError> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        drop(self.gate.lock());
        assert!(step != self.panic_at, "told to");
        let mut values = vec![0.0; 259 * batch.logit_rows.len()];
        if step == self.nan_at {
            values[..259].fill(f32::NAN);
        }
        Ok(Logits::new(values, 259))
    }
}

struct Rig {
    engine: Engine,
    steps: Arc<AtomicUsize>,
    gate: Arc<Mutex<()>>,
}

fn rig(panic_at: usize, nan_at: usize, max_num_waiting: usize) -> Rig {
    let (steps, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let backend = Scripted { steps: Arc::clone(&steps), gate: Arc::clone(&gate), panic_at, nan_at };
    let config =
        SchedulerConfig { max_num_seqs: 2, max_num_waiting, ..scheduler(SchedulerConfig::default()) };
    let tokenizer = Arc::clone(load(64).tokenizer());
    let (engine, _thread) =
        Engine::start_with(Box::new(backend), tokenizer, config, Box::new(|_| {})).expect("starts");
    Rig { engine, steps, gate }
}

#[test]
fn a_panic_in_a_step_fails_its_requests_and_every_later_one_and_turns_the_engine_unhealthy() {
    let Rig { engine, gate, .. } = rig(3, 0, 8);
    let held = gate.lock().expect("free");
    let events: Vec<_> = (0..3).map(|seed| submit(&engine, request(prompt(seed, 5), 50))).collect();
    drop(held);
    let last = |mut events: Receiver<Event>| std::iter::from_fn(|| events.blocking_recv()).last();
    let lasts: Vec<_> = events.into_iter().map(last).collect();
    let [engine_failed, stopped] =
        [Failure::Engine, Failure::Stopped].map(|failure| Some(Event::Failed(failure)));
    assert_eq!(lasts[..2], [engine_failed.clone(), engine_failed], "either may have been the cause");
    assert_eq!(lasts[2], stopped, "the one that waited was not");
    assert!(!engine.load().healthy);
    let mut late = submit(&engine, request(prompt(9, 5), 5));
    assert_eq!(late.blocking_recv(), stopped, "never a hang");
}

#[test]
fn logits_that_are_not_numbers_fail_one_request_alone() {
    let Rig { engine, gate, .. } = rig(0, 2, 8);
    let held = gate.lock().expect("free");
    let [first, second] = [0, 1].map(|seed| submit(&engine, request(prompt(seed, 5), 6)));
    drop(held);
    let mut first = first;
    let last = std::iter::from_fn(|| first.blocking_recv()).last();
    assert_eq!(last, Some(Event::Failed(Failure::NotANumber)));
    assert_eq!(drain(second).0.len(), 6);
    assert!(engine.load().healthy);
}

#[test]
fn a_request_whose_receiver_is_gone_is_computed_no_further_than_the_step_under_way() {
    let Rig { engine, steps, gate } = rig(0, 0, 8);
    let held = gate.lock().expect("free");
    let gone = submit(&engine, request(prompt(1, 5), 1000));
    while steps.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    drop(gone);
    let other = submit(&engine, request(prompt(2, 5), 3));
    drop(held);
    drain(other);
    assert!(steps.load(Ordering::SeqCst) <= 5, "one step for the first, three for the second");
    while engine.load().stats.num_blocks_used > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn places_are_counted_before_any_work_and_come_back() {
    let Rig { engine, gate, .. } = rig(0, 0, 1);
    let held = gate.lock().expect("free");
    let running: Vec<_> = (0..3).map(|seed| submit(&engine, request(prompt(seed, 5), 2))).collect();
    assert_eq!(engine.reserve().expect_err("full").places, 3, "two in the batch and one in line");
    drop(held);
    running.into_iter().for_each(|events| drop(drain(events)));
    while engine.reserve().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn stop_strings_end_an_answer_and_are_not_part_of_it() {
    let model = load(1024);
    let (engine, _thread) =
        Engine::start(&model, scheduler(SchedulerConfig::default()), Box::new(|_| {})).expect("starts");
    let text_of = |mut events: Receiver<Event>| {
        let mut text = String::new();
        loop {
            match events.blocking_recv().expect("a last word") {
                Event::Token(token) => text.push_str(&token.text),
                Event::Ended(ended) => return (text + &ended.text, ended),
                _ => {}
            }
        }
    };
    let (whole, ended) = text_of(submit(&engine, request(prompt(5, 20), 60)));
    assert_eq!(ended.reason, FinishReason::Length);
    let stop: String = whole.chars().skip(10).take(3).collect();
    let at = whole.find(&stop).expect("it is a part");
    let (cut, ended) = text_of(submit(&engine, Request { stop: vec![stop], ..request(prompt(5, 20), 60) }));
    assert_eq!((cut.as_str(), ended.reason), (&whole[..at], FinishReason::Stop));
    assert!(ended.completion_tokens < 60);
}

#[test]
fn perplexity_is_what_the_likelihoods_of_the_second_half_of_each_window_say() {
    let model = load(256);
    let text: Vec<u32> = (0..3).flat_map(|seed| prompt(seed, 100)).collect();
    let mut heard = 0;
    let found = perplexity(&model, &text, 90, |_| heard += 1).expect("computes");
    assert_eq!((heard, found.num_tokens), (3, 3 * 45), "what is left over is not scored");
    let (engine, _thread) =
        Engine::start(&model, scheduler(SchedulerConfig::default()), Box::new(|_| {})).expect("starts");
    let mut expected = 0.0;
    for window in text.chunks_exact(90) {
        let mut events = submit(&engine, Request { prompt_logprobs: Some(0), ..request(window.to_vec(), 1) });
        let Some(Event::PromptLogprobs(scores)) = events.blocking_recv() else {
            panic!("the scores come first")
        };
        expected -= scores[44..].iter().map(|score| f64::from(score.logprob)).sum::<f64>();
    }
    assert!((found.nll - expected).abs() < 0.01, "{} instead of {expected}", found.nll);
    let int8 =
        perplexity(&load_as(WeightKind::Int8, KvDtype::F32, 256), &text, 90, |_| {}).expect("computes");
    assert!((int8.value() / found.value() - 1.0).abs() < 0.02, "{int8:?} instead of {found:?}");
    let four_bits = Shape { dtype: GgmlDType::Q4_1, ..Shape::default() };
    let [whole, int4] = [WeightKind::F32, WeightKind::Auto].map(|kind| {
        let model = load_shape(&four_bits, kind, KvDtype::F32, 256);
        perplexity(&model, &text, 90, |_| {}).expect("computes")
    });
    assert!((int4.value() / whole.value() - 1.0).abs() < 1e-4, "{int4:?} instead of {whole:?}");
    let kv_int8 =
        perplexity(&load_as(WeightKind::F32, KvDtype::Int8, 256), &text, 90, |_| {}).expect("computes");
    assert!((kv_int8.value() / found.value() - 1.0).abs() < 0.01, "{kv_int8:?} instead of {found:?}");
    assert_ne!(kv_int8.nll, found.nll, "rounding leaves a trace");
    for (len, window) in [(89, 90), (300, 3), (300, 1000)] {
        assert!(perplexity(&model, &text[..len], window, |_| {}).is_err());
    }
}
