//! Decoder-only transformers of the llama family, written once over candle tensors.
//!
//! [`ModelConfig`] reads a model's shape from GGUF metadata or `config.json`; [`Weights`] finds its tensors under one
//! set of names whatever the file; [`Transformer`] computes a ragged batch ([`Batch`]).

mod batch;
mod config;
mod linear;
mod rope;
mod transformer;
mod weights;

pub use batch::{Batch, BatchSequence};
pub use config::{Architecture, ModelConfig, RopeScaling};
pub use linear::{Linear, Placement, Shard, Weight, WeightDtype};
pub use rope::RopeTable;
pub use transformer::{Norm, Transformer};
pub use weights::{DTYPES, Weights, WeightsKind, dtype_name, read_gguf_header};
