//! Everything with candle tensors: slow on a CPU, right everywhere, and the path on CUDA.

use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;

use super::{Communicator, KvDtype, KvShape, Ops, Rotation};
use crate::EngineError;
use crate::model::{Batch, BatchSequence, Linear, Norm, Weight};

/// Keys and values as one tensor (slots, kv heads · dim) a layer.
pub struct TensorOps {
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    shape: KvShape,
    communicator: Box<dyn Communicator>,
}

impl std::fmt::Debug for TensorOps {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TensorOps").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl TensorOps {
    /// An empty cache on `device`; 16 or 32 bits a number.
    pub fn new(
        shape: KvShape,
        device: &Device,
        communicator: Box<dyn Communicator>,
    ) -> Result<Self, EngineError> {
        let dtype = match shape.dtype {
            KvDtype::F16 => DType::F16,
            KvDtype::F32 => DType::F32,
            KvDtype::Int8 => {
                return Err(EngineError::Config(
                    "`engine.kv_dtype` is \"int8\", which only the CPU's kernels read; set it to \"f16\", or \
                     `engine.device` to \"cpu\""
                        .into(),
                ));
            }
        };
        let size = (shape.num_blocks * shape.block_size, shape.num_kv_heads * shape.head_dim);
        let layers = || {
            (0..shape.num_layers).map(|_| Tensor::zeros(size, dtype, device)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { keys: layers()?, values: layers()?, shape, communicator })
    }

    fn write(cache: &Tensor, rows: &Tensor, slots: &Tensor) -> Result<(), EngineError> {
        let rows = rows.flatten_from(1)?.to_dtype(cache.dtype())?.contiguous()?;
        let slots = slots.unsqueeze(1)?.broadcast_as(rows.shape())?.contiguous()?;
        Ok(cache.scatter_set(&slots, &rows, 0)?)
    }

    /// One sequence's rows: (len, heads, dim) to (len, heads · dim).
    fn attend(&self, layer: usize, query: &Tensor, sequence: &BatchSequence) -> Result<Tensor, EngineError> {
        let KvShape { block_size, num_kv_heads, head_dim, .. } = self.shape;
        let (len, heads, _) = query.dims3()?;
        let end = sequence.start + sequence.len;
        let slots: Vec<u32> = (0..end)
            .map(|position| {
                sequence.block_table[position / block_size] * block_size as u32
                    + (position % block_size) as u32
            })
            .collect();
        let slots = Tensor::new(slots, query.device())?;
        let context = |cache: &Tensor| -> Result<Tensor, EngineError> {
            let rows = cache.index_select(&slots, 0)?.to_dtype(DType::F32)?;
            // (kv heads, end, dim), each head repeated for the query heads of its group.
            let rows = rows.reshape((end, num_kv_heads, head_dim))?.transpose(0, 1)?;
            let group = heads / num_kv_heads;
            let rows = rows.unsqueeze(1)?.broadcast_as((num_kv_heads, group, end, head_dim))?;
            Ok(rows.contiguous()?.reshape((heads, end, head_dim))?)
        };
        let (keys, values) = (context(&self.keys[layer])?, context(&self.values[layer])?);
        let query = (query.transpose(0, 1)?.contiguous()? * (head_dim as f64).powf(-0.5))?;
        let mask: Vec<f32> = (sequence.start..end)
            .flat_map(|row| (0..end).map(move |column| if column <= row { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, len, end), query.device())?;
        let scores = query.matmul(&keys.transpose(1, 2)?.contiguous()?)?.broadcast_add(&mask)?;
        let attended = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values)?;
        Ok(attended.transpose(0, 1)?.contiguous()?.reshape((len, heads * head_dim))?)
    }
}

impl Ops for TensorOps {
    fn embed(&self, embedding: &Weight, tokens: &[u32]) -> Result<Tensor, EngineError> {
        let embedding = full(embedding)?;
        Ok(embedding.index_select(&Tensor::new(tokens, embedding.device())?, 0)?)
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor, EngineError> {
        Ok(rms_norm(&x.contiguous()?, &norm.weight, norm.eps)?)
    }

    fn norm_linears(&self, x: &Tensor, norm: &Norm, linears: &[&Linear]) -> Result<Vec<Tensor>, EngineError> {
        let x = self.norm(x, norm)?;
        linears.iter().map(|linear| tensor_linear(linear, &x)).collect()
    }

    fn logits(
        &self,
        x: &Tensor,
        norm: &Norm,
        output: &Linear,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        *logits = tensor_linear(output, &self.norm(x, norm)?)?.flatten_all()?.to_vec1()?;
        Ok(())
    }

    fn norm_swiglu(
        &self,
        x: &Tensor,
        norm: &Norm,
        gate: &Linear,
        up: &Linear,
    ) -> Result<Tensor, EngineError> {
        let x = self.norm(x, norm)?;
        Ok((candle_nn::ops::silu(&tensor_linear(gate, &x)?)? * tensor_linear(up, &x)?)?)
    }

    fn attention(
        &mut self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        rotation: &Rotation,
        batch: &Batch,
    ) -> Result<Tensor, EngineError> {
        let (query, key) = (rotate(query, rotation)?, rotate(key, rotation)?);
        let slots = Tensor::new(batch.slots.as_slice(), query.device())?;
        Self::write(&self.keys[layer], &key, &slots)?;
        Self::write(&self.values[layer], value, &slots)?;
        let rows = batch
            .sequences
            .iter()
            .map(|sequence| self.attend(layer, &query.narrow(0, sequence.row, sequence.len)?, sequence))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }

    fn linear_add(&self, x: &Tensor, linear: &Linear, sum: Tensor) -> Result<Tensor, EngineError> {
        Ok((sum + self.communicator.all_reduce(tensor_linear(linear, x)?)?)?)
    }
}

/// (T, heads, dim) rotated by each row's position.
fn rotate(x: &Tensor, (cos, sin): &Rotation) -> Result<Tensor, EngineError> {
    Ok(rope_thd(&x.unsqueeze(0)?.contiguous()?, cos, sin)?.i(0)?)
}

/// `x · weightᵀ + bias` with candle's own matrix product.
pub(super) fn tensor_linear(linear: &Linear, x: &Tensor) -> Result<Tensor, EngineError> {
    let y = x.matmul(&full(&linear.weight)?.t()?)?;
    Ok(match &linear.bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

fn full(weight: &Weight) -> Result<&Tensor, EngineError> {
    match weight {
        Weight::Full(weight) => Ok(weight),
        Weight::Quantized(_) => {
            Err(EngineError::Config("weights of 8 or 4 bits are for the CPU's own path".into()))
        }
    }
}
