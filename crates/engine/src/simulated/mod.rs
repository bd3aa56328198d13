//! A device that is not there: steps take as long as its profile says, and answers are words that follow from the
//! whole prompt.
//!
//! In place of keys and values each slot of the KV-cache keeps one number, the hash of the slot before and the token.
//! So an answer depends on every token before it, through the blocks that the scheduler hands out: chunks, preemption
//! and prefix hits change nothing, and a block shared by mistake shows as another answer. One word is certain at each
//! step, so that no temperature and no seed matter, and the end of a text never comes, so that answers have the length
//! that was asked for.

mod clock;
mod control;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use profile::Profile;

use crate::model::{Batch, BatchSequence};
use crate::sampling::{STEP, mix};
use crate::{Backend, EngineError, Logits};
use clock::StepClock;
pub use clock::{CATCH_UP_MAX, StepPace};
pub use control::Simulation;
pub(crate) use words::WORDS;

/// The logit of every word but the chosen one: likely under no temperature, and a number in JSON.
const UNLIKELY: f32 = -1000.0;

/// The hash of nothing.
const ROOT: u64 = STEP;

/// Computes nothing but hashes, and waits.
#[derive(Debug)]
pub(crate) struct SimulatedBackend {
    profile: Arc<Profile>,
    /// One hash a slot of the KV-cache.
    slots: Vec<u64>,
    vocab_size: usize,
    clock: StepClock,
    simulation: Arc<Simulation>,
    pace: Option<StepPace>,
}

impl SimulatedBackend {
    pub(crate) fn new(profile: Arc<Profile>, num_slots: usize, vocab_size: usize) -> Self {
        let (clock, simulation) = (StepClock::default(), Arc::new(Simulation::default()));
        Self { profile, slots: vec![0; num_slots], vocab_size, clock, simulation, pace: None }
    }

    /// Writes the hashes of a run and returns that of each of its rows at which logits are wanted.
    fn hash_run(&mut self, batch: &Batch, run: &BatchSequence, wanted: &mut Vec<u64>) {
        let mut hash = run.start.checked_sub(1).map_or(ROOT, |before| {
            let block = run.block_table[before / batch.block_size] as usize;
            self.slots[block * batch.block_size + before % batch.block_size]
        });
        for row in run.row..run.row + run.len {
            hash = scrambled(hash ^ u64::from(batch.tokens[row]));
            self.slots[batch.slots[row] as usize] = hash;
            if row >= run.row + run.len - run.num_logits {
                wanted.push(hash);
            }
        }
    }
}

impl Backend for SimulatedBackend {
    fn forward(&mut self, batch: &Batch) -> Result<Logits, EngineError> {
        let shape = batch.sequences.iter().map(|run| (run.len, run.start)).collect();
        let step_us = self.profile.step_time_us(&shape);
        let started = self.clock.start();
        let mut hashes = Vec::with_capacity(batch.logit_rows.len());
        for run in &batch.sequences {
            self.hash_run(batch, run, &mut hashes);
        }
        let mut values = vec![UNLIKELY; hashes.len() * self.vocab_size];
        let is_garbage = self.simulation.is_garbage();
        for (row, hash) in values.chunks_exact_mut(self.vocab_size).zip(hashes) {
            let hash = if is_garbage { scrambled(!hash) } else { hash };
            row[hash as usize % WORDS.len()] = 0.0;
        }
        self.pace = Some(self.clock.finish(started, step_us, &self.simulation));
        Ok(Logits::new(values, self.vocab_size))
    }

    fn rest(&mut self) {
        self.clock.rest();
    }

    fn simulation(&self) -> Option<Arc<Simulation>> {
        Some(Arc::clone(&self.simulation))
    }

    fn pace(&self) -> Option<StepPace> {
        self.pace
    }
}

/// No two inputs share a result, and every bit of it depends on every bit of the input.
fn scrambled(input: u64) -> u64 {
    mix(input.wrapping_add(STEP))
}
