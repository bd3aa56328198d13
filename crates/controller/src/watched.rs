//! The evidence of the step at hand, as far as it came in.

use std::collections::BTreeMap;

use evidence::{Evidence, VersionEvidence};
use rollout::{Judge, Rollout};
use serde::{Deserialize, Serialize};

/// A step's judge, and what it has seen of each gateway. Written down from time to time: whoever reads it goes on
/// without seeing anything twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watched {
    pub(crate) step: String,
    pub(crate) judge: Judge,
    seen: BTreeMap<String, Evidence>,
}

impl Watched {
    /// A step of which nothing is known yet.
    pub(crate) fn new(rollout: &Rollout, step: String) -> Self {
        let judge = Judge::new(&rollout.spec.judge, rollout.false_alarm());
        Self { step, judge, seen: BTreeMap::new() }
    }

    /// Takes in what a gateway saw since it was last heard, if it is about this step.
    pub(crate) fn hear(&mut self, rollout: &Rollout, gateway: &str, evidence: &Evidence) {
        if evidence.step != self.step {
            return;
        }
        let nothing = VersionEvidence::default();
        let before = self.seen.get(gateway);
        let since = |version: &str| {
            let now = evidence.versions.get(version).unwrap_or(&nothing);
            now.since(before.and_then(|before| before.versions.get(version)).unwrap_or(&nothing))
        };
        self.judge.observe(&since(&rollout.stable), &since(&rollout.spec.to));
        self.seen.insert(gateway.to_owned(), evidence.clone());
    }
}

#[cfg(test)]
mod tests {
    use evidence::{Ledger, Seen};
    use rollout::{Phase, Spec};

    use super::*;

    #[test]
    fn what_is_read_again_goes_on_where_it_was_and_counts_nothing_twice() {
        let rollout = Rollout::new("chat-1", Spec::new("chat", "2"), "1", 0).at(Phase::Step { index: 0 }, 0);
        let step = rollout.evidence_step().unwrap();
        let mut ledger = Ledger::new(&step, 1_000);
        let mut watched = Watched::new(&rollout, step.clone());
        let mut unbroken = watched.clone();
        for second in 0..20 {
            for user in 0..10 {
                let version = if user == 0 { "2" } else { "1" };
                let seen = Seen { user: second * 10 + user, end_to_end_s: Some(1.0), ..Seen::default() };
                ledger.record(version, &seen);
            }
            unbroken.hear(&rollout, "a", &ledger.evidence());
            watched.hear(&rollout, "a", &ledger.evidence());
            let text = serde_json::to_string(&watched).unwrap();
            watched = serde_json::from_str(&text).unwrap();
            // The same once more brings nothing.
            watched.hear(&rollout, "a", &ledger.evidence());
        }
        watched.hear(&rollout, "a", &Evidence { step: "another".into(), ..ledger.evidence() });
        assert_eq!(watched.judge.assess().canary_users, 20);
        assert_eq!(watched.judge.assess(), unbroken.judge.assess());
    }
}
