//! The scheduler's bounds.

use serde::{Deserialize, Serialize};

/// What one step and one engine may hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most sequences in one step.
    pub max_num_seqs: usize,
    /// The most tokens computed in one step; a longer prompt is computed in chunks.
    pub max_num_batched_tokens: usize,
    /// The most sequences that wait; one more is refused. Preempted sequences come back whatever the bound.
    pub max_num_waiting: usize,
    /// Tokens in a block of keys and values.
    pub block_size: usize,
    /// Blocks in all. The engine sets it from `kv_cache_tokens`.
    #[serde(skip)]
    pub num_blocks: usize,
    /// Whether a sequence may start from blocks that another one computed.
    pub prefix_caching: bool,
    /// A sequence that has waited this many steps ranks with one that is a level of priority more urgent and new.
    pub ageing_steps: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_num_seqs: 32,
            max_num_batched_tokens: 512,
            max_num_waiting: 256,
            block_size: 16,
            num_blocks: 1024,
            prefix_caching: true,
            ageing_steps: 100,
        }
    }
}

/// A bound that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}, but must be between {min} and {max}")]
pub struct ConfigError {
    /// The field of [`Config`].
    pub field: &'static str,
    /// Its value.
    pub value: usize,
    /// The least allowed.
    pub min: usize,
    /// The most allowed.
    pub max: usize,
}

impl Config {
    /// Refuses bounds that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let within = |field, value, min, max| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ConfigError { field, value, min, max }) }
        };
        within("max_num_seqs", self.max_num_seqs, 1, 4096)?;
        within("max_num_batched_tokens", self.max_num_batched_tokens, self.max_num_seqs.max(16), 1 << 20)?;
        within("max_num_waiting", self.max_num_waiting, 1, 1 << 20)?;
        within("block_size", self.block_size, 1, 1024)?;
        within("num_blocks", self.num_blocks, 1, u32::MAX as usize)?;
        within("ageing_steps", self.ageing_steps as usize, 1, 1_000_000)
    }

    /// How many blocks hold `tokens` tokens.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }
}
