//! Which bound of the machine holds for a step, and how near it comes; the roofline of Williams, Waterman and
//! Patterson (2009).

use std::ops::AddAssign;

use engine::profile::{Model, StepShape};
use serde::Serialize;

use crate::Peaks;

/// What steps ask of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiply-adds with weights.
    pub of_weights: f64,
    /// Multiply-adds of attention.
    pub of_attention: f64,
    /// Bytes of weights, keys and values.
    pub bytes: f64,
}

impl Work {
    /// Of one step.
    pub fn of(model: &Model, shape: &StepShape) -> Self {
        let width = f64::from(model.num_layers) * f64::from(model.num_heads) * f64::from(model.head_dim);
        // A product with the key, another with the value.
        let of_attention = 2.0 * width * shape.attention_pairs as f64;
        // A multiply-add is two operations.
        let of_weights = model.operations(shape) / 2.0 - of_attention;
        Self { of_weights, of_attention, bytes: model.traffic_bytes(shape) }
    }

    fn multiply_adds(&self) -> f64 {
        self.of_weights + self.of_attention
    }

    /// The least time for its arithmetic, and for its memory, in seconds.
    fn least_s(&self, peaks: &Peaks) -> (f64, f64) {
        let arithmetic_s =
            self.of_weights / peaks.multiply_adds_per_s + self.of_attention / peaks.float_multiply_adds_per_s;
        (arithmetic_s, self.bytes / peaks.bytes_per_s)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.of_weights += other.of_weights;
        self.of_attention += other.of_attention;
        self.bytes += other.bytes;
    }
}

/// What limits a step at best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Reading.
    Memory,
}

/// One measurement in this process, beside the peaks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// `prefill` or `decode`.
    pub phase: &'static str,
    /// Sequences at once.
    pub streams: usize,
    /// The middle of all repeats; of the prompt or the answers.
    pub tokens_per_s: f64,
    /// The middle of all steps, in milliseconds.
    pub step_ms: f64,
    /// Multiply-adds a second.
    pub multiply_adds_per_s: f64,
    /// As a share of the peak.
    pub share_of_multiply_adds: f64,
    /// Bytes a second that had to be read or written.
    pub bytes_per_s: f64,
    /// As a share of the peak; more than 1 where caches hold them.
    pub share_of_bytes: f64,
    /// The larger one of the two least times.
    pub bound: Bound,
    /// That least time over the time it took.
    pub share_of_bound: f64,
}

impl Point {
    /// Places `work`, which made `tokens` tokens, done at the rate of `tokens_per_s`.
    pub(crate) fn new(
        (phase, streams): (&'static str, usize),
        (tokens_per_s, step_ms): (f64, f64),
        tokens: usize,
        work: &Work,
        peaks: &Peaks,
    ) -> Self {
        let seconds = tokens as f64 / tokens_per_s;
        let (arithmetic_s, memory_s) = work.least_s(peaks);
        let bound = if arithmetic_s >= memory_s { Bound::Arithmetic } else { Bound::Memory };
        Self {
            phase,
            streams,
            tokens_per_s,
            step_ms,
            multiply_adds_per_s: work.multiply_adds() / seconds,
            share_of_multiply_adds: arithmetic_s / seconds,
            bytes_per_s: work.bytes / seconds,
            share_of_bytes: memory_s / seconds,
            bound,
            share_of_bound: arithmetic_s.max(memory_s) / seconds,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PEAKS: Peaks = Peaks {
        instructions: "portable",
        threads: 2,
        byte_products_per_s_one_thread: 1e9,
        byte_products_per_s: 2e9,
        multiply_adds_per_s: 1e9,
        float_multiply_adds_per_s: 0.5e9,
        bytes_per_s: 1e9,
    };

    fn model() -> Model {
        Model {
            name: "m".into(),
            body_parameters: 1_000_000,
            head_parameters: 100_000,
            weight_bytes: 1_100_000,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            kv_value_bytes: 2,
        }
    }

    fn work(runs: &[(usize, usize)]) -> Work {
        Work::of(&model(), &runs.iter().copied().collect())
    }

    #[test]
    fn a_steps_work_is_that_of_its_weights_once_a_token_of_attention_once_a_pair_and_of_bytes_once_a_step() {
        let decode = work(&[(1, 9), (1, 9)]);
        assert_eq!(decode.of_weights, 2.0 * 1_100_000.0);
        assert_eq!(decode.of_attention, 2.0 * 128.0 * 20.0);
        // Keys and values of a token: 2 layers of 2 heads of 16 dimensions, twice, in two bytes; 20 read, 2 written.
        assert_eq!(decode.bytes, 1_100_000.0 + 256.0 * 22.0);
        let mut sum = decode;
        sum += work(&[(4, 0)]);
        assert_eq!(
            sum.of_weights,
            decode.of_weights + 4_100_000.0,
            "only the last token needs the output layer"
        );
    }

    #[test]
    fn the_bound_is_the_larger_least_time_and_its_share_is_1_at_the_peak() {
        let alone = work(&[(1, 9)]);
        let least_s = alone.bytes / PEAKS.bytes_per_s;
        let point = Point::new(("decode", 1), (1.0 / least_s, 1.0), 1, &alone, &PEAKS);
        assert_eq!(point.bound, Bound::Arithmetic, "floats of attention take longer than their bytes");
        let fast = Peaks { multiply_adds_per_s: 1e12, float_multiply_adds_per_s: 1e12, ..PEAKS };
        let point = Point::new(("decode", 1), (1.0 / least_s, 1.0), 1, &alone, &fast);
        assert_eq!(point.bound, Bound::Memory);
        assert!((point.share_of_bound - 1.0).abs() < 1e-9 && (point.share_of_bytes - 1.0).abs() < 1e-9);
        let half = Point::new(("decode", 1), (0.5 / least_s, 1.0), 1, &alone, &fast);
        assert!((half.share_of_bound - 0.5).abs() < 1e-9, "half the rate, half the share");
        assert!((half.bytes_per_s - 0.5e9).abs() < 1.0);
    }

    #[test]
    fn a_prompt_is_bound_by_arithmetic() {
        let prompt = work(&[(512, 0)]);
        let point = Point::new(("prefill", 1), (500.0, 1024.0), 512, &prompt, &PEAKS);
        assert_eq!(point.bound, Bound::Arithmetic);
        let expected = (prompt.of_weights / 1e9 + prompt.of_attention / 0.5e9) / 1.024;
        assert!((point.share_of_bound - expected).abs() < 1e-9);
        assert!((point.multiply_adds_per_s - (prompt.of_weights + prompt.of_attention) / 1.024).abs() < 1.0);
    }
}
