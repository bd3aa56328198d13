//! What computes a step: the transformer here, a simulated device in [`crate::simulated`].

use std::sync::Arc;

use crate::EngineError;
use crate::model::{Batch, Transformer};
use crate::ops::Ops;
use crate::simulated::{Simulation, StepPace};

/// Computes batches over its own KV-cache.
pub trait Backend: Send {
    /// Logits for each of the batch's `logit_rows`.
    fn forward(&mut self, batch: &Batch) -> Result<Logits, EngineError>;

    /// Logits that are done with, whose memory the next step may use.
    fn take_back(&mut self, _logits: Logits) {}

    /// There is nothing to compute: the time until the next step belongs to none.
    fn rest(&mut self) {}

    /// What steers it from outside, if it only simulates.
    fn simulation(&self) -> Option<Arc<Simulation>> {
        None
    }

    /// How well the last step kept to its time, if it was simulated.
    fn pace(&self) -> Option<StepPace> {
        None
    }
}

/// Rows of logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    vocab_size: usize,
}

impl Logits {
    /// From (rows · vocabulary) numbers.
    pub fn new(values: Vec<f32>, vocab_size: usize) -> Self {
        assert!(vocab_size > 0 && values.len().is_multiple_of(vocab_size), "logits come in whole rows");
        Self { values, vocab_size }
    }

    /// One slice a row.
    pub fn rows(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.vocab_size.max(1))
    }
}

/// As many numbers are kept between steps, 32 MiB: those of a batch, but not of a long prompt that is scored.
const LOGITS_KEPT: usize = 8 << 20;

/// A real model.
#[derive(Debug)]
pub struct TransformerBackend<O> {
    model: Arc<Transformer>,
    ops: O,
    /// Of the step before: fresh memory of that size would cost more than what is computed for some of it.
    logits: Vec<f32>,
}

impl<O: Ops> TransformerBackend<O> {
    /// Shared weights, and operations with a KV-cache of their own.
    pub fn new(model: Arc<Transformer>, ops: O) -> Self {
        Self { model, ops, logits: Vec::new() }
    }
}

impl<O: Ops> Backend for TransformerBackend<O> {
    fn forward(&mut self, batch: &Batch) -> Result<Logits, EngineError> {
        let mut logits = std::mem::take(&mut self.logits);
        self.model.forward(batch, &mut self.ops, &mut logits)?;
        Ok(Logits::new(logits, self.model.config().vocab_size))
    }

    fn take_back(&mut self, logits: Logits) {
        if logits.values.capacity() <= LOGITS_KEPT {
            self.logits = logits.values;
        }
    }
}
