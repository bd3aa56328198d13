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
use crate::state::State;

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
    step: Arc<str>,
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
                    models.insert(model.clone(), Watched::new(observe.clone()));
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

    /// Looks at a call that has its version: its prompt may be a sample, and it may be copied to another version.
    pub(crate) fn meet(&self, call: &mut Call) -> Option<Mirror> {
        let is_watched = self.active.load(Ordering::Relaxed) && call.endpoint.generates();
        // Who asks for a version by name is not a user of whatever version is assigned.
        if !is_watched || call.wanted_version.is_some() {
            return None;
        }
        let mut models = self.lock();
        let watched = models.get_mut(&*call.model)?;
        call.step = Some(Arc::clone(&watched.step));
        watched.sample(call);
        let version = watched.observe.mirror_to.clone()?;
        watched.turn += watched.observe.mirror.min(RouteTable::WEIGHT_TOTAL);
        let due = watched.turn >= RouteTable::WEIGHT_TOTAL;
        watched.turn %= RouteTable::WEIGHT_TOTAL;
        drop(models);
        let permit = Arc::clone(&self.mirrors).try_acquire_owned().ok().filter(|_| due)?;
        Some(Mirror { version: version.into(), _permit: permit })
    }

    /// Opens the page of the version that a call was assigned, if the step in which that was goes on. What belongs to
    /// another step is no evidence: of its answers only long ones would come in.
    fn write(&self, call: &Call, entry: impl FnOnce(&mut Ledger, &str)) {
        let (Some(step), Some(version)) = (&call.step, &call.version) else { return };
        if let Some(watched) = self.lock().get_mut(&*call.model).filter(|watched| watched.step == *step) {
            entry(&mut watched.ledger, version);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn new(observe: Observe) -> Self {
        let (step, ledger) = (observe.step.as_str().into(), Ledger::new(&observe.step, USERS_MAX));
        Self { observe, step, ledger, prompts: Vec::new(), prompted: None, turn: 0 }
    }

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

/// What an attempt that came to nothing says about its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    Failed,
    Refused,
    Nothing,
}

/// An attempt at a worker, as it goes. It is evidence once it is dropped, however that comes about: a client that leaves
/// a slow answer has seen how slow it was.
pub(crate) struct Underway {
    state: Arc<State>,
    call: Arc<Call>,
    /// Whether it says something about the version that was assigned; that of another one says nothing about either.
    counts: bool,
    seen: Seen,
    /// Its last byte came.
    ended: Option<Instant>,
    ending: Ending,
    first_text: Option<Instant>,
    last_text: Option<Instant>,
    chunks: u64,
    usage: Option<TokenCounts>,
}

impl Underway {
    pub(crate) fn begin(state: &Arc<State>, call: &Arc<Call>, claim: &Claim) -> Self {
        let counts = call.step.is_some() && claim.version() == call.version.as_ref();
        if counts {
            state.observer.write(call, Ledger::begin);
        }
        Self {
            state: Arc::clone(state),
            call: Arc::clone(call),
            counts,
            seen: Seen { user: call.sticky.as_u64(), ..Seen::default() },
            ended: None,
            ending: Ending::default(),
            first_text: None,
            last_text: None,
            chunks: 0,
            usage: None,
        }
    }

    /// It came to nothing.
    pub(crate) fn broke_off(&mut self, end: AttemptEnd) {
        match end {
            AttemptEnd::Failed => self.seen.failed = true,
            AttemptEnd::Refused => self.seen.refused = true,
            AttemptEnd::Nothing => self.counts = false,
        }
    }

    /// A part of the answer's end.
    pub(crate) fn see_ending(&mut self, ending: Ending) {
        self.ending.add(ending.has_text, ending.end);
    }

    /// Text came; the time of the text before it.
    pub(crate) fn see_text(&mut self, now: Instant) -> Option<Instant> {
        self.chunks += 1;
        self.first_text.get_or_insert(now);
        self.last_text.replace(now)
    }

    pub(crate) fn see_usage(&mut self, usage: Option<TokenCounts>) {
        self.usage = usage;
    }

    /// The last byte came.
    pub(crate) fn end(&mut self) {
        self.ended = Some(Instant::now());
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let is_whole = self.ended.is_some();
        let (arrived, last) = (self.call.trail.arrived, self.ended.unwrap_or_else(Instant::now));
        let nothing_yet = (self.call.stream && !is_whole).then_some(last);
        let tokens = self.usage.map_or(self.chunks, |usage| usage.completion_tokens);
        let gaps = tokens.saturating_sub(1);
        let between = self.first_text.zip(self.last_text).filter(|_| gaps > 0);
        let seen = Seen {
            whole: is_whole,
            truncated: self.ending.end != Some(End::Complete),
            empty: !self.ending.has_text,
            uncached_tokens: self.usage.map_or(0, |usage| usage.uncached_tokens()),
            time_to_first_token_s: self
                .first_text
                .or(nothing_yet)
                .map(|moment| (moment - arrived).as_secs_f64()),
            inter_token_s: between.map(|(first, last)| (last - first).as_secs_f64() / gaps as f64),
            end_to_end_s: Some((last - arrived).as_secs_f64()),
            ..self.seen
        };
        self.state.observer.write(&self.call, |ledger, version| ledger.record(version, &seen));
    }
}
