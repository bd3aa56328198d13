//! What is seen of versions while a rollout is on, for whoever judges it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evidence::{Evidence, Ledger, Seen};
use routing::{ModelRoutes, Observe, RouteTable};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::call::{Call, End, Ending, TokenCounts};
use crate::pool::Claim;

/// Users told apart in one step; some 16 bytes each.
const USERS_MAX: usize = 200_000;
/// Prompts that wait to be told, and the longest that is.
const PROMPTS_MAX: usize = 64;
const PROMPT_BYTES_MAX: usize = 32 << 10;
/// Copies under way: they must not crowd out the requests that they are copies of.
const MIRRORS_MAX: usize = 64;

/// Gathers evidence for the steps that the route table names. Without a rollout it costs a look at a flag.
#[derive(Debug)]
pub(crate) struct Observer {
    active: AtomicBool,
    models: Mutex<HashMap<String, Watched>>,
    mirrors: Arc<Semaphore>,
}

#[derive(Debug)]
struct Watched {
    observe: Observe,
    ledger: Ledger,
    prompts: Vec<String>,
    prompted: Option<Instant>,
    /// Counts requests, so that copies are taken evenly.
    turn: u32,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            active: AtomicBool::new(false),
            models: Mutex::default(),
            mirrors: Arc::new(Semaphore::new(MIRRORS_MAX)),
        }
    }
}

impl Observer {
    /// Begins, goes on or ends, as the routes say.
    pub(crate) fn follow(&self, routes: &BTreeMap<String, ModelRoutes>) {
        let mut models = self.lock();
        models.retain(|model, _| routes.get(model).is_some_and(|routes| routes.observe.is_some()));
        for (model, routes) in routes {
            let Some(observe) = &routes.observe else { continue };
            match models.get_mut(model) {
                Some(watched) if watched.observe.step == observe.step => watched.observe = observe.clone(),
                _ => {
                    let ledger = Ledger::new(&observe.step, USERS_MAX);
                    let (prompts, prompted, turn) = (Vec::new(), None, 0);
                    let watched = Watched { observe: observe.clone(), ledger, prompts, prompted, turn };
                    models.insert(model.clone(), watched);
                }
            }
        }
        self.active.store(!models.is_empty(), Ordering::Relaxed);
    }

    /// What was seen of a model, and the prompts that were sampled since this was last asked for.
    pub(crate) fn take(&self, model: &str) -> (Option<Evidence>, Vec<String>) {
        self.lock().get_mut(model).map_or_else(Default::default, |watched| {
            (Some(watched.ledger.evidence()), std::mem::take(&mut watched.prompts))
        })
    }

    /// Looks at a call that has its model: its prompt may be a sample, and it may be copied to a version.
    pub(crate) fn meet(&self, call: &Call) -> Option<Mirror> {
        if !self.looks_at(call) {
            return None;
        }
        let mut models = self.lock();
        let watched = models.get_mut(&*call.model)?;
        watched.sample(call);
        let version = watched.observe.mirror_to.clone()?;
        watched.turn += watched.observe.mirror.min(RouteTable::WEIGHT_TOTAL);
        let due = watched.turn >= RouteTable::WEIGHT_TOTAL;
        watched.turn %= RouteTable::WEIGHT_TOTAL;
        drop(models);
        let permit = Arc::clone(&self.mirrors).try_acquire_owned().ok().filter(|_| due)?;
        Some(Mirror { version: version.into(), _permit: permit })
    }

    /// Takes an attempt in. An answer of a version that was not assigned says nothing about either.
    pub(crate) fn record(&self, call: &Call, claim: &Claim, attempt: &AttemptSeen) {
        if !self.looks_at(call) {
            return;
        }
        let Some(version) =
            call.version.as_deref().filter(|version| claim.version().is_some_and(|v| **v == **version))
        else {
            return;
        };
        if let Some(watched) = self.lock().get_mut(&*call.model) {
            watched.ledger.record(version, &attempt.seen(call, claim));
        }
    }

    /// Whether a rollout is on, and the call is one that a user makes of whatever version is assigned.
    fn looks_at(&self, call: &Call) -> bool {
        self.active.load(Ordering::Relaxed) && call.endpoint.generates() && call.wanted_version.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn sample(&mut self, call: &Call) {
        let every_s = 60.0 / f64::from(self.observe.prompts_per_min);
        let due = self.prompted.is_none_or(|last| last.elapsed().as_secs_f64() >= every_s);
        if !due || self.prompts.len() >= PROMPTS_MAX || call.body.len() > PROMPT_BYTES_MAX {
            return;
        }
        if let (Ok(body), true) = (std::str::from_utf8(&call.body), self.observe.prompts_per_min > 0) {
            self.prompts.push(body.to_owned());
            self.prompted = Some(Instant::now());
        }
    }
}

/// A copy of a request that a version is to answer for nobody.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) version: Arc<str>,
    _permit: OwnedSemaphorePermit,
}

/// An attempt at a worker, as it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AttemptSeen {
    pub(crate) failed: bool,
    /// Its last byte came.
    pub(crate) ended: Option<Instant>,
    pub(crate) first_text: Option<Instant>,
    pub(crate) last_text: Option<Instant>,
    pub(crate) ending: Ending,
    pub(crate) usage: Option<TokenCounts>,
    pub(crate) chunks: u64,
}

impl AttemptSeen {
    /// One that came to nothing.
    pub(crate) fn failed() -> Self {
        Self { failed: true, ..Self::default() }
    }

    fn seen(&self, call: &Call, claim: &Claim) -> Seen {
        let since =
            |moment: Option<Instant>, from: Instant| moment.map(|moment| (moment - from).as_secs_f64());
        let arrived = call.trail.arrived;
        let tokens = self.usage.map_or(self.chunks, |usage| usage.completion_tokens);
        let gaps = tokens.saturating_sub(1);
        let between = self.first_text.and_then(|first| since(self.last_text, first)).filter(|_| gaps > 0);
        let is_whole = self.ended.is_some();
        Seen {
            user: call.sticky.as_u64(),
            replica: Arc::clone(claim.name()),
            failed: self.failed,
            truncated: is_whole && self.ending.end != Some(End::Complete),
            empty: is_whole && !self.ending.has_text,
            uncached_tokens: self.usage.map_or(0, |usage| usage.uncached_tokens()),
            time_to_first_token_s: since(self.first_text, arrived),
            inter_token_s: between.map(|seconds| seconds / gaps as f64),
            end_to_end_s: since(self.ended, arrived),
        }
    }
}
