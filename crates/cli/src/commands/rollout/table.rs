//! Rollouts for people.

use controller::{Record, Status};
use rollout::{MetricAssessment, Phase, Rollout, Strategy, Verdict};

const BAR_CELLS: usize = 20;

/// A rollout in some lines: how far it is, what was seen, and what is waited for.
pub(super) fn status(status: &Status) -> String {
    let Status { model, stable, .. } = status;
    let Some(rollout) = &status.rollout else {
        return format!("{model}: version {stable} has all users; there was no rollout\n");
    };
    let to = &rollout.spec.to;
    let mut text = format!("{model}: {} → {to}  {}\n", rollout.stable, phase(rollout));
    let filled = (status.percent / 100.0 * BAR_CELLS as f64).round() as usize;
    let bar = "█".repeat(filled) + &"░".repeat(BAR_CELLS - filled.min(BAR_CELLS));
    text += &format!("  {bar} {}% of the users have {to}\n", status.percent);
    if let Some(assessment) = &status.assessment {
        text += &format!(
            "  users heard: {} of {to}, {} of {}\n",
            assessment.canary_users, assessment.stable_users, rollout.stable
        );
        assessment.metrics.iter().for_each(|metric| text += &metric_line(metric));
    }
    text + &format!("  {}\n", status.reason)
}

fn metric_line(metric: &MetricAssessment) -> String {
    let mark = match metric.verdict {
        Verdict::Pass => "pass",
        Verdict::Insufficient => "…",
        Verdict::Fail => "FAIL",
    };
    format!("    {mark:<5} {metric}\n")
}

/// The same in one line, for logs.
pub(super) fn line(status: &Status) -> String {
    let phase = status.rollout.as_ref().map_or_else(|| "no rollout".to_owned(), phase);
    format!("{} {}% {phase}: {}", status.model, status.percent, status.reason)
}

fn phase(rollout: &Rollout) -> String {
    let steps = match &rollout.spec.strategy {
        Strategy::Canary { steps } => steps.len(),
        _ => 1,
    };
    let phase = match rollout.phase {
        Phase::Warming => "warming up".to_owned(),
        Phase::Step { index } => format!("step {} of {steps}", index + 1),
        Phase::Held { index } => format!("held at step {} of {steps}", index + 1),
        Phase::Draining { outcome } => format!("{}, draining", outcome.as_str()),
        Phase::Done { outcome } => outcome.as_str().to_owned(),
    };
    if rollout.paused && rollout.is_active() { format!("{phase}, paused") } else { phase }
}

/// Every decision in a line.
pub(super) fn history(records: &[Record]) -> String {
    if records.is_empty() {
        return "nothing was decided yet\n".to_owned();
    }
    let line = |record: &Record| {
        let percent = record.rollout.as_ref().map_or(0.0, |rollout| f64::from(rollout.weight()) / 100.0);
        let action = record.action.as_str();
        format!("{}  {action:<10} {percent:>5}%  {}\n", registry::utc(record.at_ms), record.reason)
    };
    records.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use rollout::Spec;

    use super::*;

    #[test]
    fn a_rollout_is_shown_with_its_share_of_the_users() {
        let rollout = Rollout::new("chat-1", Spec::new("chat", "2"), "1", 0).at(Phase::Step { index: 1 }, 0);
        let shown = Status {
            model: "chat".into(),
            stable: "1".into(),
            percent: 25.0,
            rollout: Some(rollout),
            reason: "7 of 100 users were heard".into(),
            ..Status::default()
        };
        insta::assert_snapshot!(status(&shown), @r"
        chat: 1 → 2  step 2 of 4
          █████░░░░░░░░░░░░░░░ 25% of the users have 2
          7 of 100 users were heard
        ");
        assert_eq!(line(&shown), "chat 25% step 2 of 4: 7 of 100 users were heard");
    }
}
