//! What a person sees while a run is on: how far it is, whether it keeps its plan, latencies so far, errors. On a
//! terminal it is redrawn in place, a few times a second; else it is one line each ten seconds.
//!
//! It has a thread of its own, for the moments that matter most are those in which no record comes.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arrivals::Shard;
use crate::metrics::Metrics;
use crate::scenario::{Arrivals, Scenario};

mod lines;

use lines::{Flow, Seen};

/// How often a terminal is redrawn, and how old what it shows may be.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(10);

/// What the run is to do, as far as a person waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Requests of the whole run, where the scenario says.
    pub(crate) requests: Option<u64>,
    /// Seconds of the whole run, where it says.
    pub(crate) duration_s: Option<f64>,
    /// Requests a second, where they are the same throughout.
    pub(crate) rate: Option<f64>,
}

impl Plan {
    /// The plan of one process's part of `scenario`.
    pub(crate) fn of(scenario: &Scenario, shard: Shard) -> Self {
        let rate = match &scenario.arrivals {
            Arrivals::Constant { rate } | Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } => {
                Some(*rate)
            }
            _ => None,
        };
        Self {
            requests: scenario.requests.map(|all| shard.share(all)),
            duration_s: scenario.duration_s,
            rate: rate.map(|rate| rate / f64::from(shard.count)),
        }
    }
}

/// What whoever sends tells of the measured run, while no record has come of it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    started: OnceLock<Instant>,
    sent: AtomicU64,
}

impl Progress {
    /// The measured run starts now; before, the warm-up is shown.
    pub(crate) fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// A request was handed to the client.
    pub(crate) fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

struct Shared {
    plan: Plan,
    progress: Arc<Progress>,
    /// Requests that were sent and have ended; newer than what was seen, lest those in flight seem too many.
    done: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    seen: Seen,
    over: bool,
}

/// A view at work. It ends with [`Self::finish`] or when it is dropped.
pub(crate) struct Live {
    shared: Arc<Shared>,
    updated: Option<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("plan", &self.shared.plan).finish_non_exhaustive()
    }
}

impl Live {
    /// Starts to show, on standard error.
    pub(crate) fn start(plan: Plan, progress: Arc<Progress>) -> Self {
        let state = Mutex::new(State { seen: Seen::default(), over: false });
        let shared =
            Arc::new(Shared { plan, progress, done: AtomicU64::new(0), state, changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("live".into()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                if std::io::stderr().is_terminal() {
                    redraw(&shared);
                } else {
                    write_lines(&shared);
                }
            }
        });
        // Without a thread nothing is shown, which harms no measurement.
        Self { shared, updated: None, thread: thread.ok() }
    }

    /// Takes over what is known. Cheap when called for each record: most calls do nothing.
    pub(crate) fn update(&mut self, metrics: &Metrics, warmup_ended: u64) {
        self.shared.done.store(metrics.ended() - metrics.counts.unsent, Ordering::Relaxed);
        let now = Instant::now();
        if self.updated.is_some_and(|updated| now.duration_since(updated) < REDRAW) {
            return;
        }
        self.updated = Some(now);
        let seen = Seen::of(metrics, warmup_ended);
        self.lock().seen = seen;
    }

    /// Stops to show, and clears what was drawn in place.
    pub(crate) fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.lock().over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Waits for `pause` and gives what is then to be shown; nothing once the run is over.
    fn next(&self, pause: Duration) -> Option<Vec<String>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, pause, |state| !state.over);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return None;
        }
        let elapsed_s = self.progress.started.get().map(|started| started.elapsed().as_secs_f64());
        // What has ended was sent, whether or not it was counted.
        let done = self.done.load(Ordering::Relaxed);
        let sent = self.progress.sent.load(Ordering::Relaxed).max(done);
        Some(lines::lines(&self.plan, &state.seen, elapsed_s, Flow { sent, in_flight: sent - done }))
    }
}

/// All lines are one bar's message, so that they are drawn at once.
fn redraw(shared: &Shared) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
    while let Some(lines) = shared.next(REDRAW) {
        bar.set_message(lines.join("\n"));
    }
    bar.finish_and_clear();
}

fn write_lines(shared: &Shared) {
    while let Some(lines) = shared.next(LINE) {
        let _ = writeln!(std::io::stderr(), "{}", lines::one_line(&lines));
    }
}
