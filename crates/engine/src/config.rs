//! What an engine may use of its machine.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::model::WeightDtype;
use crate::ops::KvDtype;

/// The engine's share of memory and the device it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to compute.
    pub device: DeviceKind,
    /// How the weights are kept in memory.
    pub weight_dtype: WeightKind,
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

/// How weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightKind {
    /// On the CPU 4 bits where a file has Q4_0 or Q4_1, and 8 otherwise; 32 elsewhere.
    #[default]
    Auto,
    /// 8 bits in groups of 32, whatever the file holds; the CPU only.
    Int8,
    /// 32 bits: slower, larger, and exact.
    F32,
}

impl WeightKind {
    /// What that is on a device.
    pub fn on(self, device: &Device) -> Result<WeightDtype, EngineError> {
        match (self, device.is_cpu()) {
            (Self::Auto, true) => Ok(WeightDtype::Int4),
            (Self::Int8, true) => Ok(WeightDtype::Int8),
            (Self::Auto | Self::F32, _) => Ok(WeightDtype::F32),
            (Self::Int8, false) => Err(EngineError::Config(
                "`engine.weight_dtype` is \"int8\", which only the CPU computes with; set it to \"auto\""
                    .into(),
            )),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceKind::Auto,
            weight_dtype: WeightKind::Auto,
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
            Self::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
            Self::Auto => Ok(open_cuda().unwrap_or_else(|reason| {
                tracing::warn!(reason, "no CUDA device can be used, so the CPU computes");
                Device::Cpu
            })),
            Self::Cuda => open_cuda().map_err(|reason| {
                let remedy = if cfg!(feature = "cuda") {
                    "check the driver with `nvidia-smi`"
                } else {
                    "this build has no CUDA, so build with `--features cuda`"
                };
                EngineError::Device(format!(
                    "`engine.device` is \"cuda\", but no CUDA device can be used ({reason}); {remedy}, or set it to \
                     \"cpu\" or \"auto\""
                ))
            }),
        }
    }
}

/// The first CUDA device, or why there is none.
///
/// It has one stream for all threads, since weights are loaded on one thread and read on those of engines. candle's
/// default is a stream for each, and nothing would order what one of them writes before what another reads.
fn open_cuda() -> Result<Device, String> {
    Device::new_cuda_with_stream(0).map_err(|error| {
        // candle adds a backtrace on further lines where the environment asks for one.
        error.to_string().lines().next().unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_these() {
        let config = Config::default();
        config.validate().expect("sound");
        assert_eq!(config, serde_json::from_str("{}").expect("every field has a default"));
        assert_eq!(
            serde_json::to_value(&config).expect("serializes"),
            serde_json::json!({
                "device": "auto",
                "weight_dtype": "auto",
                "kv_cache_tokens": 16_384,
                "kv_dtype": "f16",
                "max_model_len": null,
            })
        );
    }

    #[test]
    fn a_bound_that_cannot_work_is_refused_by_its_key() {
        for (config, key) in [
            (Config { kv_cache_tokens: 15, ..Config::default() }, "engine.kv_cache_tokens"),
            (Config { kv_cache_tokens: (1 << 28) + 1, ..Config::default() }, "engine.kv_cache_tokens"),
            (Config { max_model_len: Some(1), ..Config::default() }, "engine.max_model_len"),
            (Config { max_model_len: Some(16_385), ..Config::default() }, "engine.max_model_len"),
        ] {
            let error = config.validate().expect_err(key).to_string();
            assert!(error.contains(key) && error.contains("must be between"), "{error}");
        }
        assert!(serde_json::from_str::<Config>(r#"{ "kv_cache_token": 64 }"#).is_err(), "a misspelt key");
    }

    #[test]
    fn the_longest_request_is_bounded_by_the_wish_the_context_and_the_cache() {
        let config = |max_model_len| Config { max_model_len, kv_cache_tokens: 1000, ..Config::default() };
        assert_eq!(config(None).max_model_len(800), 800);
        assert_eq!(config(None).max_model_len(4000), 1000);
        assert_eq!(config(Some(500)).max_model_len(4000), 500);
        assert_eq!(config(Some(500)).max_model_len(300), 300);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn asking_for_cuda_in_a_build_without_it_says_what_to_do() {
        let error = DeviceKind::Cuda.open().expect_err("there is none").to_string();
        for part in ["`engine.device`", "--features cuda", "\"cpu\""] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'), "one line: {error}");
    }

    #[test]
    fn without_a_choice_there_is_always_a_device_and_without_cuda_it_is_the_cpu() {
        let device = DeviceKind::Auto.open().expect("falls back");
        assert!(device.is_cpu() || cfg!(feature = "cuda"));
    }
}
