//! The rollout itself: real evidence, judge and plan, in a made-up world.

use std::collections::HashSet;

use evidence::{Evidence, Ledger, Seen, VersionEvidence};

use super::world::{Answer, Request, USERS, WORKERS};
use super::{Ended, Options, RuleOutcome};
use crate::plan::{Decision, Fleet, Observed};
use crate::state::{Outcome, Phase, Rollout};
use crate::{Assessment, Judge, Metric};

/// The versions, as `World::answer` counts them.
const VERSIONS: [&str; 2] = ["stable", "canary"];

/// A request on its way, and who will hear of it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) request: Request,
    pub(super) version: usize,
    pub(super) answer: Answer,
    pub(super) for_rules: bool,
    /// The step in which the judge hears of it.
    pub(super) step: Option<u64>,
}

/// Users that met the new version.
#[derive(Debug, Default)]
pub(super) struct Exposed {
    users: HashSet<u64>,
    since_s: Option<u64>,
}

impl Exposed {
    /// A user asks it.
    pub(super) fn meet(&mut self, user: u64, second: u64) {
        self.users.insert(user);
        self.since_s.get_or_insert(second);
    }

    /// Seconds since the first one, from the beginning of its second on, and how many there are.
    pub(super) fn so_far(&self, second: u64) -> (u64, u64) {
        (self.since_s.map_or(0, |since_s| second + 1 - since_s), self.users.len() as u64)
    }
}

/// The rollout itself.
#[derive(Debug)]
pub(super) struct Judged {
    rollout: Rollout,
    ledger: Ledger,
    judge: Judge,
    /// The last reading.
    read: Evidence,
    exposed: Exposed,
    is_better: bool,
    ended: Option<(RuleOutcome, String)>,
    waits_for: String,
}

impl Judged {
    /// At its first step.
    pub(super) fn new(options: &Options) -> Self {
        // It is warm already.
        let rollout =
            Rollout::new("simulated", options.spec(), VERSIONS[0], 0).at(Phase::Step { index: 0 }, 0);
        let (ledger, judge) = at_step(&rollout);
        Self {
            rollout,
            ledger,
            judge,
            read: Evidence::default(),
            exposed: Exposed::default(),
            is_better: false,
            ended: None,
            waits_for: String::new(),
        }
    }

    /// The version of a request, and the step; `None` once it is over.
    pub(super) fn version(&mut self, request: &Request, second: u64) -> Option<(usize, u64)> {
        if self.ended.is_some() {
            return None;
        }
        let version = usize::from(request.point < self.rollout.weight());
        self.ledger.begin(VERSIONS[version]);
        if version == 1 {
            self.exposed.meet(request.user, second);
        }
        Some((version, self.rollout.steps_taken))
    }

    /// Hears of a request that ended.
    pub(super) fn record(&mut self, flight: &Flight) {
        // Those of an earlier step that end only now are the long ones alone; gateways leave them out as well.
        if self.ended.is_some() || flight.step != Some(self.rollout.steps_taken) {
            return;
        }
        let Flight { request, answer, .. } = flight;
        let [first_s, between_s, end_s] = answer.times_s;
        let seen = Seen {
            user: request.user,
            failed: answer.failed,
            refused: false,
            whole: true,
            truncated: request.truncated,
            empty: request.empty,
            uncached_tokens: request.uncached_tokens,
            time_to_first_token_s: Some(first_s),
            inter_token_s: Some(between_s),
            end_to_end_s: Some(end_s),
        };
        self.ledger.record(VERSIONS[flight.version], &seen);
    }

    /// Judges the second that is over, and follows the plan.
    pub(super) fn look(&mut self, second: u64) {
        if self.ended.is_some() {
            return;
        }
        let evidence = self.ledger.evidence();
        let nothing = VersionEvidence::default();
        let [stable, canary] = VERSIONS.map(|version| {
            let now = evidence.versions.get(version).unwrap_or(&nothing);
            now.since(self.read.versions.get(version).unwrap_or(&nothing))
        });
        self.judge.observe(&stable, &canary);
        self.read = evidence.clone();
        let assessment = self.judge.assess();
        let fleet = Fleet {
            canary_workers: WORKERS[1] as u32,
            stable_workers: WORKERS[0] as u32,
            ..Fleet::default()
        };
        let seen = Observed { assessment: Some(&assessment), fleet, ..Observed::default() };
        match self.rollout.plan(&seen, second * 1_000) {
            Decision::Stay { reason } => self.waits_for = reason,
            Decision::Go { phase, reason } => self.go(phase, reason, &assessment, second),
        }
    }

    fn go(&mut self, phase: Phase, reason: String, assessment: &Assessment, second: u64) {
        self.rollout = self.rollout.at(phase, second * 1_000);
        self.is_better |= is_better(assessment);
        let ended = match phase {
            Phase::Draining { outcome: Outcome::Promoted } => Ended::Promoted,
            Phase::Draining { .. } => Ended::Reverted,
            Phase::Step { .. } => {
                (self.ledger, self.judge) = at_step(&self.rollout);
                self.read = Evidence::default();
                return;
            }
            _ => return,
        };
        let (after_s, users_exposed) = self.exposed.so_far(second);
        self.ended = Some((RuleOutcome { ended, after_s, users_exposed }, reason));
    }

    /// What came of it, why, and whether it was promoted as better.
    pub(super) fn outcome(self, seconds: u64) -> (RuleOutcome, String, bool) {
        let (after_s, users_exposed) = self.exposed.so_far(seconds);
        let held = RuleOutcome { ended: Ended::Held, after_s, users_exposed };
        let (outcome, reason) = self.ended.unwrap_or((held, self.waits_for));
        (outcome, reason, outcome.ended == Ended::Promoted && self.is_better)
    }
}

/// What gathers evidence of a step, and who judges it.
fn at_step(rollout: &Rollout) -> (Ledger, Judge) {
    let ledger = Ledger::new(rollout.steps_taken.to_string(), USERS as usize);
    (ledger, Judge::new(&rollout.spec.judge, rollout.false_alarm()))
}

/// Whether a time is surely shorter.
fn is_better(assessment: &Assessment) -> bool {
    let mut times = assessment.metrics.iter().filter(|metric| matches!(metric.metric, Metric::Latency(_)));
    times.any(|metric| metric.high < 0.0)
}
