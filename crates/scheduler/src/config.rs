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
    /// Tokens that are guessed and checked several in one step.
    pub speculative: Speculative,
}

/// Speculative decoding without a second model: answers that repeat their prompt or themselves take fewer steps.
///
/// With weights of 8 bits or 4 answers are the same to the byte, sampled ones too. With those of 32 bits, sums differ by
/// their last bits with the number of rows, so an answer may part where two tokens are as good as equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Speculative {
    /// The most tokens guessed for a sequence in one step; 0 guesses none.
    pub num_speculative_tokens: usize,
    /// So many tokens at a sequence's end must have occurred before for a guess that the same follows.
    pub prompt_lookup_min: usize,
    /// What one more row adds to a step of one, in percent of its time, as the device is. A guess is made only if its
    /// row is likely to be worth that: the fewer guesses came true and the more sequences run, the fewer are. 0 makes
    /// every guess.
    pub row_cost_percent: u32,
}

impl Default for Speculative {
    fn default() -> Self {
        Self { num_speculative_tokens: 0, prompt_lookup_min: 3, row_cost_percent: 36 }
    }
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
            speculative: Speculative::default(),
        }
    }
}

/// A bound that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {value}, but must be between {min} and {max}{reason}")]
pub struct ConfigError {
    /// The field of [`Config`].
    pub field: &'static str,
    /// Its value.
    pub value: usize,
    /// The least allowed.
    pub min: usize,
    /// The most allowed.
    pub max: usize,
    /// Why so, with its comma, where another field says it.
    pub reason: &'static str,
}

impl Config {
    /// Refuses bounds that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let within_as = |field, value, min, max, reason| {
            let within = (min..=max).contains(&value);
            if within { Ok(()) } else { Err(ConfigError { field, value, min, max, reason }) }
        };
        let within = |field, value, min, max| within_as(field, value, min, max, "");
        within("max_num_seqs", self.max_num_seqs, 1, 4096)?;
        let (tokens, least) = (self.max_num_batched_tokens, self.max_num_seqs.max(16));
        let reason = ", as a step has a token for each of `max_num_seqs`";
        let reason = if least == self.max_num_seqs { reason } else { "" };
        within_as("max_num_batched_tokens", tokens, least, 1 << 20, reason)?;
        within("max_num_waiting", self.max_num_waiting, 1, 1 << 20)?;
        within("block_size", self.block_size, 1, 1024)?;
        within("num_blocks", self.num_blocks, 1, u32::MAX as usize)?;
        within("ageing_steps", self.ageing_steps as usize, 1, 1_000_000)?;
        let Speculative { num_speculative_tokens, prompt_lookup_min, row_cost_percent } = self.speculative;
        within("speculative.num_speculative_tokens", num_speculative_tokens, 0, 64)?;
        within("speculative.prompt_lookup_min", prompt_lookup_min, 1, 16)?;
        within("speculative.row_cost_percent", row_cost_percent as usize, 0, 100)
    }

    /// How many blocks hold `tokens` tokens.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_another_one_sets_names_it() {
        let refused = |max_num_seqs| {
            let config = Config { max_num_seqs, max_num_batched_tokens: 1, ..Config::default() };
            config.validate().expect_err("too few").to_string()
        };
        let few = "`max_num_batched_tokens` is 1, but must be between 16 and 1048576";
        assert_eq!(refused(8), few);
        let many = few.replace("16 and", "2048 and") + ", as a step has a token for each of `max_num_seqs`";
        assert_eq!(refused(2048), many);
    }

    #[test]
    fn guesses_have_bounds_of_their_own() {
        let refused = |speculative| {
            let config = Config { speculative, ..Config::default() };
            config.validate().err().map(|error| error.field)
        };
        let sound = Speculative::default();
        assert_eq!(refused(sound), None);
        for (speculative, field) in [
            (Speculative { num_speculative_tokens: 65, ..sound }, "speculative.num_speculative_tokens"),
            (Speculative { prompt_lookup_min: 0, ..sound }, "speculative.prompt_lookup_min"),
            (Speculative { row_cost_percent: 101, ..sound }, "speculative.row_cost_percent"),
        ] {
            assert_eq!(refused(speculative), Some(field));
        }
    }
}
