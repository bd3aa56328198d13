//! Rotary position embedding: the table of cosines and sines.

use candle_core::{Device, Tensor};

use crate::EngineError;
use crate::model::{ModelConfig, RopeScaling};

/// Cosines and sines for every position up to the context's end, each (positions, head_dim / 2).
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Tensor,
    sin: Tensor,
}

impl RopeTable {
    /// Builds the table. `factors` are GGUF's per-frequency divisors (`rope_freqs`), if the file has them.
    pub fn new(
        config: &ModelConfig,
        positions: usize,
        factors: Option<Vec<f32>>,
        device: &Device,
    ) -> Result<Self, EngineError> {
        let half = config.head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|index| {
                let frequency = config.rope_theta.powf(-2.0 * index as f64 / config.head_dim as f64);
                let frequency = config.rope_scaling.map_or(frequency, |scaling| scaled(frequency, scaling));
                factors.as_ref().map_or(frequency, |factors| frequency / f64::from(factors[index]))
            })
            .collect();
        let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Ok(Self {
            cos: Tensor::from_vec(cos, (positions, half), device)?,
            sin: Tensor::from_vec(sin, (positions, half), device)?,
        })
    }

    /// The rows for a batch's positions.
    pub fn select(&self, positions: &Tensor) -> Result<(Tensor, Tensor), EngineError> {
        Ok((self.cos.index_select(positions, 0)?, self.sin.index_select(positions, 0)?))
    }
}

/// Stretches one frequency. The Llama 3.1 rule is the one of Meta's reference code: wavelengths beyond
/// `original / low_freq_factor` are divided, those below `original / high_freq_factor` kept.
fn scaled(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context_len } => {
            let rotations = original_context_len * frequency / std::f64::consts::TAU;
            let keep = ((rotations - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            frequency * (keep + (1.0 - keep) / factor)
        }
    }
}
