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
        if factors.iter().flatten().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            return Err(EngineError::Config("a divisor in the model's `rope_freqs` is not above 0".into()));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Architecture;

    fn config(head_dim: usize, rope_scaling: Option<RopeScaling>) -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Llama,
            num_layers: 1,
            hidden_size: head_dim,
            intermediate_size: 1,
            num_heads: 1,
            num_kv_heads: 1,
            head_dim,
            vocab_size: 1,
            context_len: 64,
            rope_theta: 10_000.0,
            rope_scaling,
            rms_norm_eps: 1e-5,
            tied_embeddings: None,
        }
    }

    /// The angle of each frequency at a position, in radians, from the table's sines and cosines.
    fn angles(config: &ModelConfig, factors: Option<Vec<f32>>, position: u32) -> Vec<f32> {
        let table = RopeTable::new(config, 64, factors, &Device::Cpu).expect("sound");
        let position = Tensor::new(&[position], &Device::Cpu).expect("one");
        let (cos, sin) = table.select(&position).expect("in the table");
        let numbers = |tensor: Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
        numbers(sin).into_iter().zip(numbers(cos)).map(|(sin, cos)| sin.atan2(cos)).collect()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
        }
    }

    #[test]
    fn angles_are_positions_times_powers_of_the_base() {
        // 10,000 to the power of -0/4 and -2/4.
        assert_close(&angles(&config(4, None), None, 3), &[3.0, 0.03]);
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let scaled = config(4, Some(RopeScaling::Linear { factor: 4.0 }));
        assert_close(&angles(&scaled, None, 3), &[0.75, 0.0075]);
        assert_close(&angles(&scaled, None, 12), &angles(&config(4, None), None, 3));
    }

    #[test]
    fn llama_3_scaling_keeps_high_frequencies_divides_low_ones_and_blends_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context_len: 32.0,
        };
        // Rotations over the first context: 32 f / 2 pi is 5.09, 1.61 and so on for f = 10^(-i/2).
        let scaled = angles(&config(16, Some(scaling)), None, 1);
        let plain = angles(&config(16, None), None, 1);
        assert_close(&scaled[..1], &plain[..1]);
        let keep = (32.0 * 10.0_f32.powf(-0.5) / std::f32::consts::TAU - 1.0) / 3.0;
        assert_close(&scaled[1..2], &[plain[1] * (keep + (1.0 - keep) / 8.0)]);
        let low: Vec<f32> = plain[2..].iter().map(|angle| angle / 8.0).collect();
        assert_close(&scaled[2..], &low);
    }

    #[test]
    fn divisors_of_a_gguf_file_apply_frequency_by_frequency_and_cannot_be_zero() {
        assert_close(&angles(&config(4, None), Some(vec![1.0, 3.0]), 3), &[3.0, 0.01]);
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let table = RopeTable::new(&config(4, None), 8, Some(vec![1.0, bad]), &Device::Cpu);
            assert!(matches!(table, Err(EngineError::Config(_))));
        }
    }
}
