//! What gateways and owners say.

use protocol::{ApiError, ErrorCode};
use rollout::{Command, Rollout, Spec};

use super::{Executor, Message, unix_ms};
use crate::book::Entry;
use crate::{Action, ControllerError, Status};

impl Executor {
    pub(super) async fn hear(&mut self, message: Message) {
        let now_ms = unix_ms();
        match message {
            Message::Report(report) => {
                for (model, of_model) in &report.models {
                    let Some(live) = self.live.get_mut(model) else { continue };
                    live.prompts.add(&of_model.prompts);
                    let rollout = self.book.models.get(model).and_then(Entry::active);
                    let (Some(rollout), Some(evidence)) = (rollout, &of_model.evidence) else { continue };
                    if let Some(watched) = &mut live.watched {
                        watched.hear(rollout, &report.gateway, evidence);
                    }
                }
                self.gateways.hear(*report, now_ms);
            }
            Message::Start(spec, reply) => {
                let _ = reply.send(self.start(*spec, now_ms).await);
            }
            Message::Command(model, command, reply) => {
                let _ = reply.send(self.command(&model, command, now_ms).await);
            }
            Message::History(model, max, reply) => {
                let wanted = move |record: &crate::Record| record.model == model;
                let records = self.store.history(wanted, max).await;
                let _ = reply.send(records.map_err(|error| failed(&error)));
            }
            Message::Warmed { id, result } => self.warmed(&id, result),
            Message::Compared { step, result } => self.compared(&step, result),
            Message::Said { model, said } => self.heard(model, said),
        }
    }

    async fn start(&mut self, spec: Spec, now_ms: u64) -> Result<Status, ApiError> {
        self.must_decide()?;
        spec.validate().map_err(|error| ApiError::invalid(error.field.clone(), error.to_string()))?;
        let model = spec.model.clone();
        let Some(entry) = self.book.models.get(&model) else {
            let known: Vec<&str> = self.book.models.keys().map(String::as_str).collect();
            let message = format!(
                "no gateway serves a model `{model}`; known are: {}",
                if known.is_empty() { "none yet".to_owned() } else { known.join(", ") }
            );
            return Err(ApiError::new(ErrorCode::NotFound, message));
        };
        if let Some(rollout) = entry.active() {
            let message = format!("rollout {} of `{model}` is not over; abort it first", rollout.id);
            return Err(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        if entry.stable == spec.to {
            let message = format!("{} has all users of `{model}` already", spec.to);
            return Err(ApiError::invalid("to", message));
        }
        if spec.judge.quality.is_some() && self.prober.is_none() {
            let message = "answers are compared through a gateway; set `controller.gateway`";
            return Err(ApiError::invalid("judge.quality", message));
        }
        let id = format!("{model}-{}", self.book.seq + 1);
        let rollout = Rollout::new(id, spec, entry.stable.clone(), now_ms);
        let reason = format!("{} is to take the users of {}", rollout.spec.to, rollout.stable);
        let written = self.go(rollout, Action::Started, reason, None, now_ms).await;
        self.decided(&model, written, now_ms)
    }

    async fn command(&mut self, model: &str, command: Command, now_ms: u64) -> Result<Status, ApiError> {
        self.must_decide()?;
        let rollout = self.book.models.get(model).and_then(|entry| entry.rollout.clone());
        let Some(rollout) = rollout else {
            return Err(ApiError::new(ErrorCode::NotFound, format!("`{model}` has no rollout")));
        };
        let canary_workers = self.fleet(&rollout, now_ms).canary_workers;
        let (next, reason) = rollout
            .command(command, canary_workers, now_ms)
            .map_err(|refused| ApiError::new(ErrorCode::InvalidRequest, refused.to_string()))?;
        let action = match command {
            Command::Pause => Action::Paused,
            Command::Resume => Action::Resumed,
            _ => Action::of(next.phase),
        };
        let assessment = self.live.get(model).and_then(super::Live::assessment);
        let written = self.go(next, action, reason, assessment, now_ms).await;
        self.decided(model, written, now_ms)
    }

    fn decided(
        &mut self,
        model: &str,
        written: Result<(), ControllerError>,
        now_ms: u64,
    ) -> Result<Status, ApiError> {
        if let Err(error) = written {
            self.step_down(&error);
            return Err(failed(&error));
        }
        self.publish(now_ms);
        Ok(self.published.statuses.borrow().get(model).cloned().unwrap_or_default())
    }

    fn must_decide(&self) -> Result<(), ApiError> {
        if self.deciding {
            return Ok(());
        }
        let why = if self.waits {
            "another controller decides; ask that one, or end it and this one takes over"
        } else {
            "this controller cannot decide yet, as its log says; try again shortly"
        };
        Err(ApiError::new(ErrorCode::Unavailable, why))
    }
}

fn failed(error: &ControllerError) -> ApiError {
    tracing::error!(%error, "the log of decisions");
    ApiError::new(
        ErrorCode::Unavailable,
        "the log of decisions cannot be used at the moment; try again shortly",
    )
}
