//! The CPU's own path: kernels over plain slices, with a KV-cache that is attended to in place.

use std::sync::Arc;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};
use kernels::{
    AttentionBatch, AttentionRun, KvCache, KvFormat, KvLayout, Matrix, Pool, Product, Rope, Rows,
    gated_product, products, rms_norm,
};

use super::tensor::tensor_linear;
use super::{Communicator, KvDtype, KvShape, Ops, Rotation};
use crate::EngineError;
use crate::model::{Batch, Linear, Norm, Weight};

/// Kernels and one KV-cache a layer. Weights of 8 bits and 4 are multiplied by kernels, those of 32 by candle.
#[derive(Debug)]
pub struct CpuOps {
    layers: Vec<KvCache>,
    pool: Arc<Pool>,
    communicator: Box<dyn Communicator>,
}

impl CpuOps {
    /// An empty cache; what is computed is shared with other users of `pool`.
    ///
    /// # Errors
    /// If the cache is more than there is memory.
    pub fn new(
        shape: KvShape,
        pool: Arc<Pool>,
        communicator: Box<dyn Communicator>,
    ) -> Result<Self, EngineError> {
        let layout = KvLayout {
            num_blocks: shape.num_blocks,
            block_size: shape.block_size,
            num_kv_heads: shape.num_kv_heads,
            head_dim: shape.head_dim,
            format: match shape.dtype {
                KvDtype::F16 => KvFormat::F16,
                KvDtype::F32 => KvFormat::F32,
                KvDtype::Int8 => KvFormat::Int8,
            },
        };
        let layers = KvCache::of_layers(layout, shape.num_layers);
        let tokens = shape.num_blocks * shape.block_size;
        let too_large = || {
            EngineError::Config(format!(
                "a KV-cache of {tokens} tokens does not fit this machine's memory; \
                 set engine.kv_cache_tokens lower"
            ))
        };
        Ok(Self { layers: layers.ok_or_else(too_large)?, pool, communicator })
    }

    fn linear(&self, linear: &Linear, x: &Tensor) -> Result<Tensor, EngineError> {
        match &linear.weight {
            Weight::Full(_) => tensor_linear(linear, x),
            Weight::Quantized(matrix) => {
                let rows = self.quantize(x, matrix)?;
                self.products(&rows, &[linear]).and_then(first)
            }
        }
    }

    fn quantize(&self, x: &Tensor, matrix: &Matrix) -> Result<Rows, EngineError> {
        with_slices([x], |[x]| Rows::quantize(&self.pool, x, matrix.inputs()))
    }

    /// What layers of 8 or 4 bits make of the same rows.
    fn products(&self, rows: &Rows, linears: &[&Linear]) -> Result<Vec<Tensor>, EngineError> {
        let parts: Vec<(&Matrix, Option<Vec<f32>>)> = linears
            .iter()
            .map(|linear| Ok((quantized(linear)?, bias(linear)?)))
            .collect::<Result<_, EngineError>>()?;
        let mut outputs: Vec<Vec<f32>> =
            parts.iter().map(|(matrix, _)| vec![0.0; rows.num_rows() * matrix.outputs()]).collect();
        let mut work: Vec<Product<'_>> = parts
            .iter()
            .zip(&mut outputs)
            .map(|((matrix, bias), output)| Product { matrix, bias: bias.as_deref(), output, add: false })
            .collect();
        products(&self.pool, rows, &mut work);
        let shaped = outputs.into_iter().zip(&parts);
        shaped.map(|(output, (matrix, _))| tensor(output, (rows.num_rows(), matrix.outputs()))).collect()
    }

    fn norm_rows(&self, x: &Tensor, norm: &Norm) -> Result<Rows, EngineError> {
        with_slices([x, &norm.weight], |[x, weight]| Rows::norm_and_quantize(&self.pool, x, weight, norm.eps))
    }
}

impl Ops for CpuOps {
    fn embed(&self, embedding: &Weight, tokens: &[u32]) -> Result<Tensor, EngineError> {
        match embedding {
            Weight::Full(embedding) => {
                Ok(embedding.index_select(&Tensor::new(tokens, embedding.device())?, 0)?)
            }
            Weight::Quantized(matrix) => {
                let mut x = vec![0.0; tokens.len() * matrix.inputs()];
                for (row, token) in x.chunks_exact_mut(matrix.inputs()).zip(tokens) {
                    matrix.row(*token as usize, row);
                }
                tensor(x, (tokens.len(), matrix.inputs()))
            }
        }
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor, EngineError> {
        let mut output = vec![0.0; x.elem_count()];
        with_slices([x, &norm.weight], |[x, weight]| {
            rms_norm(&self.pool, x, weight, norm.eps, &mut output);
        })?;
        tensor(output, x.shape().clone())
    }

    fn norm_linears(&self, x: &Tensor, norm: &Norm, linears: &[&Linear]) -> Result<Vec<Tensor>, EngineError> {
        if linears.iter().all(|linear| matches!(linear.weight, Weight::Quantized(_))) {
            return self.products(&self.norm_rows(x, norm)?, linears);
        }
        let x = self.norm(x, norm)?;
        linears.iter().map(|linear| self.linear(linear, &x)).collect()
    }

    fn logits(
        &self,
        x: &Tensor,
        norm: &Norm,
        output: &Linear,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let Weight::Quantized(matrix) = &output.weight else {
            *logits = self.linear(output, &self.norm(x, norm)?)?.flatten_all()?.to_vec1()?;
            return Ok(());
        };
        let bias = bias(output)?;
        let rows = self.norm_rows(x, norm)?;
        // Each number is written; what is there from the step before costs no time.
        let len = rows.num_rows() * matrix.outputs();
        logits.reserve_exact(len.saturating_sub(logits.len()));
        logits.resize(len, 0.0);
        let product = Product { matrix, bias: bias.as_deref(), output: logits, add: false };
        products(&self.pool, &rows, &mut [product]);
        Ok(())
    }

    fn norm_swiglu(
        &self,
        x: &Tensor,
        norm: &Norm,
        gate: &Linear,
        up: &Linear,
    ) -> Result<Tensor, EngineError> {
        if let (Weight::Quantized(gate), Weight::Quantized(up), None, None) =
            (&gate.weight, &up.weight, &gate.bias, &up.bias)
        {
            let rows = self.norm_rows(x, norm)?;
            let mut output = vec![0.0; rows.num_rows() * gate.outputs()];
            gated_product(&self.pool, &rows, gate, up, &mut output);
            return tensor(output, (rows.num_rows(), gate.outputs()));
        }
        let x = self.norm(x, norm)?;
        Ok((candle_nn::ops::silu(&self.linear(gate, &x)?)? * self.linear(up, &x)?)?)
    }

    fn attention(
        &mut self,
        layer: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        (cos, sin): &Rotation,
        batch: &Batch,
    ) -> Result<Tensor, EngineError> {
        let (rows, num_heads, head_dim) = query.dims3()?;
        let runs: Vec<AttentionRun<'_>> = batch
            .sequences
            .iter()
            .map(|run| AttentionRun {
                row: run.row,
                len: run.len,
                start: run.start,
                block_table: &run.block_table,
            })
            .collect();
        let mut output = vec![0.0; query.elem_count()];
        let (cache, pool) = (&mut self.layers[layer], &self.pool);
        with_slices([query, key, value, cos, sin], |[query, key, value, cos, sin]| {
            let slots = &batch.slots;
            let rope = Rope { cos, sin };
            let batch = AttentionBatch { query, key, value, num_heads, rope, slots, runs: &runs };
            cache.write(&batch);
            cache.attend(pool, &batch, &mut output);
        })?;
        tensor(output, (rows, num_heads * head_dim))
    }

    fn linear_add(&self, x: &Tensor, linear: &Linear, sum: Tensor) -> Result<Tensor, EngineError> {
        let matrix = match &linear.weight {
            Weight::Quantized(matrix) if !self.communicator.has_others() => matrix,
            _ => return Ok((sum + self.communicator.all_reduce(self.linear(linear, x)?)?)?),
        };
        let (rows, bias) = (self.quantize(x, matrix)?, bias(linear)?);
        let sum = sum.contiguous()?;
        sum.inplace_op1(&AddProduct { pool: &self.pool, rows, matrix, bias })?;
        Ok(sum)
    }
}

/// Adds what a layer makes of some rows to a tensor that nobody else has.
struct AddProduct<'a> {
    pool: &'a Pool,
    rows: Rows,
    matrix: &'a Matrix,
    bias: Option<Vec<f32>>,
}

impl InplaceOp1 for AddProduct<'_> {
    fn name(&self) -> &'static str {
        "add-product"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(sum) = storage else { candle_core::bail!("sums are of 32 bits") };
        let start = layout.start_offset();
        let output = &mut sum[start..start + layout.shape().elem_count()];
        let Self { pool, rows, matrix, bias } = self;
        products(pool, rows, &mut [Product { matrix, bias: bias.as_deref(), output, add: true }]);
        Ok(())
    }
}

fn bias(linear: &Linear) -> Result<Option<Vec<f32>>, EngineError> {
    Ok(linear.bias.as_ref().map(Tensor::to_vec1).transpose()?)
}

fn quantized(linear: &Linear) -> Result<&Matrix, EngineError> {
    match &linear.weight {
        Weight::Quantized(matrix) => Ok(matrix),
        Weight::Full(_) => Err(EngineError::Config("quantized layers and some of 32 bits are mixed".into())),
    }
}

fn first(tensors: Vec<Tensor>) -> Result<Tensor, EngineError> {
    let none = || EngineError::Config("a layer gave no result".into());
    tensors.into_iter().next().ok_or_else(none)
}

fn tensor(
    numbers: Vec<f32>,
    shape: impl candle_core::shape::ShapeWithOneHole,
) -> Result<Tensor, EngineError> {
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Runs `f` on the numbers of contiguous f32 tensors on the CPU, without a copy.
pub(crate) fn with_slices<R, const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> Result<R, EngineError> {
    let mut contiguous = Vec::with_capacity(N);
    for tensor in tensors {
        contiguous.push(tensor.contiguous()?);
    }
    let storages: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&storages) {
        let Storage::Cpu(storage) = &**storage else {
            return Err(EngineError::Config("the CPU path was given a tensor on another device".into()));
        };
        let start = layout.start_offset();
        *slice = &storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()];
    }
    Ok(f(slices))
}
