//! The forward pass.

use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;

use crate::EngineError;
use crate::model::{Architecture, Batch, Linear, ModelConfig, RopeTable, Shard, Weights};
use crate::ops::Ops;

/// The weights of one rank. Immutable, so engines in one process share them; keys and values live in [`Ops`].
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    num_heads: usize,
    num_kv_heads: usize,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Linear,
    tied_embeddings: bool,
    rope: RopeTable,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    output: Linear,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Transformer {
    /// Reads this rank's weights to `device`, with rotary tables for `positions` positions.
    pub fn load(
        weights: &mut Weights,
        positions: usize,
        shard: Shard,
        device: &Device,
    ) -> Result<Self, EngineError> {
        let config = weights.config()?;
        weights.set_layout(&config);
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = weights.get("model.embed_tokens.weight", &[vocab, hidden], device)?;
        let tied_embeddings = weights.tied_embeddings(&config);
        let output = if tied_embeddings {
            Linear { weight: embedding.clone(), bias: None }
        } else {
            Linear::column_parallel(weights, "lm_head", (vocab, hidden), Shard::WHOLE, device)?
        };
        let factors = weights.find("rope_freqs.weight", &[config.head_dim / 2], &Device::Cpu)?;
        let factors = factors.map(|factors| factors.to_vec1::<f32>()).transpose()?;
        Ok(Self {
            num_heads: shard.part(config.num_heads, "heads")?,
            num_kv_heads: shard.part(config.num_kv_heads, "key and value heads")?,
            layers: (0..config.num_layers)
                .map(|layer| Layer::load(weights, layer, &config, shard, device))
                .collect::<Result<_, _>>()?,
            norm: weights.get("model.norm.weight", &[hidden], device)?,
            rope: RopeTable::new(&config, positions, factors, device)?,
            embedding,
            output,
            tied_embeddings,
            config,
            device: device.clone(),
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

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Computes T tokens, writes their keys and values, and returns logits (`logit_rows`, vocabulary).
    pub fn forward(&self, batch: &Batch, ops: &mut dyn Ops) -> Result<Tensor, EngineError> {
        let tokens = Tensor::new(batch.tokens.as_slice(), &self.device)?;
        let positions = Tensor::new(batch.positions.as_slice(), &self.device)?;
        let rope = self.rope.select(&positions)?;
        let mut x = self.embedding.index_select(&tokens, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = self.layer(index, layer, x, &rope, batch, ops)?;
        }
        if batch.logit_rows.is_empty() {
            // Part of a prompt. CUDA refuses tensors without numbers.
            return Ok(Tensor::zeros((0, self.config.vocab_size), DType::F32, &Device::Cpu)?);
        }
        let rows = Tensor::new(batch.logit_rows.as_slice(), &self.device)?;
        let x = self.norm(&x.index_select(&rows, 0)?, &self.norm)?;
        ops.linear(&self.output, &x)
    }

    /// (T, hidden) to (T, hidden).
    fn layer(
        &self,
        index: usize,
        layer: &Layer,
        x: Tensor,
        rope: &(Tensor, Tensor),
        batch: &Batch,
        ops: &mut dyn Ops,
    ) -> Result<Tensor, EngineError> {
        let normed = self.norm(&x, &layer.attention_norm)?;
        let query =
            self.heads(ops.linear(&layer.query, &normed)?, self.num_heads, layer.query_norm.as_ref())?;
        let key = self.heads(ops.linear(&layer.key, &normed)?, self.num_kv_heads, layer.key_norm.as_ref())?;
        let value = self.heads(ops.linear(&layer.value, &normed)?, self.num_kv_heads, None)?;
        let (query, key) = (rotate(&query, rope)?, rotate(&key, rope)?);
        let attended = ops.attention(index, &query, &key, &value, batch)?;
        let x = (x + ops.all_reduce(ops.linear(&layer.output, &attended)?)?)?;

        let normed = self.norm(&x, &layer.feed_forward_norm)?;
        let (gate, up) = (ops.linear(&layer.gate, &normed)?, ops.linear(&layer.up, &normed)?);
        let inner = ops.swiglu(&gate, &up)?;
        Ok((x + ops.all_reduce(ops.linear(&layer.down, &inner)?)?)?)
    }

    /// (T, heads · dim) to (T, heads, dim), normed head by head where the family does that.
    fn heads(&self, x: Tensor, heads: usize, norm: Option<&Tensor>) -> Result<Tensor, EngineError> {
        let x = x.reshape((x.dim(0)?, heads, self.config.head_dim))?;
        norm.map_or(Ok(x.clone()), |norm| self.norm(&x, norm))
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, EngineError> {
        debug_assert_eq!(x.dim(D::Minus1)?, weight.dim(0)?);
        Ok(rms_norm(&x.contiguous()?, weight, self.config.rms_norm_eps as f32)?)
    }
}

/// (T, heads, dim) rotated by each row's position.
fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor, EngineError> {
    Ok(rope_thd(&x.unsqueeze(0)?.contiguous()?, cos, sin)?.i(0)?)
}

impl Layer {
    fn load(
        weights: &mut Weights,
        layer: usize,
        config: &ModelConfig,
        shard: Shard,
        device: &Device,
    ) -> Result<Self, EngineError> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for part in required_beyond_llama(config.architecture) {
            weights.require(&name(part))?;
        }
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim);
        let mut column =
            |part, out| Linear::column_parallel(weights, &name(part), (out, hidden), shard, device);
        let (query_proj, key_proj) = (column("self_attn.q_proj", query)?, column("self_attn.k_proj", kv)?);
        let value_proj = column("self_attn.v_proj", kv)?;
        let (gate, up) = (column("mlp.gate_proj", inner)?, column("mlp.up_proj", inner)?);
        let output =
            Linear::row_parallel(weights, &name("self_attn.o_proj"), (hidden, query), shard, device)?;
        let down = Linear::row_parallel(weights, &name("mlp.down_proj"), (hidden, inner), shard, device)?;
        Ok(Self {
            attention_norm: weights.get(&name("input_layernorm.weight"), &[hidden], device)?,
            query: query_proj,
            key: key_proj,
            value: value_proj,
            query_norm: weights.find(&name("self_attn.q_norm.weight"), &[config.head_dim], device)?,
            key_norm: weights.find(&name("self_attn.k_norm.weight"), &[config.head_dim], device)?,
            output,
            feed_forward_norm: weights.get(&name("post_attention_layernorm.weight"), &[hidden], device)?,
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
