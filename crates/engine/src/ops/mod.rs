//! The operations that depend on the device, and the KV-cache that they own.
//!
//! The model is written once over this trait. [`TensorOps`] does everything with candle tensors and runs wherever
//! candle does; [`CpuOps`] replaces what is hot on a CPU. A test holds the two together.

mod cpu;
mod tensor;

pub use cpu::CpuOps;
pub(crate) use cpu::with_slices;
pub use tensor::TensorOps;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::model::{Batch, Linear, Norm, Weight};

/// Cosines and sines for a batch's rows, (T, dim / 2) each.
pub type Rotation = (Tensor, Tensor);

/// What the model needs of a device, in pieces as large as a device can make one pass of.
pub trait Ops: Send {
    /// The embeddings (T, hidden) of some tokens.
    fn embed(&self, embedding: &Weight, tokens: &[u32]) -> Result<Tensor, EngineError>;

    /// Norms the last dimension.
    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor, EngineError>;

    /// Norms (T, in), and puts what comes of it through each of the layers: (T, out) each.
    fn norm_linears(&self, x: &Tensor, norm: &Norm, linears: &[&Linear]) -> Result<Vec<Tensor>, EngineError>;

    /// Norms (T, in), and replaces `logits` by what the last layer makes of it, (T · out).
    fn logits(
        &self,
        x: &Tensor,
        norm: &Norm,
        output: &Linear,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError>;

    /// Norms (T, in), and returns `silu(gate) · up` of what comes of it.
    fn norm_swiglu(&self, x: &Tensor, norm: &Norm, gate: &Linear, up: &Linear)
    -> Result<Tensor, EngineError>;

    /// Rotates `query` (T, heads, dim) and `key` (T, kv heads, dim), writes `key` and `value` of one layer into the
    /// batch's slots, then lets each row of `query` attend to its own sequence up to its own position. Returns
    /// (T, heads · dim).
    fn attention(
        &mut self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        rotation: &Rotation,
        batch: &Batch,
    ) -> Result<Tensor, EngineError>;

    /// `sum` and what a layer makes of `x`; where ranks share the layer, what all of them make. The memory of `sum` may
    /// be written to: nobody else may hold it.
    fn linear_add(&self, x: &Tensor, linear: &Linear, sum: Tensor) -> Result<Tensor, EngineError>;
}

/// How numbers lie in the KV-cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvDtype {
    /// 16 bits: half the memory, and what most models were served with.
    #[default]
    F16,
    /// 32 bits.
    F32,
    /// 8 bits, with a scale of 32 for each key and each value of a head: half of f16's memory; the CPU only.
    Int8,
}

impl KvDtype {
    /// What it is called in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of one number, without its scale.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// Bytes of a key or a value of one head, with its scale.
    pub const fn head_bytes(self, head_dim: usize) -> usize {
        let scale = if matches!(self, Self::Int8) { size_of::<f32>() } else { 0 };
        head_dim * self.bytes() + scale
    }
}

/// The KV-cache's shape on one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub num_layers: usize,
    /// Blocks in all.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Key and value heads of this rank.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How numbers are kept.
    pub dtype: KvDtype,
}

/// Sums over the ranks that share a model.
pub trait Communicator: std::fmt::Debug + Send + Sync {
    /// Gives every rank the sum of all ranks' `x`, added in the order of ranks.
    fn all_reduce(&self, x: Tensor) -> Result<Tensor, EngineError>;

    /// Whether there are other ranks; without them, a layer may add to the residual stream at once.
    fn has_others(&self) -> bool {
        true
    }
}

/// One rank: the sum is the summand.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleRank;

impl Communicator for SingleRank {
    fn all_reduce(&self, x: Tensor) -> Result<Tensor, EngineError> {
        Ok(x)
    }

    fn has_others(&self) -> bool {
        false
    }
}
