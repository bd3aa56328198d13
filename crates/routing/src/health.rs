//! Whether a worker can be sent requests, from its probes and from what became of requests sent there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::HealthConfig;

/// What is thought of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Nothing was heard of it yet; tried only where no healthy one is left.
    #[default]
    Unknown,
    /// It answers.
    Healthy,
    /// It failed; tried only where nothing better is left.
    Unhealthy,
    /// It asked for no new requests, and never gets one.
    Draining,
}

/// What came of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The worker takes requests.
    Ready,
    /// It finishes what it has and takes no more.
    Draining,
    /// It did not answer in time, or not as it should.
    Failed,
}

/// What came of one request, as far as it tells about the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, be it an error that blames the client.
    Success,
    /// No connection: refused, unreachable, or not set up in time.
    ConnectFailed,
    /// The connection ended before the answer did.
    BrokenOff,
    /// A status of 500 or above.
    ServerError,
    /// A status of 429: the worker is well, and full.
    Overloaded,
}

/// One worker's state machine. Times are since any fixed moment.
///
/// A refused connection takes a worker out at once; other failures and failed probes do when several come in a row.
/// It is out for a time that doubles with each further failure soon after a return, so that one that keeps dying
/// comes back ever more slowly, and it returns only after good probes. A worker that never was healthy, such as one
/// that still loads its model, returns with its first good probes, however long they took.
#[derive(Clone, Debug)]
pub struct Health {
    config: HealthConfig,
    phase: HealthState,
    probe_failures: u32,
    probe_successes: u32,
    /// What its last probe found, and no connection has denied since.
    answers_probes: bool,
    request_failures: u32,
    /// How often it was taken out without being forgiven since.
    ejections: u32,
    /// When the last ejection ends.
    ejected_until: Duration,
    /// Set when enough probes were good, for the moment when its ejection ends too.
    returns_at: Option<Duration>,
    healthy_since: Duration,
}

impl Health {
    /// A worker of which nothing was heard.
    pub fn new(config: &HealthConfig) -> Self {
        Self {
            config: config.clone(),
            phase: HealthState::Unknown,
            probe_failures: 0,
            probe_successes: 0,
            answers_probes: false,
            request_failures: 0,
            ejections: 0,
            ejected_until: Duration::ZERO,
            returns_at: None,
            healthy_since: Duration::ZERO,
        }
    }

    /// The state at this moment.
    pub fn state(&self, now: Duration) -> HealthState {
        if self.returns_at.is_some_and(|time| time <= now) { HealthState::Healthy } else { self.phase }
    }

    /// Whether a request may be sent there if nobody better is left: it is healthy, or was taken out for what became
    /// of requests while it goes on answering probes. Requests that fail anywhere must not close the only door.
    pub fn can_serve(&self, now: Duration) -> bool {
        match self.state(now) {
            HealthState::Healthy => true,
            HealthState::Unhealthy => self.answers_probes,
            HealthState::Unknown | HealthState::Draining => false,
        }
    }

    /// Whether so many probes in a row found nobody that what it has under way is given up too.
    pub fn is_silent(&self) -> bool {
        self.probe_failures >= self.config.probe_failures_max
    }

    /// Takes note of a probe.
    pub fn on_probe(&mut self, now: Duration, result: ProbeResult) {
        self.settle(now);
        self.answers_probes = result == ProbeResult::Ready;
        match result {
            ProbeResult::Ready => {
                self.probe_failures = 0;
                self.probe_successes = self.probe_successes.saturating_add(1);
                let enough = match self.phase {
                    HealthState::Healthy => false,
                    HealthState::Unknown => true,
                    HealthState::Unhealthy | HealthState::Draining => {
                        self.probe_successes >= self.config.probe_successes_min
                    }
                };
                if enough && self.returns_at.is_none() {
                    self.returns_at = Some(now.max(self.ejected_until));
                    self.settle(now);
                }
            }
            ProbeResult::Draining => {
                self.phase = HealthState::Draining;
                self.probe_failures = 0;
                self.distrust();
            }
            ProbeResult::Failed => {
                self.probe_failures = self.probe_failures.saturating_add(1);
                self.distrust();
                if self.probe_failures >= self.config.probe_failures_max {
                    self.take_out(now);
                }
            }
        }
    }

    /// Takes note of a request's end.
    pub fn on_outcome(&mut self, now: Duration, outcome: Outcome) {
        self.settle(now);
        match outcome {
            Outcome::Success => {
                self.request_failures = 0;
                // A worker that answers requests lives, even where it is too busy to answer probes in time.
                self.probe_failures = 0;
                if self.phase == HealthState::Unknown {
                    self.enter_healthy(now);
                }
            }
            Outcome::ConnectFailed => {
                self.answers_probes = false;
                self.distrust();
                self.take_out(now);
            }
            Outcome::BrokenOff | Outcome::ServerError => {
                self.request_failures = self.request_failures.saturating_add(1);
                if self.request_failures >= self.config.request_failures_max {
                    self.take_out(now);
                }
            }
            Outcome::Overloaded => {}
        }
    }

    /// Makes a return that became due by time alone.
    fn settle(&mut self, now: Duration) {
        if let Some(time) = self.returns_at.filter(|time| *time <= now) {
            self.enter_healthy(time);
        }
    }

    fn enter_healthy(&mut self, since: Duration) {
        self.phase = HealthState::Healthy;
        self.healthy_since = since;
        self.probe_failures = 0;
        self.request_failures = 0;
        self.distrust();
    }

    /// Good probes so far count for nothing any more.
    fn distrust(&mut self) {
        self.probe_successes = 0;
        self.returns_at = None;
    }

    fn take_out(&mut self, now: Duration) {
        match self.phase {
            HealthState::Healthy => {
                if now.saturating_sub(self.healthy_since)
                    >= Duration::from_millis(self.config.forgive_after_ms)
                {
                    self.ejections = 0;
                }
                let doublings = 1_u64.checked_shl(self.ejections).unwrap_or(u64::MAX);
                let ejection_ms = self.config.ejection_base_ms.saturating_mul(doublings);
                let ejection = Duration::from_millis(ejection_ms.min(self.config.ejection_max_ms));
                self.ejected_until = now.saturating_add(ejection);
                self.ejections = self.ejections.saturating_add(1);
                self.phase = HealthState::Unhealthy;
                self.distrust();
            }
            HealthState::Unknown => self.phase = HealthState::Unhealthy,
            // One that drains ends soon: refused connections are then no news, and it must not be tried.
            HealthState::Unhealthy | HealthState::Draining => {}
        }
    }
}

#[cfg(test)]
mod tests;
