//! How well a model predicts a text.

use crate::model::{Batch, BatchSequence};
use crate::sampling::score;
use crate::{EngineError, LoadedModel};

/// Tokens computed at once: enough for full speed, few enough that their logits are no burden.
const ROWS_PER_STEP: usize = 64;
const BLOCK_SIZE: usize = 16;

/// The mean of how unlikely the model found each scored token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Perplexity {
    /// Tokens that were scored.
    pub num_tokens: usize,
    /// Sum of their negative log-likelihoods, natural.
    pub nll: f64,
}

impl Perplexity {
    /// e to the power of the mean negative log-likelihood: among how many equally likely tokens it would have to guess.
    pub fn value(&self) -> f64 {
        (self.nll / self.num_tokens as f64).exp()
    }
}

/// Scores `tokens` in windows that do not overlap; what is left over is not scored. In each, the first half is context
/// and each token of the second half is scored given all before it in the window. `seen` hears of each window's end.
///
/// # Errors
/// If not even one window is full, the window does not fit the model, or a step fails.
pub fn perplexity(
    model: &LoadedModel,
    tokens: &[u32],
    window: usize,
    mut seen: impl FnMut(Perplexity),
) -> Result<Perplexity, EngineError> {
    let refuse = |reason: String| Err(EngineError::Config(reason));
    let most = model.max_model_len().min(model.config().kv_cache_tokens / BLOCK_SIZE * BLOCK_SIZE);
    if !(4..=most).contains(&window) {
        return refuse(format!("the window has {window} tokens, but must have between 4 and {most}"));
    }
    if tokens.len() < window {
        let len = tokens.len();
        return refuse(format!("the text has {len} tokens, but one window has {window}; take a longer text"));
    }
    let mut backend = model.backend(BLOCK_SIZE)?;
    let mut total = Perplexity::default();
    for window in tokens.chunks_exact(window) {
        let first_scored = window.len() / 2;
        for start in (0..window.len() - 1).step_by(ROWS_PER_STEP) {
            let end = (start + ROWS_PER_STEP).min(window.len() - 1);
            let scored: Vec<usize> = (start..end).filter(|position| position + 1 >= first_scored).collect();
            let mut logits = backend.forward(&step(window, start, end, &scored))?;
            for (row, position) in logits.rows().zip(scored) {
                let scored = score(row, window[position + 1], 0)
                    .map_err(|error| EngineError::Config(format!("position {position}: {error}")))?;
                total.nll -= f64::from(scored.logprob);
                total.num_tokens += 1;
            }
        }
        seen(total);
    }
    Ok(total)
}

/// Some positions of one sequence that lies at the cache's start.
fn step(window: &[u32], start: usize, end: usize, scored: &[usize]) -> Batch {
    let positions: Vec<u32> = (start as u32..end as u32).collect();
    let sequence = BatchSequence {
        row: 0,
        len: end - start,
        start,
        block_table: (0..end.div_ceil(BLOCK_SIZE) as u32).collect(),
        num_logits: scored.len(),
    };
    Batch {
        tokens: window[start..end].to_vec(),
        slots: positions.clone(),
        positions,
        sequences: vec![sequence],
        logit_rows: scored.iter().map(|position| (position - start) as u32).collect(),
        block_size: BLOCK_SIZE,
    }
}
