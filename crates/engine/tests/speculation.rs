//! Guesses change how many steps an answer takes, and nothing of what it says.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up has failed")]

#[path = "support/tiny.rs"]
mod tiny;

use engine::ops::KvDtype;
use engine::sampling::SamplingParams;
use engine::{
    Engine, Event, LoadedModel, Request, SchedulerConfig, Speculative, Stats, TokenScore, WeightKind,
};
use proptest::prelude::*;
use protocol::FinishReason;
use tiny::{load_as, load_shape, request, scheduler, submit};
use tiny_model::Shape;
use tokio::sync::mpsc::Receiver;

/// Everything that a client hears, but for times and for what was found in the cache.
#[derive(Debug, PartialEq)]
struct Answer {
    prompt_scores: Vec<TokenScore>,
    tokens: Vec<(u32, String, Option<TokenScore>)>,
    end: (FinishReason, String, usize, usize),
}

fn answer(mut events: Receiver<Event>) -> Answer {
    let (mut prompt_scores, mut tokens) = (Vec::new(), Vec::new());
    loop {
        match events.blocking_recv().expect("a last word") {
            Event::PromptLogprobs(scores) => prompt_scores = scores,
            Event::Token(token) => tokens.push((token.token, token.text, token.score)),
            Event::Ended(end) => {
                let end = (end.reason, end.text, end.prompt_tokens, end.completion_tokens);
                return Answer { prompt_scores, tokens, end };
            }
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
}

/// A request, and after how many tokens its client leaves, if it does.
type Visit = (Request, Option<usize>);

/// The answers to those who stay.
fn answers(
    model: &LoadedModel,
    config: &SchedulerConfig,
    speculative: Speculative,
    visits: &[Visit],
) -> (Vec<Answer>, Stats) {
    let config = SchedulerConfig { speculative, ..config.clone() };
    let (engine, thread) = Engine::start(model, config, Box::new(|_| {})).expect("starts");
    let submitted = visits.iter().map(|(request, leaves)| (submit(&engine, request.clone()), leaves));
    let mut staying = Vec::new();
    for (mut events, leaves) in submitted.collect::<Vec<_>>() {
        match leaves {
            Some(after) => drop((0..*after).map_while(|_| events.blocking_recv()).count()),
            None => staying.push(events),
        }
    }
    let answers = staying.into_iter().map(answer).collect();
    let stats = engine.load().stats;
    drop(engine);
    thread.join().expect("no step panicked");
    (answers, stats)
}

const OFF: Speculative = Speculative { num_speculative_tokens: 0, prompt_lookup_min: 1, row_cost_percent: 0 };

/// Letters that a request is made to prefer, so that it repeats itself, but not always.
const LETTERS: std::ops::Range<u32> = 65..70;

fn sampling() -> impl Strategy<Value = SamplingParams> {
    let penalties =
        prop_oneof![2 => Just((1.0, 0.0, 0.0)), 1 => (0.8_f32..1.4, -0.5_f32..1.0, -0.5_f32..1.0)];
    let cuts = (prop_oneof![Just(1.0_f32), 0.5_f32..1.0], prop_oneof![Just(0_u32), 1_u32..9]);
    let logprobs = prop::option::weighted(0.3, 0_u8..4);
    (0_u8..3, 0.0_f32..9.0, 0.0_f32..4.0, penalties, cuts, any::<u64>(), logprobs).prop_map(
        |(heat, letters, end, (repetition, frequency, presence), (top_p, top_k), seed, logprobs)| {
            let bias = LETTERS.map(|letter| (letter, letters)).chain([(258, end)]);
            SamplingParams {
                temperature: f32::from(heat) / 2.0,
                top_p,
                top_k,
                repetition_penalty: repetition,
                frequency_penalty: frequency,
                presence_penalty: presence,
                logit_bias: bias.collect(),
                seed,
                logprobs,
                ..SamplingParams::default()
            }
        },
    )
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let prompt = (0_u32..4, 1_usize..50, prop::collection::vec(LETTERS, 1..12));
    let prompt = prompt.prop_map(|(kind, len, own)| {
        let shared = (0..len as u32).map(|at| 65 + (at * (kind + 1) + at / 9) % 7);
        shared.chain(own).collect::<Vec<u32>>()
    });
    let stop = prop::collection::vec("[A-E]{1,3}", 0..3);
    let rare = prop::option::weighted(0.15, 0_u8..3);
    let leaves = prop::option::weighted(0.15, 0_usize..20);
    let visit = (prompt, sampling(), 1_usize..60, stop, any::<bool>(), rare, 1_u64..4, leaves).prop_map(
        |(prompt, sampling, max_tokens, stop, ignore_eos, prompt_logprobs, n, leaves)| {
            let choice = move |index| Request {
                sampling: SamplingParams { seed: sampling.seed.wrapping_add(index), ..sampling.clone() },
                stop: stop.clone(),
                ignore_eos,
                prompt_logprobs,
                ..request(prompt.clone(), max_tokens)
            };
            (0..n).map(|index| (choice(index), leaves)).collect::<Vec<_>>()
        },
    );
    prop::collection::vec(visit, 1..8).prop_map(|visits| visits.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn answers_with_guesses_are_those_without_to_the_byte(
        model_seed in 0_u64..1000, kv_cache_tokens in 160_usize..2000, max_num_seqs in 1_usize..9,
        prefix_caching in any::<bool>(), num_speculative_tokens in 1_usize..9, prompt_lookup_min in 1_usize..4,
        row_cost_percent in prop_oneof![Just(0_u32), 0_u32..60], visits in visits(),
    ) {
        let shape = Shape { seed: model_seed, ..Shape::default() };
        let model = load_shape(&shape, WeightKind::Int8, KvDtype::F16, kv_cache_tokens);
        let config = scheduler(SchedulerConfig { max_num_seqs, prefix_caching, ..SchedulerConfig::default() });
        let on = Speculative { num_speculative_tokens, prompt_lookup_min, row_cost_percent };
        let (plain, _) = answers(&model, &config, OFF, &visits);
        let (guessed, _) = answers(&model, &config, on, &visits);
        prop_assert_eq!(plain, guessed);
    }
}

#[test]
fn guesses_come_true_and_fail_between_preemptions_and_prefix_hits() {
    let model = load_as(WeightKind::Int8, KvDtype::F16, 320);
    let config = scheduler(SchedulerConfig { max_num_seqs: 6, ..SchedulerConfig::default() });
    let on = Speculative { num_speculative_tokens: 5, prompt_lookup_min: 1, row_cost_percent: 0 };
    let bias = || LETTERS.map(|letter| (letter, 7.0)).collect();
    let visit = |seed: u64| {
        let prompt = (0..40).map(|at| 65 + at % 5).chain([seed as u32 % 3]).collect();
        let sampling =
            SamplingParams { temperature: 0.7, logit_bias: bias(), seed, ..SamplingParams::default() };
        (Request { sampling, ..request(prompt, 60) }, None)
    };
    let visits: Vec<Visit> = (0..12).map(visit).collect();
    let (plain, without) = answers(&model, &config, OFF, &visits);
    let (guessed, stats) = answers(&model, &config, on, &visits);
    assert_eq!(plain, guessed);
    assert_eq!(without.num_drafts, 0);
    assert!(stats.num_accepted_tokens > 50, "{stats:?}");
    assert!(stats.num_draft_tokens > stats.num_accepted_tokens + 50, "{stats:?}");
    assert!(stats.num_preemptions > 0 && stats.prefix_hits > 0, "{stats:?}");
}
