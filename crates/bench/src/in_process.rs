//! Prefill and decode on an engine of this process: no HTTP, no tokenizer, nothing but steps.

use std::time::Duration;

use engine::profile::{self, Profile};
use engine::sampling::SamplingParams;
use engine::{Engine, Event, LoadedModel, Request, SchedulerConfig};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::roofline::Point;
use crate::steps::{Step, Steps, Stretch};
use crate::{Error, Options, Part, Peaks, Progress, fit, median};

/// Tokens of a prompt whose answer is measured: enough to be one, few enough that all streams soon decode.
const DECODE_PROMPT_TOKENS: usize = 64;

/// What was found.
pub(crate) struct Measured {
    pub(crate) parameters: u64,
    pub(crate) weight_bytes: u64,
    pub(crate) points: Vec<Point>,
    /// With the log that it was fitted to.
    pub(crate) profile: Option<(Profile, String)>,
}

/// The engine as it is served with, on the processor, with room for all that is asked of it.
pub(crate) fn engine_config(options: &Options) -> engine::Config {
    let config = engine::Config { device: engine::DeviceKind::Cpu, ..engine::Config::default() };
    let streams = options.streams.iter().max().copied().unwrap_or(1);
    let needed = streams * (DECODE_PROMPT_TOKENS + options.answer_tokens + 16) + options.prompt_tokens + 16;
    engine::Config { kv_cache_tokens: config.kv_cache_tokens.max(needed), ..config }
}

fn scheduler_config(options: &Options) -> SchedulerConfig {
    let config = SchedulerConfig::default();
    let streams = options.streams.iter().max().copied().unwrap_or(1);
    let max_num_seqs = config.max_num_seqs.max(streams);
    let max_num_batched_tokens = config.max_num_batched_tokens.max(max_num_seqs);
    SchedulerConfig { max_num_seqs, max_num_batched_tokens, ..config }
}

pub(crate) async fn measure(
    model: &LoadedModel,
    options: &Options,
    peaks: &Peaks,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Measured, Error> {
    let longest = options.prompt_tokens.max(DECODE_PROMPT_TOKENS + options.answer_tokens) + 1;
    if longest > model.max_model_len() {
        let most = model.max_model_len();
        let what = format!("{longest} tokens are asked for, but the model's context is {most}");
        return Err(Error::Options(format!("{what}; give fewer with --prompt-tokens or --answer-tokens")));
    }
    let steps = Steps::default();
    let scheduler = scheduler_config(options);
    let (engine, _thread) = Engine::start(model, scheduler.clone(), steps.observer())?;
    let mut bench =
        InProcess { engine, steps, shape: model.shape(), vocab_size: model.vocab_size(), stop, seed: 0 };
    progress("warming up");
    bench.load(1, options.prompt_tokens, 8).await?;
    let (mut points, mut seen) = (Vec::new(), Vec::new());
    if options.parts.contains(&Part::Roofline) || options.fit.is_some() {
        progress(&format!("prefill of {} tokens", options.prompt_tokens));
        let prefill = bench.repeat(options.repeats, 1, options.prompt_tokens, 1, &mut seen).await?;
        points.push(point("prefill", 1, &prefill, peaks));
        for streams in &options.streams {
            progress(&format!("decode, {streams} {}", if *streams == 1 { "stream" } else { "streams" }));
            let tokens = (DECODE_PROMPT_TOKENS, options.answer_tokens);
            let decode = bench.repeat(options.repeats, *streams, tokens.0, tokens.1, &mut seen).await?;
            points.push(point("decode", *streams, &decode, peaks));
        }
    }
    let profile = match &options.fit {
        None => None,
        Some(name) => {
            progress("steps of other shapes, to fit a profile to");
            for load in fit::loads(model.max_model_len(), &scheduler) {
                seen.extend(bench.load(load.streams, load.prompt_tokens, load.answer_tokens).await?);
            }
            let shape = model.shape();
            let bits =
                8.0 * shape.weight_bytes as f64 / (shape.body_parameters + shape.head_parameters) as f64;
            let header = profile::StepLogHeader {
                device: model.device(),
                model: profile::Model { name: format!("{}, {bits:.1} bits a weight", model.name()), ..shape },
                limits: fit::limits(model, &scheduler),
            };
            Some(fit::profile(name, header, &seen)?)
        }
    };
    let shape = &bench.shape;
    let (parameters, weight_bytes) = (shape.body_parameters + shape.head_parameters, shape.weight_bytes);
    Ok(Measured { parameters, weight_bytes, points, profile })
}

fn point(phase: &'static str, streams: usize, stretches: &[Stretch], peaks: &Peaks) -> Point {
    let rates: Vec<f64> = stretches.iter().map(Stretch::tokens_per_s).collect();
    let steps: Vec<f64> = stretches.iter().flat_map(|stretch| stretch.step_s.iter().copied()).collect();
    // All repeats are of the same shapes, so that a token's work is the same in each.
    let total = stretches.iter().fold(Stretch::default(), |mut sum, stretch| {
        sum.tokens += stretch.tokens;
        sum.work += stretch.work;
        sum
    });
    let measured = (median(&rates), median(&steps) * 1e3);
    Point::new((phase, streams), measured, total.tokens, &total.work, peaks)
}

struct InProcess<'a> {
    engine: Engine,
    steps: Steps,
    shape: profile::Model,
    vocab_size: usize,
    stop: &'a CancellationToken,
    seed: u64,
}

impl InProcess<'_> {
    /// Measures one load several times. For answers of one token the prompt counts, otherwise the steps in which all
    /// streams decode.
    async fn repeat(
        &mut self,
        repeats: usize,
        streams: usize,
        prompt_tokens: usize,
        answer_tokens: usize,
        seen: &mut Vec<Step>,
    ) -> Result<Vec<Stretch>, Error> {
        let mut stretches = Vec::new();
        for _ in 0..repeats {
            let steps = self.load(streams, prompt_tokens, answer_tokens).await?;
            let counted: Vec<Step> = match answer_tokens {
                1 => steps.clone(),
                _ => steps.iter().filter(|step| step.is_decode(streams)).cloned().collect(),
            };
            if counted.is_empty() {
                let what = format!("never were all {streams} streams decoding at once");
                return Err(Error::broken(format!("{what}; give longer answers with --answer-tokens")));
            }
            stretches.push(Stretch::of(&self.shape, &counted));
            seen.extend(steps);
        }
        Ok(stretches)
    }

    /// Answers some prompts at once, and returns the steps that it took.
    async fn load(
        &mut self,
        streams: usize,
        prompt_tokens: usize,
        answer_tokens: usize,
    ) -> Result<Vec<Step>, Error> {
        let submitted: Vec<_> = (0..streams).map(|_| self.submit(prompt_tokens, answer_tokens)).collect();
        for events in submitted {
            let answered = answered(events?);
            self.stop.run_until_cancelled(answered).await.ok_or(Error::Interrupted)??;
        }
        // A request hears of its end before its last step is reported. The last token is sampled and never computed.
        let computed = streams * (prompt_tokens + answer_tokens - 1);
        while self.steps.num_tokens() < computed {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.steps.take())
    }

    /// Asks for an answer to a prompt that nobody has asked before.
    fn submit(&mut self, prompt_tokens: usize, answer_tokens: usize) -> Result<Receiver<Event>, Error> {
        self.seed += 1;
        let request = Request {
            request_id: format!("bench-{}", self.seed),
            prompt: prompt(self.seed, prompt_tokens, self.vocab_size),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: answer_tokens,
            stop: Vec::new(),
            ignore_eos: true,
            priority: 0,
            salt: format!("bench-{}", self.seed),
            prompt_logprobs: None,
        };
        let place = self.engine.reserve().map_err(|error| Error::broken(error.to_string()))?;
        Ok(self.engine.submit(place, request)?)
    }
}

/// Waits for an answer's end.
async fn answered(mut events: Receiver<Event>) -> Result<(), Error> {
    while let Some(event) = events.recv().await {
        match event {
            Event::Ended(_) => return Ok(()),
            Event::Failed(failure) => return Err(Error::broken(failure.to_string())),
            Event::Token(_) | Event::PromptLogprobs(_) => {}
        }
    }
    Err(Error::broken("the engine ended"))
}

/// Token ids that follow from a seed; no two seeds share a prefix.
fn prompt(seed: u64, tokens: usize, vocab_size: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        // Knuth's linear congruential generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab_size.max(1) as u64) as u32
    };
    (0..tokens).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_of_the_vocabulary_and_each_is_another_from_its_start() {
        let prompts: Vec<Vec<u32>> = (1..100).map(|seed| prompt(seed, 20, 49_152)).collect();
        assert!(prompts.iter().flatten().all(|token| *token < 49_152));
        let first_block: std::collections::HashSet<&[u32]> =
            prompts.iter().map(|prompt| &prompt[..4]).collect();
        assert_eq!(first_block.len(), prompts.len());
    }
}
