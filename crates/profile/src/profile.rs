//! A device that runs a model, and how well it does.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Device, Model, ProfileError, StepShape};

/// Everything that is known of a device running a model. Kept as TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The name to ask for it by; also the served model's, where nothing else is said.
    pub name: String,
    /// What it was fitted to.
    pub source: String,
    /// The hardware.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// What the fit found.
    pub fitted: Fitted,
    /// What an engine on this device would be set to.
    pub limits: Limits,
    /// Published figures, each with what the profile gives instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// The step log, if that is what it was fitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<StepFit>,
}

/// The free numbers of the model of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Share of the arithmetic peak, 0 to 1.
    pub compute_efficiency: f64,
    /// Share of the memory bandwidth, 0 to 1.
    pub memory_efficiency: f64,
    /// Added to each step, microseconds.
    pub overhead_us: f64,
    /// Added for each sequence of a step, microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence_us: f64,
    /// Added to a step of more than one token, microseconds: a CPU's matrix products pack the weights first, which its
    /// products with one vector don't.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packing_us: f64,
}

/// The bounds of an engine's memory and batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tokens whose keys and values fit beside the weights.
    pub kv_cache_tokens: usize,
    /// The most sequences in a step.
    pub max_num_seqs: usize,
    /// The most tokens in a step.
    pub max_num_batched_tokens: usize,
    /// The longest prompt and answer together, tokens.
    pub max_model_len: usize,
}

/// Throughput at maximum load, as somebody published it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Length of each prompt.
    pub prompt_tokens: usize,
    /// Length of each answer.
    pub answer_tokens: usize,
    /// Published, over all requests.
    pub output_tokens_per_s: f64,
    /// False for a figure that the fit did not see: its residual is a prediction's error.
    pub fitted: bool,
    /// Simulated over published, less one.
    #[serde(default)]
    pub residual: f64,
}

/// How well a step log is met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepFit {
    /// Steps fitted to.
    pub count: usize,
    /// Sum of the steps' times by the profile over the measured sum, less one.
    pub total_residual: f64,
    /// Root mean square of ln(time by the profile / time measured).
    pub rms_residual: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Fitted {
    /// All of the peaks, and nothing added.
    pub const IDEAL: Self = Self {
        compute_efficiency: 1.0,
        memory_efficiency: 1.0,
        overhead_us: 0.0,
        sequence_us: 0.0,
        packing_us: 0.0,
    };
}

impl Profile {
    /// Reads a profile and refuses numbers that make no sense.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| ProfileError::Syntax(error.to_string().trim().to_owned()))?;
        profile.validate()?;
        Ok(profile)
    }

    /// As TOML that [`Self::parse`] reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Twelve hexadecimal digits that change with anything in the profile.
    pub fn digest(&self) -> String {
        hex::encode(&Sha256::digest(self.to_toml().as_bytes())[..6])
    }

    /// How long a step takes, microseconds.
    pub fn step_time_us(&self, shape: &StepShape) -> f64 {
        let Fitted { compute_efficiency, memory_efficiency, overhead_us, sequence_us, packing_us } =
            self.fitted;
        let count = f64::from(self.device.count);
        // 10¹² a second are 10⁶ a microsecond; 10⁹ are 10³.
        let compute_us =
            self.model.operations(shape) / (count * self.device.peak_tflops * 1e6 * compute_efficiency);
        let memory_us =
            self.model.traffic_bytes(shape) / (count * self.device.peak_gb_s * 1e3 * memory_efficiency);
        let packing_us = if shape.num_tokens > 1 { packing_us } else { 0.0 };
        compute_us.max(memory_us) + overhead_us + packing_us + sequence_us * shape.num_sequences as f64
    }

    fn validate(&self) -> Result<(), ProfileError> {
        const POSITIVE: &str = "a number above 0";
        let value = |field, value: f64, sound: bool, expected| {
            let error = ProfileError::Value { field, value: value.to_string(), expected };
            if sound && value.is_finite() { Ok(()) } else { Err(error) }
        };
        let positive = |field, number: f64| value(field, number, number > 0.0, POSITIVE);
        let share =
            |field, number: f64| value(field, number, number > 0.0 && number <= 1.0, "above 0 and at most 1");
        let none_or_more = |field, number: f64| value(field, number, number >= 0.0, "0 or more");
        positive("device.count", self.device.count.into())?;
        positive("device.peak_tflops", self.device.peak_tflops)?;
        positive("device.peak_gb_s", self.device.peak_gb_s)?;
        positive("model.body_parameters", self.model.body_parameters as f64)?;
        positive("model.weight_bytes", self.model.weight_bytes as f64)?;
        share("fitted.compute_efficiency", self.fitted.compute_efficiency)?;
        share("fitted.memory_efficiency", self.fitted.memory_efficiency)?;
        none_or_more("fitted.overhead_us", self.fitted.overhead_us)?;
        none_or_more("fitted.sequence_us", self.fitted.sequence_us)?;
        none_or_more("fitted.packing_us", self.fitted.packing_us)?;
        positive("limits.kv_cache_tokens", self.limits.kv_cache_tokens as f64)?;
        positive("limits.max_num_seqs", self.limits.max_num_seqs as f64)?;
        positive("limits.max_num_batched_tokens", self.limits.max_num_batched_tokens as f64)?;
        positive("limits.max_model_len", self.limits.max_model_len as f64)?;
        for figure in &self.figures {
            positive("figures.prompt_tokens", figure.prompt_tokens as f64)?;
            positive("figures.answer_tokens", figure.answer_tokens as f64)?;
            positive("figures.output_tokens_per_s", figure.output_tokens_per_s)?;
        }
        Ok(())
    }
}
