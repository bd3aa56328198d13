//! Requests of our own: to warm a version up, and to compare answers.

use rollout::{Phase, Rollout};

use super::{Executor, Live, Message};
use crate::book::Entry;
use crate::quality::loss_nats;

/// A version that was warmed by so many prompts and has not settled needs no more of them a second than one.
const WARM_MAX: usize = 500;

impl Executor {
    /// Starts what is due; each model has one of these under way at most.
    pub(super) fn probe(&mut self, now_ms: u64) {
        let active: Vec<Rollout> = self.book.active().cloned().collect();
        for rollout in active {
            match rollout.phase {
                Phase::Warming => self.warm(&rollout),
                Phase::Step { .. } | Phase::Held { .. } => self.compare(&rollout, now_ms),
                _ => {}
            }
        }
    }

    fn warm(&mut self, rollout: &Rollout) {
        let Some(prober) = self.prober.clone() else {
            // Nobody to ask through: the version is taken as it comes.
            let live = self.live.entry(rollout.spec.model.clone()).or_default();
            live.warm.resize(rollout.spec.warm.prompts_min as usize, 0.0);
            return;
        };
        let Some(live) = self.live.get_mut(&rollout.spec.model) else { return };
        if live.probing || live.warm.len() >= WARM_MAX {
            return;
        }
        live.probing = true;
        let body = live.prompts.next(&rollout.spec.model);
        let (id, to, itself) = (rollout.id.clone(), rollout.spec.to.clone(), self.itself.clone());
        tokio::task::spawn_blocking(move || {
            let result = prober.first_token_s(&to, &body);
            let _ = itself.blocking_send(Message::Warmed { id, result });
        });
    }

    pub(super) fn warmed(&mut self, id: &str, result: Result<f64, String>) {
        let warming = |rollout: &&Rollout| rollout.id == id && rollout.phase == Phase::Warming;
        let rollout = self.book.active().find(warming).cloned();
        let Some(live) = self.live_of(id) else { return };
        live.probing = false;
        match result {
            Ok(seconds) => {
                live.warm.push(seconds);
                live.warm_failure = None;
            }
            Err(why) => {
                live.warm_failure = Some(why);
                // The next one is asked with the next tick.
                return;
            }
        }
        if let Some(rollout) = rollout {
            self.warm(&rollout);
        }
    }

    fn compare(&mut self, rollout: &Rollout, now_ms: u64) {
        let (Some(quality), Some(step)) = (&rollout.spec.judge.quality, rollout.evidence_step()) else {
            return;
        };
        let (Some(prober), Some(live)) = (self.prober.clone(), self.live.get_mut(&rollout.spec.model)) else {
            return;
        };
        let every_ms = (1_000.0 / quality.samples_per_s) as u64;
        if live.probing || now_ms.saturating_sub(live.last_compared_ms) < every_ms {
            return;
        }
        let Some(body) = live.prompts.next_of_users() else { return };
        live.probing = true;
        live.last_compared_ms = now_ms;
        let versions = [rollout.stable.clone(), rollout.spec.to.clone()];
        let (tokens_max, itself) = (quality.tokens_max, self.itself.clone());
        tokio::task::spawn_blocking(move || {
            let [stable, canary] = &versions;
            let result = loss_nats(&prober, [stable, canary], &body, tokens_max);
            let _ = itself.blocking_send(Message::Compared { step, result });
        });
    }

    pub(super) fn compared(&mut self, step: &str, result: Result<f64, String>) {
        let id = step.rsplit_once('/').map_or(step, |(id, _)| id);
        let Some(live) = self.live_of(id) else { return };
        live.probing = false;
        match (result, &mut live.watched) {
            (Ok(loss_nats), Some(watched)) if watched.step == step => {
                watched.judge.observe_quality(loss_nats)
            }
            (Ok(_), _) => {}
            (Err(why), _) => tracing::info!(step, why, "answers could not be compared"),
        }
    }

    /// Of the rollout with this id.
    fn live_of(&mut self, id: &str) -> Option<&mut Live> {
        let of_it = |entry: &&Entry| entry.rollout.as_ref().is_some_and(|rollout| rollout.id == id);
        let model = self.book.models.values().find(of_it)?.rollout.as_ref()?.spec.model.clone();
        self.live.get_mut(&model)
    }
}
