//! What an engine's steps took, as it logged them, and the profile that follows from it.

use serde::{Deserialize, Serialize};

use crate::fit::round;
use crate::search::minimize;
use crate::{Device, Fitted, Limits, Model, Profile, ProfileError, StepFit, StepShape};

/// The first line of a step log: whose steps they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLogHeader {
    /// The hardware, in words.
    pub device: String,
    /// The model.
    pub model: Model,
    /// The engine's bounds.
    pub limits: Limits,
}

/// A further line: one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSample {
    /// From planning to the last event.
    pub seconds: f64,
    /// New tokens and those before them, a run each.
    pub runs: Vec<(usize, usize)>,
    /// How many of the new tokens were guesses. No fit reads such a step: a guess costs its row in the head, too.
    #[serde(default)]
    pub num_draft_tokens: usize,
}

/// A whole log: JSON, a line a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepLog {
    /// Whose steps they are.
    pub header: StepLogHeader,
    /// In the order in which they were computed.
    pub samples: Vec<StepSample>,
}

/// The least steps that say anything.
const STEPS_MIN: usize = 20;

impl StepLog {
    /// Reads a log. A last line without its end is left out: the engine may have been killed while it wrote.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines().enumerate();
        let error = |line: usize, reason: String| ProfileError::Log { line: line + 1, reason };
        let (_, first) = lines.next().ok_or_else(|| error(0, "there is none; is this a step log?".into()))?;
        let header = serde_json::from_str(first).map_err(|problem| error(0, problem.to_string()))?;
        let samples = lines.map(|(line, text)| {
            let sample: StepSample =
                serde_json::from_str(text).map_err(|problem| error(line, problem.to_string()))?;
            let sound = sample.seconds.is_finite() && sample.seconds > 0.0 && !sample.runs.is_empty();
            if sound { Ok(sample) } else { Err(error(line, "a step has runs and takes time".into())) }
        });
        Ok(Self { header, samples: samples.collect::<Result<_, _>>()? })
    }

    /// As text that [`Self::parse`] reads.
    pub fn to_text(&self) -> String {
        let samples = self.samples.iter().map(serde_json::to_string);
        let lines = std::iter::once(serde_json::to_string(&self.header)).chain(samples);
        lines.flatten().map(|line| line + "\n").collect()
    }
}

/// A profile named `name` from a step log: least squares of ln(time by the profile / time measured).
///
/// A log shows only what the device reaches, so that is what the profile calls its peak, and the efficiencies are 1.
pub fn fit_steps(name: &str, log: &StepLog) -> Result<Profile, ProfileError> {
    let samples: Vec<&StepSample> =
        log.samples.iter().filter(|sample| sample.num_draft_tokens == 0).collect();
    let steps = samples.len();
    if steps < STEPS_MIN {
        return Err(ProfileError::TooFewSteps { steps, needed: STEPS_MIN });
    }
    let StepLogHeader { device, model, limits } = log.header.clone();
    let samples: Vec<(StepShape, f64)> =
        samples.iter().map(|sample| (sample.runs.iter().copied().collect(), sample.seconds * 1e6)).collect();
    // A search prices thousands of trials; a few thousand steps from all over the log say as much as all.
    let searched: Vec<_> = samples.iter().step_by(samples.len().div_ceil(SEARCHED_MAX)).collect();
    let base = Profile {
        name: name.to_owned(),
        source: format!("a step log of {steps} steps"),
        device: Device {
            name: device,
            count: 1,
            peak_tflops: 1.0,
            peak_gb_s: 1.0,
            source: "what the step log reaches, so the efficiencies are 1".to_owned(),
        },
        model,
        fitted: Fitted::IDEAL,
        limits,
        figures: Vec::new(),
        steps: None,
    };
    let log_ratio =
        |profile: &Profile, (shape, us): &(StepShape, f64)| (profile.step_time_us(shape) / us).ln();
    let cost = |point: &[f64; 5]| {
        let trial = with(&base, point);
        searched.iter().map(|sample| log_ratio(&trial, sample).powi(2)).sum()
    };
    let added = (1.0, samples.iter().map(|(_, us)| *us).fold(f64::INFINITY, f64::min).max(2.0));
    let packing = (1.0, 10.0 * added.1);
    let bounds: [(f64, f64); 5] = [(1e-3, 1e3), (0.1, 1e4), added, added, packing];
    let mut profile = with(&base, &minimize(bounds.map(|(low, high)| (low.ln(), high.ln())), cost));
    let by_profile: f64 = samples.iter().map(|(shape, _)| profile.step_time_us(shape)).sum();
    let measured: f64 = samples.iter().map(|(_, us)| us).sum();
    let squares: f64 = samples.iter().map(|sample| log_ratio(&profile, sample).powi(2)).sum();
    profile.steps = Some(StepFit {
        count: steps,
        total_residual: round(by_profile / measured - 1.0, 1e4),
        rms_residual: round((squares / steps as f64).sqrt(), 1e4),
    });
    Ok(profile)
}

const SEARCHED_MAX: usize = 1000;

fn with(base: &Profile, [tflops, gb_s, overhead, sequence, packing]: &[f64; 5]) -> Profile {
    let mut profile = base.clone();
    profile.device.peak_tflops = round(tflops.exp(), 1e5);
    profile.device.peak_gb_s = round(gb_s.exp(), 1e3);
    profile.fitted.overhead_us = round(overhead.exp(), 10.0);
    profile.fitted.sequence_us = round(sequence.exp(), 10.0);
    profile.fitted.packing_us = round(packing.exp(), 10.0);
    profile
}
