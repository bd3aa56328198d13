//! The next step of a rollout, and why.

use serde::{Deserialize, Serialize};

use crate::state::{Outcome, Phase, Rollout};
use crate::{Assessment, Strategy, Verdict};

mod words;

/// How long the new version may be without a worker while it has users, in milliseconds. Gateways give its users to
/// the other version meanwhile.
const ABSENT_MAX_MS: u64 = 30_000;
/// How many of the last times to the first token must agree.
const SETTLED_TIMES: usize = 4;

/// What is known at the moment of planning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed<'a> {
    /// The judge's view of the step at hand.
    pub assessment: Option<&'a Assessment>,
    /// The fleet.
    pub fleet: Fleet,
    /// How warming up goes.
    pub warm: &'a [f64],
    /// Why the last prompt of warming up had no answer.
    pub warm_failure: Option<&'a str>,
}

/// Who could answer, and how much there is to answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Workers of the new version that take requests.
    pub canary_workers: u32,
    /// Workers of the stable version that take requests.
    pub stable_workers: u32,
    /// Requests that the new version's workers can compute at the same time; 0 where they do not say.
    pub canary_places: u32,
    /// The most requests of the model that were with workers at once lately, of all versions.
    pub in_flight: u32,
    /// The share of requests that the response cache answers now. A new version begins without it.
    pub hit_share: f64,
    /// Requests that are with the new version now.
    pub canary_in_flight: u32,
    /// Requests that are with the stable version now.
    pub stable_in_flight: u32,
    /// Since when no worker of the new version was up, in milliseconds since 1970.
    pub canary_absent_since_ms: Option<u64>,
    /// Gateways that were heard lately.
    pub gateways: u32,
    /// Those of them that route by the newest table.
    pub gateways_current: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing yet.
    Stay {
        /// What is waited for.
        reason: String,
    },
    /// The next phase begins.
    Go {
        /// Which.
        phase: Phase,
        /// What led to it.
        reason: String,
    },
}

impl Decision {
    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Stay { reason } | Self::Go { reason, .. } => reason,
        }
    }

    fn stay(reason: impl Into<String>) -> Self {
        Self::Stay { reason: reason.into() }
    }

    fn go(phase: Phase, reason: impl Into<String>) -> Self {
        Self::Go { phase, reason: reason.into() }
    }

    fn revert(reason: impl Into<String>) -> Self {
        Self::go(Phase::Draining { outcome: Outcome::Reverted }, reason)
    }
}

/// What an owner may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Goes to the next step, whatever the evidence says.
    Promote,
    /// Gives the new version all users at once.
    PromoteFully,
    /// Gives the stable version all users at once.
    Abort,
    /// Moves no more users until it is resumed.
    Pause,
    /// Goes on.
    Resume,
}

/// Why a command cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Rollout {
    /// The rollout with its next phase.
    #[must_use]
    pub fn at(&self, phase: Phase, now_ms: u64) -> Self {
        let steps_taken = self.steps_taken + u64::from(matches!(phase, Phase::Step { .. }));
        // A step that is held goes on.
        let since_ms = if matches!(phase, Phase::Held { .. }) { self.since_ms } else { now_ms };
        Self { phase, since_ms, steps_taken, ..self.clone() }
    }

    /// Follows its owner, and says what that means. An abort is always possible before the end, and always leads to
    /// the stable version; users go only where a worker is, whoever asks.
    pub fn command(
        &self,
        command: Command,
        canary_workers: u32,
        now_ms: u64,
    ) -> Result<(Self, String), Refused> {
        let refuse = |why: String| Err(Refused(why));
        let outcome = match self.phase {
            Phase::Done { outcome } => {
                return refuse(format!("the rollout is over: it was {}", outcome.as_str()));
            }
            Phase::Draining { outcome } => Some(outcome),
            _ => None,
        };
        let go = |phase, reason: &str| Ok((self.at(phase, now_ms), format!("{reason}, as its owner asked")));
        match command {
            Command::Abort if outcome == Some(Outcome::Reverted) => {
                refuse("it is being reverted already".into())
            }
            Command::Abort => go(
                Phase::Draining { outcome: Outcome::Reverted },
                &format!("all users go back to {}", self.stable),
            ),
            Command::Pause if outcome.is_some() => {
                refuse("all users have moved already, and nothing is left to pause".into())
            }
            Command::Pause | Command::Resume => {
                let paused = command == Command::Pause;
                if paused == self.paused {
                    return refuse(format!("it is {} already", if paused { "paused" } else { "running" }));
                }
                let reason = if paused { "it moves no more users" } else { "it goes on" };
                Ok((Self { paused, ..self.clone() }, format!("{reason}, as its owner asked")))
            }
            Command::Promote | Command::PromoteFully => match outcome {
                Some(Outcome::Promoted) => refuse("it is being promoted already".into()),
                Some(_) => refuse("it is being reverted; start another one when that is done".into()),
                None if canary_workers == 0 => refuse(format!(
                    "no worker of {} takes requests, and its users would have no answers; start one first",
                    self.spec.to
                )),
                None => {
                    let next = match command {
                        Command::Promote => self.after_this(),
                        _ => Phase::Draining { outcome: Outcome::Promoted },
                    };
                    go(next, &words::going_to(self, next))
                }
            },
        }
    }

    /// What comes after the phase at hand when all is well.
    fn after_this(&self) -> Phase {
        let next = match self.phase {
            Phase::Warming => 0,
            Phase::Step { index } | Phase::Held { index } => index + 1,
            end => return end,
        };
        match &self.spec.strategy {
            Strategy::Canary { steps } if next < steps.len() => Phase::Step { index: next },
            Strategy::Canary { .. } => Phase::Draining { outcome: Outcome::Promoted },
            _ if next == 0 => Phase::Step { index: 0 },
            Strategy::BlueGreen { .. } => Phase::Draining { outcome: Outcome::Promoted },
            Strategy::Shadow { .. } | Strategy::Ab { .. } => Phase::Draining { outcome: Outcome::Reported },
        }
    }

    /// The next step. The same input gives the same answer; nothing is remembered.
    pub fn plan(&self, seen: &Observed<'_>, now_ms: u64) -> Decision {
        let elapsed_s = now_ms.saturating_sub(self.since_ms) / 1_000;
        match self.phase {
            Phase::Done { outcome } => Decision::stay(format!("it was {}", outcome.as_str())),
            Phase::Draining { outcome } => self.drain(outcome, seen, elapsed_s),
            Phase::Warming => self.warm(seen, elapsed_s),
            Phase::Step { index } | Phase::Held { index } => self.judge(index, seen, now_ms, elapsed_s),
        }
    }

    fn drain(&self, outcome: Outcome, seen: &Observed<'_>, elapsed_s: u64) -> Decision {
        let fleet = &seen.fleet;
        let promoted = outcome == Outcome::Promoted;
        let (loser, left) = if promoted {
            (&self.stable, fleet.stable_in_flight)
        } else {
            (&self.spec.to, fleet.canary_in_flight)
        };
        let done = Phase::Done { outcome };
        // A gateway that has not heard of it may still send requests there.
        let current = fleet.gateways > 0 && fleet.gateways_current == fleet.gateways;
        if current && left == 0 {
            return Decision::go(done, format!("no request is with {loser} any more: {}", outcome.as_str()));
        }
        if elapsed_s >= self.spec.drain_s {
            let reason = format!(
                "{left} requests are with {loser} after {elapsed_s} s and go on: {}",
                outcome.as_str()
            );
            return Decision::go(done, reason);
        }
        Decision::stay(format!("{left} requests are with {loser} still"))
    }

    fn warm(&self, seen: &Observed<'_>, elapsed_s: u64) -> Decision {
        let (to, warm) = (&self.spec.to, &self.spec.warm);
        let waiting = if seen.fleet.canary_workers == 0 {
            format!("no worker of {to} is up")
        } else if (seen.warm.len() as u64) < u64::from(warm.prompts_min) {
            let why =
                seen.warm_failure.map_or(String::new(), |why| format!("; the last had no answer: {why}"));
            format!("{} of {} prompts are answered{why}", seen.warm.len(), warm.prompts_min)
        } else if !settled(seen.warm, warm.settled_within) {
            "the times to the first token have not settled".to_owned()
        } else {
            return self.advance("it is warm", seen);
        };
        if elapsed_s >= warm.timeout_s {
            return Decision::revert(format!("{waiting}, and {} s are over", warm.timeout_s));
        }
        Decision::stay(waiting)
    }

    fn judge(&self, index: usize, seen: &Observed<'_>, now_ms: u64, elapsed_s: u64) -> Decision {
        let absent_ms = seen.fleet.canary_absent_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        let has_users = self.weight() > 0;
        if has_users && absent_ms >= ABSENT_MAX_MS {
            return Decision::revert(format!(
                "no worker of {} was up for {} s",
                self.spec.to,
                absent_ms / 1_000
            ));
        }
        let report_only = matches!(self.spec.strategy, Strategy::Shadow { .. } | Strategy::Ab { .. });
        if let Some(assessment) = seen.assessment {
            if assessment.guard_hit && has_users {
                return Decision::revert(words::guard(self, assessment));
            }
            if assessment.verdict == Verdict::Fail && !report_only {
                return Decision::revert(words::failed(assessment));
            }
        }
        let held = matches!(self.phase, Phase::Held { .. });
        match &self.spec.strategy {
            Strategy::BlueGreen { keep_s: last_s }
            | Strategy::Shadow { duration_s: last_s, .. }
            | Strategy::Ab { duration_s: last_s, .. } => {
                if elapsed_s < *last_s {
                    return Decision::stay(words::watching(self, seen.assessment, last_s - elapsed_s));
                }
                self.advance(&words::over(self, seen.assessment, *last_s), seen)
            }
            Strategy::Canary { steps } => {
                let Some(step) = steps.get(index) else {
                    return Decision::revert("its step is none of the spec's");
                };
                match words::lacking(self, step, seen.assessment, elapsed_s) {
                    None => self.advance(&words::passed(self, seen.assessment), seen),
                    Some(lacking) if elapsed_s >= step.time_max_s && !held && !self.paused => {
                        let reason =
                            format!("{lacking} after {elapsed_s} s; it needs its owner, or more evidence");
                        Decision::go(Phase::Held { index }, reason)
                    }
                    Some(lacking) => Decision::stay(lacking),
                }
            }
        }
    }

    /// On to what comes next, if that can be borne.
    fn advance(&self, why: &str, seen: &Observed<'_>) -> Decision {
        if self.paused {
            return Decision::stay(format!("{why}; it is paused"));
        }
        let next = self.after_this();
        if let Phase::Step { index } = next
            && let Some(lacking) = self.capacity_lacking(index, &seen.fleet)
        {
            return Decision::stay(format!("{why}; {lacking}"));
        }
        Decision::go(next, format!("{why}: {}", words::going_to(self, next)))
    }

    /// What a step needs and the new version's workers have not, as if no answer came from the response cache.
    fn capacity_lacking(&self, index: usize, fleet: &Fleet) -> Option<String> {
        let weight = self.weight_of_step(index);
        if fleet.canary_places == 0 || weight == 0 {
            return None;
        }
        let cold = f64::from(fleet.in_flight) / (1.0 - fleet.hit_share.clamp(0.0, 0.95));
        let needed = cold * f64::from(weight) / f64::from(routing::RouteTable::WEIGHT_TOTAL);
        let usable = f64::from(fleet.canary_places) * self.spec.capacity.usage_max;
        (needed > usable).then(|| {
            format!(
                "{percent}% of the users need {needed:.0} places, but of the {places} that workers of {to} have \
                 {usable:.0} may be used; start more of them",
                percent = words::percent(weight),
                places = fleet.canary_places,
                to = self.spec.to,
            )
        })
    }
}

/// Whether the last times differ little enough, as a share of their median.
fn settled(times_s: &[f64], within: f64) -> bool {
    let mut last = times_s[times_s.len().saturating_sub(SETTLED_TIMES)..].to_vec();
    last.sort_by(f64::total_cmp);
    match last[..] {
        [] => true,
        [least, .., most] => most - least <= within * last[last.len() / 2],
        [_] => true,
    }
}

#[cfg(test)]
mod tests;
