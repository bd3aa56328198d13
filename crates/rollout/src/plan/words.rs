//! Reasons, in words.

use crate::spec::Step;
use crate::state::{Phase, Rollout};
use crate::{Assessment, Strategy, Verdict};

/// A weight in percent, without needless digits.
pub(super) fn percent(weight: u32) -> String {
    let text = format!("{:.2}", f64::from(weight) / 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a phase brings.
pub(super) fn going_to(rollout: &Rollout, phase: Phase) -> String {
    let (to, stable) = (&rollout.spec.to, &rollout.stable);
    match (phase, &rollout.spec.strategy) {
        (Phase::Step { .. }, Strategy::Shadow { percent, .. }) => {
            format!("{percent}% of the requests are copied to {to}")
        }
        (Phase::Step { .. }, Strategy::BlueGreen { .. }) => {
            format!("all users go to {to}; {stable} stays warm")
        }
        (Phase::Step { index }, _) => {
            format!("{}% of the users go to {to}", percent(rollout.weight_of_step(index)))
        }
        (Phase::Draining { outcome: crate::Outcome::Promoted }, _) => {
            format!("{to} has all users, and {stable} is drained")
        }
        (Phase::Draining { .. }, _) => format!("{stable} has all users, and {to} is drained"),
        _ => "nothing changes".to_owned(),
    }
}

/// Why the absolute guard reverts.
pub(super) fn guard(rollout: &Rollout, assessment: &Assessment) -> String {
    let share = assessment.failed_share() * 100.0;
    let most = rollout.spec.judge.error_guard * 100.0;
    format!("{share:.1}% of the requests to {} fail, surely more than {most}%", rollout.spec.to)
}

/// Why the judge reverts.
pub(super) fn failed(assessment: &Assessment) -> String {
    list(assessment, Verdict::Fail)
}

/// Why the judge lets pass.
pub(super) fn passed(rollout: &Rollout, assessment: Option<&Assessment>) -> String {
    match assessment {
        Some(assessment) if rollout.has_control() => list(assessment, Verdict::Pass),
        _ => "nothing alarming was seen".to_owned(),
    }
}

fn list(assessment: &Assessment, verdict: Verdict) -> String {
    let of_it = assessment.metrics.iter().filter(|metric| metric.verdict == verdict);
    let words: Vec<String> = of_it.map(ToString::to_string).collect();
    if words.is_empty() { "no metric speaks".to_owned() } else { words.join("; ") }
}

/// What a step of a canary lacks for the next one.
pub(super) fn lacking(
    rollout: &Rollout,
    step: &Step,
    assessment: Option<&Assessment>,
    elapsed_s: u64,
) -> Option<String> {
    if elapsed_s < step.time_min_s {
        return Some(format!("{elapsed_s} of {} s are over", step.time_min_s));
    }
    let Some(assessment) = assessment else { return Some("no evidence has come in".to_owned()) };
    if assessment.canary_users < step.users_min {
        return Some(format!("{} of {} users were heard", assessment.canary_users, step.users_min));
    }
    // With all users there, nobody is left to compare with: the guards alone watch.
    (rollout.has_control() && assessment.verdict != Verdict::Pass)
        .then(|| format!("the evidence is insufficient: {}", list(assessment, Verdict::Insufficient)))
}

/// What a strategy that lasts a fixed time waits for.
pub(super) fn watching(rollout: &Rollout, assessment: Option<&Assessment>, left_s: u64) -> String {
    let users = assessment.map_or(0, |assessment| assessment.canary_users);
    match rollout.spec.strategy {
        Strategy::BlueGreen { .. } => format!("{} stays warm for {left_s} s more", rollout.stable),
        _ => format!("{left_s} s are left; {users} users of {} were heard", rollout.spec.to),
    }
}

/// What such a strategy found.
pub(super) fn over(rollout: &Rollout, assessment: Option<&Assessment>, lasted_s: u64) -> String {
    let found = match (assessment, &rollout.spec.strategy) {
        (_, Strategy::BlueGreen { .. }) => return format!("nothing alarming was seen for {lasted_s} s"),
        (None, _) => "no evidence came in".to_owned(),
        (Some(assessment), _) => {
            let words: Vec<String> = assessment.metrics.iter().map(ToString::to_string).collect();
            let verdict = match assessment.verdict {
                Verdict::Pass => "it would pass",
                Verdict::Insufficient => "the evidence is insufficient",
                Verdict::Fail => "it would be reverted",
            };
            if words.is_empty() { verdict.to_owned() } else { format!("{verdict}: {}", words.join("; ")) }
        }
    };
    format!("{lasted_s} s are over; {found}")
}

impl Rollout {
    /// Whether the stable version has users at the same time, or answers the same requests.
    fn has_control(&self) -> bool {
        self.weight() < routing::RouteTable::WEIGHT_TOTAL
    }
}
