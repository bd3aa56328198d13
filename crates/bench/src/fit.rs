//! A profile for the simulator, fitted to the steps that were measured.

use engine::profile::{Limits, Profile, StepLog, StepLogHeader, StepSample, fit_steps};
use engine::{LoadedModel, SchedulerConfig};

use crate::Error;
use crate::steps::Step;

/// Prompts that are answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) streams: usize,
    pub(crate) prompt_tokens: usize,
    pub(crate) answer_tokens: usize,
}

/// What the measured loads lack: chunks of many lengths, prompts among answers, and long contexts.
const LOADS: [Load; 10] = [
    load(1, 16, 4),
    load(1, 48, 4),
    load(1, 128, 4),
    load(1, 256, 4),
    load(1, 384, 4),
    load(3, 200, 16),
    load(6, 300, 16),
    load(12, 100, 24),
    load(1, 2000, 24),
    load(4, 1500, 24),
];

const fn load(streams: usize, prompt_tokens: usize, answer_tokens: usize) -> Load {
    Load { streams, prompt_tokens, answer_tokens }
}

/// Those of them that the model's context and the cache can take.
pub(crate) fn loads(max_model_len: usize, scheduler: &SchedulerConfig) -> impl Iterator<Item = Load> {
    let max_num_seqs = scheduler.max_num_seqs;
    LOADS.into_iter().filter(move |load| {
        load.streams <= max_num_seqs && load.prompt_tokens + load.answer_tokens < max_model_len
    })
}

pub(crate) fn limits(model: &LoadedModel, scheduler: &SchedulerConfig) -> Limits {
    Limits {
        kv_cache_tokens: model.config().kv_cache_tokens,
        max_num_seqs: scheduler.max_num_seqs,
        max_num_batched_tokens: scheduler.max_num_batched_tokens,
        max_model_len: model.max_model_len(),
    }
}

/// The profile, and the log that it follows from, as text.
pub(crate) fn profile(name: &str, header: StepLogHeader, steps: &[Step]) -> Result<(Profile, String), Error> {
    // A step is not known better than to a microsecond.
    let rounded = |seconds: f64| (seconds * 1e6).round().max(1.0) / 1e6;
    let samples = steps.iter().map(|step| {
        let sample = step.sample.clone();
        StepSample { seconds: rounded(sample.seconds), ..sample }
    });
    let log = StepLog { header, samples: samples.collect() }.to_text();
    // From what is written, so that whoever reads it finds the same.
    Ok((fit_steps(name, &StepLog::parse(&log)?)?, log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_context_leaves_out_what_it_cannot_take() {
        let scheduler = SchedulerConfig::default();
        assert_eq!(loads(8192, &scheduler).count(), LOADS.len());
        let short: Vec<Load> = loads(512, &scheduler).collect();
        assert!(short.iter().all(|load| load.prompt_tokens + load.answer_tokens < 512));
        assert!(short.contains(&load(6, 300, 16)) && !short.contains(&load(4, 1500, 24)));
    }
}
