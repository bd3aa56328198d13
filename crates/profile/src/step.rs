//! What a step has to compute, as far as its time depends on it.

/// The sums over a step's runs that its time is a function of.
///
/// A run is (new tokens, tokens of the same sequence before them): a decode is (1, context), a chunk of a prompt
/// (chunk, what is already in the KV-cache).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Runs; one sequence each.
    pub num_sequences: u64,
    /// New tokens.
    pub num_tokens: u64,
    /// Pairs of a new token and a token that it attends to, itself included.
    pub attention_pairs: u64,
    /// Tokens whose keys and values are read.
    pub kv_tokens_read: u64,
}

impl StepShape {
    /// Adds a run.
    pub fn push(&mut self, num_new: usize, num_before: usize) {
        let (new, before) = (num_new as u64, num_before as u64);
        self.num_sequences += 1;
        self.num_tokens += new;
        self.attention_pairs += new * before + new * (new + 1) / 2;
        self.kv_tokens_read += before + new;
    }
}

impl FromIterator<(usize, usize)> for StepShape {
    fn from_iter<T: IntoIterator<Item = (usize, usize)>>(runs: T) -> Self {
        let mut shape = Self::default();
        runs.into_iter().for_each(|(new, before)| shape.push(new, before));
        shape
    }
}
