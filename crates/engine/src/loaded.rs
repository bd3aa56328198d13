//! A model in memory: weights, tokenizer and chat template, shared by every engine of the process.

use std::path::Path;
use std::sync::Arc;

use crate::chat_template::ChatTemplate;
use crate::model::{Shard, Transformer, Weights};
use crate::ops::{CpuOps, KvShape, SingleRank, TensorOps};
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
    transformer: Arc<Transformer>,
    tokenizer: Arc<Tokenizer>,
    chat_template: ChatTemplate,
    max_model_len: usize,
    config: Config,
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
        let transformer = Transformer::load(&mut weights, max_model_len, Shard::WHOLE, &device)?;
        Ok(Self {
            name,
            version,
            transformer: Arc::new(transformer),
            tokenizer: Arc::new(tokenizer),
            chat_template,
            max_model_len,
            config,
        })
    }

    /// With a chat template that knows the date: `clock` says the seconds since 1970 whenever a prompt is made.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> i64) -> Self {
        Self { chat_template: self.chat_template.with_clock(clock), ..self }
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

    /// The weights.
    pub fn transformer(&self) -> &Arc<Transformer> {
        &self.transformer
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
        let config = self.transformer.config();
        let shape = KvShape {
            num_layers: config.num_layers,
            num_blocks: self.config.kv_cache_tokens / block_size,
            block_size,
            num_kv_heads: self.transformer.num_kv_heads(),
            head_dim: config.head_dim,
            dtype: self.config.kv_dtype,
        };
        let model = Arc::clone(&self.transformer);
        Ok(if model.device().is_cpu() {
            Box::new(TransformerBackend::new(model, CpuOps::new(shape, Box::new(SingleRank))))
        } else {
            let ops = TensorOps::new(shape, self.transformer.device(), Box::new(SingleRank))?;
            Box::new(TransformerBackend::new(model, ops))
        })
    }
}
