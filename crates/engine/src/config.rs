//! What an engine may use of its machine.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::ops::KvDtype;

/// The engine's share of memory and the device it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to compute.
    pub device: DeviceKind,
    /// Tokens whose keys and values fit in the cache, over all requests.
    pub kv_cache_tokens: usize,
    /// How they are kept.
    pub kv_dtype: KvDtype,
    /// The longest prompt and answer together; unset, the model's context or the cache, whichever is less.
    pub max_model_len: Option<usize>,
}

/// The devices that candle knows here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// CUDA if this build has it and a GPU answers, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA device; needs a build with `--features cuda`.
    Cuda,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceKind::Auto,
            kv_cache_tokens: 16_384,
            kv_dtype: KvDtype::F16,
            max_model_len: None,
        }
    }
}

impl Config {
    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<(), EngineError> {
        if !(16..=1 << 28).contains(&self.kv_cache_tokens) {
            return Err(EngineError::Config(format!(
                "`engine.kv_cache_tokens` is {}, but must be between 16 and {}",
                self.kv_cache_tokens,
                1 << 28
            )));
        }
        match self.max_model_len {
            Some(len) if len < 2 || len > self.kv_cache_tokens => Err(EngineError::Config(format!(
                "`engine.max_model_len` is {len}, but must be between 2 and `engine.kv_cache_tokens` ({})",
                self.kv_cache_tokens
            ))),
            _ => Ok(()),
        }
    }

    /// The longest prompt and answer together for a model with this context.
    pub fn max_model_len(&self, context_len: usize) -> usize {
        self.max_model_len.unwrap_or(context_len).min(context_len).min(self.kv_cache_tokens)
    }
}

impl DeviceKind {
    /// Opens the device.
    pub fn open(self) -> Result<Device, EngineError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(Device::cuda_if_available(0)?),
            Self::Cuda => Device::new_cuda(0).map_err(|error| {
                EngineError::Config(format!(
                    "no CUDA device can be used ({error}); set `engine.device` to \"cpu\""
                ))
            }),
        }
    }
}
