//! Linear layers that may hold only one rank's share of a weight.

use candle_core::{DType, Device, Tensor};

use crate::EngineError;
use crate::model::Weights;

/// Which share of each split weight this process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// 0 to `world` - 1.
    pub rank: usize,
    /// Ranks that share the model.
    pub world: usize,
}

impl Shard {
    /// The whole model in one process.
    pub const WHOLE: Self = Self { rank: 0, world: 1 };

    /// This rank's part of `count` heads or columns.
    pub fn part(self, count: usize, what: &str) -> Result<usize, EngineError> {
        if count.is_multiple_of(self.world) {
            Ok(count / self.world)
        } else {
            Err(EngineError::Config(format!("{count} {what} cannot be split over {} ranks", self.world)))
        }
    }

    fn narrow(self, weight: &Tensor, dim: usize) -> Result<Tensor, EngineError> {
        if self.world == 1 {
            return Ok(weight.clone());
        }
        let part = self.part(weight.dim(dim)?, "rows or columns")?;
        Ok(weight.narrow(dim, self.rank * part, part)?.contiguous()?)
    }
}

/// `y = x · weightᵀ + bias`, with a weight of shape (out, in).
#[derive(Clone, Debug)]
pub struct Linear {
    /// (out, in)
    pub weight: Tensor,
    /// (out)
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Split by output: each rank computes some of the columns of y, and nothing has to be exchanged.
    pub fn column_parallel(
        weights: &mut Weights,
        name: &str,
        shape: (usize, usize),
        shard: Shard,
        device: &Device,
    ) -> Result<Self, EngineError> {
        let weight = shard.narrow(&load(weights, name, shape, device)?, 0)?;
        let bias = weights.find(&format!("{name}.bias"), &[shape.0], device)?;
        let bias = bias.map(|bias| shard.narrow(&bias, 0)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Split by input: each rank computes a summand of y, to be added up by an all-reduce.
    pub fn row_parallel(
        weights: &mut Weights,
        name: &str,
        shape: (usize, usize),
        shard: Shard,
        device: &Device,
    ) -> Result<Self, EngineError> {
        let weight = shard.narrow(&load(weights, name, shape, device)?, 1)?;
        // Only one summand may bring the bias.
        let bias =
            if shard.rank == 0 { weights.find(&format!("{name}.bias"), &[shape.0], device)? } else { None };
        Ok(Self { weight, bias })
    }
}

fn load(
    weights: &mut Weights,
    name: &str,
    shape: (usize, usize),
    device: &Device,
) -> Result<Tensor, EngineError> {
    let weight = weights.get(&format!("{name}.weight"), &[shape.0, shape.1], device)?;
    debug_assert_eq!(weight.dtype(), DType::F32);
    Ok(weight)
}
