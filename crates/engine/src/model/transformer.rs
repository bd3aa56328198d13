//! The forward pass.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::EngineError;
use crate::model::{
    Architecture, Batch, Linear, ModelConfig, Placement, RopeTable, Shard, Weight, WeightDtype, Weights,
};
use crate::ops::{Ops, Rotation};

/// The weights of one rank. Immutable, so engines in one process share them; keys and values live in [`Ops`].
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    num_heads: usize,
    num_kv_heads: usize,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Norm,
    output: Linear,
    tied_embeddings: bool,
    rope: RopeTable,
    device: Device,
}

/// A root-mean-square norm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// (width)
    pub weight: Tensor,
    /// Added to the mean of squares.
    pub eps: f32,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    output: Linear,
    feed_forward_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Transformer {
    /// Reads this rank's weights, with rotary tables for `positions` positions.
    pub fn load(weights: &mut Weights, positions: usize, place: Placement<'_>) -> Result<Self, EngineError> {
        let config = weights.config()?;
        weights.set_layout(&config);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let weights = &*weights;
        let tied_embeddings = weights.tied_embeddings(&config);
        let ends = || -> Result<_, EngineError> {
            let embedding = Weight::load(weights, "model.embed_tokens.weight", (vocab, hidden), place)?;
            if tied_embeddings {
                return Ok((embedding.clone(), Linear { weight: embedding, bias: None }));
            }
            let whole = Placement { shard: Shard::WHOLE, ..place };
            Ok((embedding, Linear::column_parallel(weights, "lm_head", (vocab, hidden), whole)?))
        };
        // As floats, several layers at once would take several times the memory.
        let in_a_row = if place.dtype == WeightDtype::F32 { config.num_layers } else { 1 };
        let layers = (0..config.num_layers).into_par_iter().with_min_len(in_a_row);
        let layers = layers.map(|layer| Layer::load(weights, layer, &config, place));
        let (ends, layers) = rayon::join(ends, || layers.collect::<Result<_, _>>());
        let ((embedding, output), layers) = (ends?, layers?);
        let factors = weights.find("rope_freqs.weight", &[config.head_dim / 2], &Device::Cpu)?;
        let factors = factors.map(|factors| factors.to_vec1::<f32>()).transpose()?;
        Ok(Self {
            num_heads: place.shard.part(config.num_heads, "heads")?,
            num_kv_heads: place.shard.part(config.num_kv_heads, "key and value heads")?,
            layers,
            norm: Norm::load(weights, "model.norm.weight", &config, place)?,
            rope: RopeTable::new(&config, positions, factors, place.device)?,
            embedding,
            output,
            tied_embeddings,
            config,
            device: place.device.clone(),
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Key and value heads of this rank.
    pub fn num_kv_heads(&self) -> usize {
        self.num_kv_heads
    }

    /// Whether the output layer is the embedding.
    pub fn tied_embeddings(&self) -> bool {
        self.tied_embeddings
    }

    /// Memory of the matrices that every step reads, in bytes: of the embedding a few rows are looked up, unless it is
    /// the output layer, too.
    pub fn weight_bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            let Layer { query, key, value, output, gate, up, down, .. } = layer;
            [query, key, value, output, gate, up, down]
                .map(|linear| linear.weight.bytes())
                .iter()
                .sum::<usize>()
        };
        self.output.weight.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Computes T tokens, writes their keys and values, and replaces `logits` by those of the `logit_rows`, as many for
    /// each as the vocabulary has tokens.
    pub fn forward(
        &self,
        batch: &Batch,
        ops: &mut dyn Ops,
        logits: &mut Vec<f32>,
    ) -> Result<(), EngineError> {
        let positions = Tensor::new(batch.positions.as_slice(), &self.device)?;
        let rope = self.rope.select(&positions)?;
        let mut x = ops.embed(&self.embedding, &batch.tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = self.layer(index, layer, x, &rope, batch, ops)?;
        }
        if batch.logit_rows.is_empty() {
            // Part of a prompt. CUDA refuses tensors without numbers.
            logits.clear();
            return Ok(());
        }
        let rows = Tensor::new(batch.logit_rows.as_slice(), &self.device)?;
        ops.logits(&x.index_select(&rows, 0)?, &self.norm, &self.output, logits)
    }

    /// (T, hidden) to (T, hidden).
    fn layer(
        &self,
        index: usize,
        layer: &Layer,
        x: Tensor,
        rope: &Rotation,
        batch: &Batch,
        ops: &mut dyn Ops,
    ) -> Result<Tensor, EngineError> {
        let projections = [&layer.query, &layer.key, &layer.value];
        let [query, key, value] = exactly(ops.norm_linears(&x, &layer.attention_norm, &projections)?)?;
        let query = self.heads(query, self.num_heads, layer.query_norm.as_ref(), ops)?;
        let key = self.heads(key, self.num_kv_heads, layer.key_norm.as_ref(), ops)?;
        let value = self.heads(value, self.num_kv_heads, None, ops)?;
        let attended = ops.attention(index, &query, &key, &value, rope, batch)?;
        let x = ops.linear_add(&attended, &layer.output, x)?;
        let inner = ops.norm_swiglu(&x, &layer.feed_forward_norm, &layer.gate, &layer.up)?;
        ops.linear_add(&inner, &layer.down, x)
    }

    /// (T, heads · dim) to (T, heads, dim), normed head by head where the family does that.
    fn heads(
        &self,
        x: Tensor,
        heads: usize,
        norm: Option<&Norm>,
        ops: &dyn Ops,
    ) -> Result<Tensor, EngineError> {
        let x = x.reshape((x.dim(0)?, heads, self.config.head_dim))?;
        norm.map_or(Ok(x.clone()), |norm| ops.norm(&x, norm))
    }
}

/// One result a layer.
fn exactly<const N: usize>(outputs: Vec<Tensor>) -> Result<[Tensor; N], EngineError> {
    let wrong =
        |outputs: Vec<Tensor>| EngineError::Config(format!("{N} layers gave {} results", outputs.len()));
    outputs.try_into().map_err(wrong)
}

impl Norm {
    fn load(
        weights: &Weights,
        name: &str,
        config: &ModelConfig,
        place: Placement<'_>,
    ) -> Result<Self, EngineError> {
        let weight = weights.get(name, &[config.hidden_size], place.device)?;
        Ok(Self { weight, eps: config.rms_norm_eps as f32 })
    }
}

impl Layer {
    fn load(
        weights: &Weights,
        layer: usize,
        config: &ModelConfig,
        place: Placement<'_>,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for part in required_beyond_llama(config.architecture) {
            weights.require(&name(part))?;
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let column = |part, out| Linear::column_parallel(weights, &name(part), (out, hidden), place);
        let (query_proj, key_proj) = (column("self_attn.q_proj", query)?, column("self_attn.k_proj", kv)?);
        let value_proj = column("self_attn.v_proj", kv)?;
        let (gate, up) = (column("mlp.gate_proj", inner)?, column("mlp.up_proj", inner)?);
        let output = Linear::row_parallel(weights, &name("self_attn.o_proj"), (hidden, query), place)?;
        let down = Linear::row_parallel(weights, &name("mlp.down_proj"), (hidden, inner), place)?;
        let head_norm = |part| -> Result<Option<Norm>, EngineError> {
            let weight = weights.find(&name(part), &[config.head_dim], place.device)?;
            Ok(weight.map(|weight| Norm { weight, eps: config.rms_norm_eps as f32 }))
        };
        let (query_norm, key_norm) =
            (head_norm("self_attn.q_norm.weight")?, head_norm("self_attn.k_norm.weight")?);
        Ok(Self {
            attention_norm: Norm::load(weights, &name("input_layernorm.weight"), config, place)?,
            query: query_proj,
            key: key_proj,
            value: value_proj,
            query_norm,
            key_norm,
            output,
            feed_forward_norm: Norm::load(weights, &name("post_attention_layernorm.weight"), config, place)?,
            gate,
            up,
            down,
        })
    }
}

/// Tensors whose absence means a broken file in one family, and nothing in the others.
const fn required_beyond_llama(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Llama | Architecture::Mistral => &[],
        Architecture::Qwen2 => &["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"],
        Architecture::Qwen3 => &["self_attn.q_norm.weight", "self_attn.k_norm.weight"],
    }
}
