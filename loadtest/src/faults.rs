//! What happens to servers while they are loaded: a kill, a pause, a fault that a simulated worker is told to have.
//!
//! Only workers on loopback addresses and processes of this machine and this user are touched, and each process is
//! looked up before the run: a number that has meanwhile gone to another process is left alone. A paused process goes
//! on when the run ends, whichever way it ends.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::report::Event;
use crate::scenario::{Fault, FaultAction};

mod inject;
mod process;

use inject::Injector;
use process::Process;

/// The latest moment of a fault: a week.
const AT_S_MAX: f64 = 7.0 * 86_400.0;

/// One thing to do at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    at_s: f64,
    what: String,
    act: Act,
}

#[derive(Clone, Debug, PartialEq)]
enum Act {
    Kill(u32),
    Pause(u32),
    Resume(u32),
    Inject { worker: String, fault: serde_json::Value },
}

/// The steps of `faults` in order of time; a pause is two.
fn steps(faults: &[Fault]) -> Result<Vec<Step>, Error> {
    let moment = |name: &str, value: f64| {
        if (0.0..=AT_S_MAX).contains(&value) {
            return Ok(value);
        }
        Err(Error::Config(format!(
            "a fault's {name} must be between 0 and {AT_S_MAX} seconds, but is {value}"
        )))
    };
    let mut steps = Vec::new();
    for fault in faults {
        let at_s = moment("at_s", fault.at_s)?;
        let mut step = |at_s: f64, what: String, act: Act| steps.push(Step { at_s, what, act });
        match &fault.action {
            FaultAction::Kill { pid } => step(at_s, format!("kill process {pid}"), Act::Kill(*pid)),
            FaultAction::Pause { pid, for_s } => {
                let for_s = moment("for_s", *for_s)?;
                step(at_s, format!("pause process {pid} for {for_s} s"), Act::Pause(*pid));
                step(at_s + for_s, format!("let process {pid} go on"), Act::Resume(*pid));
            }
            FaultAction::Inject { worker, fault } => {
                let act = Act::Inject { worker: worker.clone(), fault: fault.clone() };
                step(at_s, format!("tell {worker} {fault}"), act);
            }
        }
    }
    // Stable, so that what is written first comes first at one moment.
    steps.sort_by(|left, right| left.at_s.total_cmp(&right.at_s));
    Ok(steps)
}

/// Faults whose processes and workers were looked up, ready to happen.
#[derive(Debug)]
pub struct Timeline {
    steps: Vec<Step>,
    processes: Vec<Process>,
    injector: Injector,
}

impl Timeline {
    /// Looks everything up before the run.
    ///
    /// # Errors
    /// When a moment is out of range, a process does not exist or is not this user's, or a worker is not on loopback.
    pub fn new(faults: &[Fault]) -> Result<Self, Error> {
        let steps = steps(faults)?;
        let mut processes: Vec<Process> = Vec::new();
        for step in &steps {
            match &step.act {
                Act::Kill(pid) | Act::Pause(pid) | Act::Resume(pid) => {
                    if processes.iter().all(|process| process.pid() != *pid) {
                        processes.push(Process::find(*pid)?);
                    }
                }
                Act::Inject { worker, .. } => inject::address(worker).map(drop)?,
            }
        }
        Ok(Self { steps, processes, injector: Injector::new() })
    }

    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Lets everything happen at its time after `started`, until all has or `stop` is cancelled; the caller cancels it
    /// when the run ends. Processes that are paused then go on. Dropping the future lets them go on, too.
    pub async fn run(self, started: Instant, stop: &CancellationToken) -> Vec<Event> {
        let mut running = Running {
            started,
            events: Vec::new(),
            paused: Paused(Vec::new()),
            injections: JoinSet::new(),
            injector: self.injector,
            processes: self.processes,
        };
        for step in self.steps {
            let due = started + Duration::from_secs_f64(step.at_s);
            if stop.run_until_cancelled(tokio::time::sleep_until(due)).await.is_none() {
                break;
            }
            running.act(step);
        }
        running.finish(stop).await
    }
}

struct Running {
    started: Instant,
    events: Vec<Event>,
    paused: Paused,
    /// Each on its own, for a hanging worker must not hold up what comes next.
    injections: JoinSet<Event>,
    injector: Injector,
    processes: Vec<Process>,
}

impl Running {
    fn act(&mut self, step: Step) {
        let at_s = self.started.elapsed().as_secs_f64();
        let find = |pid: u32| self.processes.iter().find(|process| process.pid() == pid).cloned();
        let outcome = match step.act {
            Act::Kill(pid) => find(pid).map_or(Ok(()), |process| process.kill()),
            Act::Pause(pid) => find(pid).map_or(Ok(()), |process| {
                let outcome = process.pause();
                self.paused.0.push(process);
                outcome
            }),
            Act::Resume(pid) => self.paused.resume(pid),
            Act::Inject { worker, fault } => {
                let (injector, what) = (self.injector.clone(), step.what);
                self.injections.spawn(async move {
                    let error = injector.post(&worker, &fault).await.err();
                    Event { at_s, what, error }
                });
                return;
            }
        };
        self.events.push(Event { at_s, what: step.what, error: outcome.err() });
    }

    async fn finish(mut self, stop: &CancellationToken) -> Vec<Event> {
        let injections = &mut self.injections;
        while let Some(Some(ended)) = stop.run_until_cancelled(injections.join_next()).await {
            self.events.extend(ended.ok());
        }
        // Those that have answered although the run is over.
        while let Some(ended) = self.injections.try_join_next() {
            self.events.extend(ended.ok());
        }
        let at_s = self.started.elapsed().as_secs_f64();
        for process in std::mem::take(&mut self.paused.0) {
            let what = format!("let process {} go on, for the run is over", process.pid());
            self.events.push(Event { at_s, what, error: process.resume().err() });
        }
        self.events.sort_by(|left, right| left.at_s.total_cmp(&right.at_s));
        self.events
    }
}

/// Processes that stand still; dropped, they go on.
#[derive(Debug)]
struct Paused(Vec<Process>);

impl Paused {
    fn resume(&mut self, pid: u32) -> Result<(), String> {
        // One of several pauses of a process ends all of them, as the signal does.
        let at = self.0.iter().position(|process| process.pid() == pid);
        let process = at.map(|at| self.0.remove(at)).ok_or("it does not stand still")?;
        self.0.retain(|other| other.pid() != pid);
        process.resume()
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = process.resume();
        }
    }
}

#[cfg(test)]
mod tests;
