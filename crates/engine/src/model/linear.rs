//! Linear layers that may hold only one rank's share of a weight.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::Matrix;

use crate::EngineError;
use crate::model::Weights;
use crate::ops::with_slices;

/// How the numbers of matrices are kept in memory, whatever they are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDtype {
    /// What the file holds in 4 bits as it is there, everything else as [`Self::Int8`].
    Int4,
    /// 8 bits in groups of 32, for the kernels of the CPU.
    Int8,
    /// 32 bits.
    F32,
}

/// Where weights go, which share of them, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// This rank's share.
    pub shard: Shard,
    /// Its device.
    pub device: &'a Device,
    /// How matrices are kept; of 4 or 8 bits only on the CPU.
    pub dtype: WeightDtype,
}

/// A matrix (out, in).
#[derive(Clone, Debug)]
pub enum Weight {
    /// As f32, on any device.
    Full(Tensor),
    /// As integers of 8 bits or 4, on the CPU.
    Quantized(Arc<Matrix>),
}

impl Weight {
    /// The whole of a matrix.
    pub fn load(
        weights: &Weights,
        name: &str,
        shape: (usize, usize),
        place: Placement<'_>,
    ) -> Result<Self, EngineError> {
        if place.dtype == WeightDtype::Int4
            && let Some(matrix) = weights.find_four_bits(name, shape)?
        {
            return Ok(Self::Quantized(Arc::new(matrix)));
        }
        if place.dtype == WeightDtype::F32 {
            return Ok(Self::Full(weights.get(name, &[shape.0, shape.1], place.device)?));
        }
        Ok(Self::Quantized(Arc::new(weights.int8(name, shape)?)))
    }

    /// Takes an f32 matrix.
    fn new(weight: Tensor, dtype: WeightDtype) -> Result<Self, EngineError> {
        if dtype == WeightDtype::F32 {
            return Ok(Self::Full(weight));
        }
        let (outputs, inputs) = weight.dims2()?;
        let matrix = with_slices([&weight], |[weights]| Matrix::new(outputs, inputs, weights))?;
        Ok(Self::Quantized(Arc::new(matrix)))
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Full(weight) => weight.elem_count() * size_of::<f32>(),
            Self::Quantized(matrix) => matrix.bytes(),
        }
    }
}

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
    pub weight: Weight,
    /// (out)
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Split by output: each rank computes some of the columns of y, and nothing has to be exchanged.
    pub fn column_parallel(
        weights: &Weights,
        name: &str,
        shape: (usize, usize),
        place: Placement<'_>,
    ) -> Result<Self, EngineError> {
        let weight = load(weights, name, shape, place, 0)?;
        let bias = weights.find(&format!("{name}.bias"), &[shape.0], place.device)?;
        let bias = bias.map(|bias| place.shard.narrow(&bias, 0)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Split by input: each rank computes a summand of y, to be added up by an all-reduce.
    pub fn row_parallel(
        weights: &Weights,
        name: &str,
        shape: (usize, usize),
        place: Placement<'_>,
    ) -> Result<Self, EngineError> {
        let weight = load(weights, name, shape, place, 1)?;
        // Only one summand may bring the bias.
        let brings_bias = place.shard.rank == 0;
        let bias = format!("{name}.bias");
        let bias = if brings_bias { weights.find(&bias, &[shape.0], place.device)? } else { None };
        Ok(Self { weight, bias })
    }
}

/// This rank's share of a weight, which is split along `dim`. A part of one is never kept in 4 bits.
fn load(
    weights: &Weights,
    name: &str,
    shape: (usize, usize),
    place: Placement<'_>,
    dim: usize,
) -> Result<Weight, EngineError> {
    let name = format!("{name}.weight");
    if place.shard == Shard::WHOLE {
        return Weight::load(weights, &name, shape, place);
    }
    let weight = weights.get(&name, &[shape.0, shape.1], place.device)?;
    Weight::new(place.shard.narrow(&weight, dim)?, place.dtype)
}
