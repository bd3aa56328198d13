//! A model in memory: weights, tokenizer and chat template, shared by every engine of the process. A simulated one has
//! a profile in place of weights.

use std::path::Path;
use std::sync::Arc;

use kernels::Pool;
use profile::Profile;

use crate::chat_template::{CHATML, ChatTemplate};
use crate::model::{Placement, Shard, Transformer, Weights};
use crate::ops::{CpuOps, KvDtype, KvShape, SingleRank, TensorOps};
use crate::simulated::{SimulatedBackend, WORDS};
use crate::tokenizer::Tokenizer;
use crate::{Backend, Config, EngineError, TransformerBackend};

/// What a model is called, and under which bounds it is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The name that requests use.
    pub name: String,
    /// The version that answers are labelled with.
    pub version: String,
    /// Device and memory.
    pub config: Config,
}

/// A model in memory.
#[derive(Debug)]
pub struct LoadedModel {
    name: String,
    version: String,
    network: Network,
    tokenizer: Arc<Tokenizer>,
    chat_template: ChatTemplate,
    max_model_len: usize,
    config: Config,
    /// The threads that all engines of this model compute with.
    pool: Arc<Pool>,
}

/// What computes the logits.
#[derive(Debug)]
enum Network {
    Transformer(Arc<Transformer>),
    /// Nothing does; a step only takes as long as it would.
    Simulated(Arc<Profile>),
}

impl LoadedModel {
    /// Loads a `.gguf` file or a Hugging Face folder.
    pub fn load(path: &Path, options: LoadOptions) -> Result<Self, EngineError> {
        let LoadOptions { name, version, config } = options;
        config.validate()?;
        let device = config.device.open()?;
        let mut weights = Weights::open(path)?;
        let (tokenizer, chat_template) = match weights.gguf() {
            Some(content) => {
                let tokenizer = Tokenizer::from_gguf(&content.metadata)?;
                let chat_template = ChatTemplate::from_gguf(&content.metadata, &tokenizer)?;
                (tokenizer, chat_template)
            }
            None => {
                let tokenizer = Tokenizer::from_dir(path)?;
                let chat_template = ChatTemplate::from_dir(path, &tokenizer)?;
                (tokenizer, chat_template)
            }
        };
        let max_model_len = config.max_model_len(weights.config()?.context_len);
        let dtype = config.weight_dtype.on(&device)?;
        let place = Placement { shard: Shard::WHOLE, device: &device, dtype };
        let transformer = Transformer::load(&mut weights, max_model_len, place)?;
        Ok(Self {
            name,
            version,
            network: Network::Transformer(Arc::new(transformer)),
            tokenizer: Arc::new(tokenizer),
            chat_template,
            max_model_len,
            config,
            pool: Arc::new(Pool::new(rayon::current_num_threads())),
        })
    }

    /// With a chat template that knows the date: `clock` says the seconds since 1970 whenever a prompt is made.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> i64) -> Self {
        Self { chat_template: self.chat_template.with_clock(clock), ..self }
    }

    /// A model that answers with made-up words, in the time that a device would take by its profile.
    pub fn simulated(profile: Profile, options: LoadOptions) -> Result<Self, EngineError> {
        let LoadOptions { name, version, config } = options;
        config.validate()?;
        let tokenizer = Tokenizer::from_words(&WORDS)?;
        let chat_template = ChatTemplate::new(CHATML, None, None)?;
        Ok(Self {
            name,
            version,
            max_model_len: config.max_model_len(profile.limits.max_model_len),
            network: Network::Simulated(Arc::new(profile)),
            tokenizer: Arc::new(tokenizer),
            chat_template,
            config,
            pool: Arc::new(Pool::new(1)),
        })
    }

    /// The name that requests use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that answers are labelled with.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Text to ids and back.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Messages to text.
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.chat_template
    }

    /// The weights, unless it is simulated.
    pub fn transformer(&self) -> Option<&Arc<Transformer>> {
        match &self.network {
            Network::Transformer(transformer) => Some(transformer),
            Network::Simulated(_) => None,
        }
    }

    /// Whether nothing computes it.
    pub fn is_simulated(&self) -> bool {
        self.transformer().is_none()
    }

    /// What it runs on, in words.
    pub fn device(&self) -> String {
        match &self.network {
            Network::Transformer(model) if model.device().is_cpu() => {
                format!("CPU, {} threads, {}", self.pool.num_threads(), kernels::instructions())
            }
            Network::Transformer(_) => "CUDA device".to_owned(),
            Network::Simulated(profile) => format!("simulated {}", profile.device.name),
        }
    }

    /// How many token ids it reads.
    pub fn vocab_size(&self) -> usize {
        match &self.network {
            Network::Transformer(transformer) => transformer.config().vocab_size,
            Network::Simulated(_) => self.tokenizer.vocab_size(),
        }
    }

    /// What a step asks of a device, for profiles.
    pub fn shape(&self) -> profile::Model {
        match &self.network {
            Network::Transformer(transformer) => shape_of(&self.name, transformer, self.config.kv_dtype),
            Network::Simulated(profile) => profile.model.clone(),
        }
    }

    /// The longest prompt and answer together, in tokens.
    pub fn max_model_len(&self) -> usize {
        self.max_model_len
    }

    /// The bounds it was loaded under.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A backend with a KV-cache of its own over the shared weights.
    pub fn backend(&self, block_size: usize) -> Result<Box<dyn Backend>, EngineError> {
        let model = match &self.network {
            Network::Transformer(transformer) => Arc::clone(transformer),
            Network::Simulated(profile) => {
                let num_slots = self.config.kv_cache_tokens / block_size * block_size;
                let vocab_size = self.tokenizer.vocab_size();
                return Ok(Box::new(SimulatedBackend::new(Arc::clone(profile), num_slots, vocab_size)));
            }
        };
        let config = model.config();
        let shape = KvShape {
            num_layers: config.num_layers,
            num_blocks: self.config.kv_cache_tokens / block_size,
            block_size,
            num_kv_heads: model.num_kv_heads(),
            head_dim: config.head_dim,
            dtype: self.config.kv_dtype,
        };
        Ok(if model.device().is_cpu() {
            Box::new(TransformerBackend::new(
                model,
                CpuOps::new(shape, Arc::clone(&self.pool), Box::new(SingleRank))?,
            ))
        } else {
            let ops = TensorOps::new(shape, model.device(), Box::new(SingleRank))?;
            Box::new(TransformerBackend::new(model, ops))
        })
    }
}

fn shape_of(name: &str, transformer: &Transformer, kv_dtype: KvDtype) -> profile::Model {
    let config = transformer.config();
    let head = config.vocab_size * config.hidden_size;
    let attention = 2 * config.hidden_size * config.head_dim * (config.num_heads + config.num_kv_heads);
    let body = config.num_layers * (attention + 3 * config.hidden_size * config.intermediate_size);
    profile::Model {
        name: name.to_owned(),
        body_parameters: body as u64,
        head_parameters: head as u64,
        weight_bytes: transformer.weight_bytes() as u64,
        num_layers: config.num_layers as u32,
        num_heads: config.num_heads as u32,
        num_kv_heads: config.num_kv_heads as u32,
        head_dim: config.head_dim as u32,
        kv_value_bytes: kv_dtype.bytes() as u32,
    }
}
