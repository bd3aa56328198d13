//! What the registry says of versions, and what it is told.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use super::{Executor, Message};
use crate::book::Entry;
use crate::{Action, Record};

/// How long after a rollout's end a controller that takes over still clears its alias: later, its owner may have named
/// the version anew.
const CLEAR_MAX_MS: u64 = 60 * 60 * 1_000;

/// What is open between this controller and the registry, by model.
#[derive(Debug, Default)]
pub(crate) struct Dialogue {
    /// Which version is stable, of models that wait for a version.
    questions: BTreeMap<String, Question>,
    /// Of whom the registry could not say.
    unanswered: BTreeSet<String>,
    /// Of whom it was told nothing since this controller took over.
    untold: BTreeSet<String>,
}

#[derive(Debug)]
enum Question {
    Asked,
    Answered(Option<String>),
}

impl Dialogue {
    /// After a take-over, with all models that are known.
    pub(super) fn of(models: impl IntoIterator<Item = String>) -> Self {
        Self { untold: models.into_iter().collect(), ..Self::default() }
    }

    /// Drops questions about all other models: when one comes up again, the answer may be another.
    pub(super) fn ask_only_about(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.questions.retain(|model, _| is_meant(model));
    }
}

impl Executor {
    /// The version that the registry calls stable, if any. Nothing at all until it has answered: it may be slow, and
    /// decisions do not wait.
    pub(super) fn said_stable(&mut self, model: &str) -> Option<Option<String>> {
        let Some(aliases) = &self.listeners.aliases else { return Some(None) };
        match self.dialogue.questions.entry(model.to_owned()) {
            btree_map::Entry::Occupied(known) => match known.get() {
                Question::Asked => None,
                Question::Answered(said) => Some(said.clone()),
            },
            btree_map::Entry::Vacant(unknown) => {
                unknown.insert(Question::Asked);
                let (place, model, itself) = (aliases.place(), model.to_owned(), self.itself.clone());
                tokio::spawn(async move {
                    let asked = model.clone();
                    let said = tokio::task::spawn_blocking(move || place.get(&asked, "stable")).await;
                    let said = said.unwrap_or_else(|broken| Err(broken.to_string()));
                    let _ = itself.send(Message::Said { model, said }).await;
                });
                None
            }
        }
    }

    /// Takes the registry's answer in.
    pub(super) fn heard(&mut self, model: String, said: Result<Option<String>, String>) {
        match said {
            Ok(said) => {
                self.dialogue.unanswered.remove(&model);
                self.dialogue.questions.insert(model, Question::Answered(said));
            }
            Err(error) => {
                // With the next tick it is asked again.
                self.dialogue.questions.remove(&model);
                if self.dialogue.unanswered.insert(model.clone()) {
                    tracing::warn!(
                        model,
                        error,
                        "the registry does not say which version is stable, so none is until it does"
                    );
                }
            }
        }
    }

    /// Lets aliases follow a decision. `canary` is its owner's, but for a rollout's own.
    pub(super) fn tell(&mut self, record: &Record) {
        let (Some(aliases), Some(entry)) = (&self.listeners.aliases, self.book.models.get(&record.model))
        else {
            return;
        };
        aliases.point(record.epoch, &record.model, "stable", &entry.stable);
        if record.action != Action::Pinned {
            self.tell_canary(&record.model, entry);
            self.dialogue.untold.remove(&record.model);
        }
    }

    /// Says everything again once after a take-over, as the former controller may have died before it was heard; but
    /// only where the decision holds still, and not over the word of an owner who has brought up another version.
    pub(super) fn tell_again(&mut self, now_ms: u64) {
        let Some(aliases) = &self.listeners.aliases else { return };
        for model in std::mem::take(&mut self.dialogue.untold) {
            let Some(entry) = self.book.models.get(&model) else { continue };
            let versions = self.gateways.models().get(&model);
            let load = versions.and_then(|versions| versions.get(&entry.stable));
            if entry.active().is_none() && load.is_none_or(|load| load.workers == 0) {
                self.dialogue.untold.insert(model);
                continue;
            }
            aliases.point(self.book.epoch, &model, "stable", &entry.stable);
            let is_recent = |since_ms: u64| now_ms.saturating_sub(since_ms) < CLEAR_MAX_MS;
            let rollout = entry.rollout.as_ref();
            if rollout.is_some_and(|rollout| rollout.is_active() || is_recent(rollout.since_ms)) {
                self.tell_canary(&model, entry);
            }
        }
    }

    fn tell_canary(&self, model: &str, entry: &Entry) {
        let (Some(aliases), Some(rollout)) = (&self.listeners.aliases, &entry.rollout) else { return };
        let (epoch, to) = (self.book.epoch, &rollout.spec.to);
        if rollout.is_active() {
            aliases.point(epoch, model, "canary", to);
        } else {
            aliases.clear(epoch, model, "canary", to);
        }
    }
}
