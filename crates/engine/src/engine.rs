//! The handle to an engine's thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use scheduler::{Scheduler, Stats, StepPlan};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::simulated::{Simulation, StepPace};
use crate::step::{StepLoop, Submission};
use crate::tokenizer::Tokenizer;
use crate::{Backend, EngineError, Event, LoadedModel, Request};

/// Every place in the batch and in line is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {places} places are taken")]
pub struct Overloaded {
    /// Places in the batch and in line together.
    pub places: usize,
}

/// A place in the engine, held until its request ends.
#[derive(Debug)]
pub struct Reservation(#[expect(dead_code, reason = "dropping it is its use")] OwnedSemaphorePermit);

/// A moment's view of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Queue, batch and blocks.
    pub stats: Stats,
    /// False once a step has failed; the engine then takes no more.
    pub healthy: bool,
}

/// What one step did, for metrics and logs.
#[derive(Clone, Copy, Debug)]
pub struct StepReport<'a> {
    /// What was computed.
    pub plan: &'a StepPlan,
    /// Tokens computed.
    pub num_tokens: usize,
    /// Sequences computed.
    pub num_sequences: usize,
    /// Tokens of prompts that came to be in the cache, computed or found there; those computed anew after a
    /// preemption do not count again.
    pub num_prompt_tokens: usize,
    /// Tokens generated, whether anybody reads them or not.
    pub num_generated_tokens: usize,
    /// From planning to the last event sent.
    pub duration: Duration,
    /// After the step.
    pub stats: Stats,
    /// How well it kept to its time, if it was simulated.
    pub pace: Option<StepPace>,
}

/// Called by the engine's thread after each step; must be quick.
pub type Observer = Box<dyn Fn(&StepReport<'_>) + Send>;

/// What thread and handle share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stats: Mutex<Stats>,
    failed: AtomicBool,
}

impl Shared {
    pub(crate) fn publish(&self, stats: Stats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// A handle to one engine. Clones share it; the thread ends when the last is dropped and its requests have ended.
#[derive(Clone, Debug)]
pub struct Engine {
    submissions: mpsc::Sender<Submission>,
    places: Arc<Semaphore>,
    num_places: usize,
    shared: Arc<Shared>,
    simulation: Option<Arc<Simulation>>,
}

impl Engine {
    /// Starts a thread for a model, with a KV-cache of its own.
    pub fn start(
        model: &LoadedModel,
        config: scheduler::Config,
        observer: Observer,
    ) -> Result<(Self, JoinHandle<()>), EngineError> {
        let num_blocks = model.config().kv_cache_tokens / config.block_size.max(1);
        let mut config = scheduler::Config { num_blocks, ..config };
        if model.is_simulated() {
            // What a device would take for guesses is in no profile, and made-up answers repeat nothing.
            config.speculative.num_speculative_tokens = 0;
        }
        config.validate().map_err(|error| EngineError::Config(format!("`scheduler`: {error}")))?;
        let backend = model.backend(config.block_size)?;
        Self::start_with(backend, Arc::clone(model.tokenizer()), config, observer)
    }

    /// Starts a thread for any backend.
    pub fn start_with(
        backend: Box<dyn Backend>,
        tokenizer: Arc<Tokenizer>,
        config: scheduler::Config,
        observer: Observer,
    ) -> Result<(Self, JoinHandle<()>), EngineError> {
        let num_places = config.max_num_seqs + config.max_num_waiting;
        // Places are counted here, before any work; the scheduler's own bound must not refuse what got one.
        let config = scheduler::Config { max_num_waiting: num_places, ..config };
        let scheduler = Scheduler::new(config).map_err(|error| EngineError::Config(error.to_string()))?;
        let (submissions, inbox) = mpsc::channel(num_places);
        let shared = Arc::new(Shared::default());
        shared.publish(scheduler.stats());
        let simulation = backend.simulation();
        let step_loop = StepLoop::new(scheduler, backend, tokenizer, inbox, Arc::clone(&shared), observer);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || step_loop.run())?;
        let places = Arc::new(Semaphore::new(num_places));
        Ok((Self { submissions, places, num_places, shared, simulation }, thread))
    }

    /// Takes a place, or says at once that there is none: nothing has been tokenized by then.
    pub fn reserve(&self) -> Result<Reservation, Overloaded> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.map(Reservation).map_err(|_| Overloaded { places: self.num_places })
    }

    /// Hands a request to the engine's thread. Dropping the receiver cancels it.
    pub fn submit(&self, place: Reservation, request: Request) -> Result<mpsc::Receiver<Event>, EngineError> {
        // Room for every event there can be: the thread never waits for a slow reader.
        let (events, receiver) = mpsc::channel(request.max_tokens + 3);
        self.submissions
            .try_send(Submission::new(place, request, events))
            .map_err(|_| EngineError::Stopped)?;
        Ok(receiver)
    }

    /// What steers the engine's time and words, if they are simulated.
    pub fn simulation(&self) -> Option<&Arc<Simulation>> {
        self.simulation.as_ref()
    }

    /// Queue, batch, blocks and health as of the last step.
    pub fn load(&self) -> EngineLoad {
        let stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        EngineLoad {
            stats,
            healthy: !self.shared.failed.load(Ordering::Acquire) && !self.submissions.is_closed(),
        }
    }
}
