//! Observe, plan, execute: one task that owns all that is decided.

mod aliases;
mod owners;
mod probing;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evidence::Report;
use protocol::ApiError;
use rollout::{Assessment, Command, Decision, Fleet, Observed, Phase, Rollout, Spec};
use routing::RouteTable;
use telemetry::ControllerMetrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::aliases::AliasKeeper;
use crate::book::{Book, Entry};
use crate::fleet::Gateways;
use crate::probe::{Prober, Prompts};
use crate::store::Store;
use crate::watched::Watched;
use crate::webhook::Webhook;
use crate::{Action, Config, ControllerError, Record, Status};

pub(crate) use aliases::Dialogue;

/// From one note of what was seen to the next.
const CHECKPOINT_MS: u64 = 5_000;

/// What the task is told.
pub(crate) enum Message {
    Report(Box<Report>),
    Start(Box<Spec>, Reply<Status>),
    Command(String, Command, Reply<Status>),
    History(String, usize, Reply<Vec<Record>>),
    Warmed { id: String, result: Result<f64, String> },
    Compared { step: String, result: Result<f64, String> },
    Said { model: String, said: Result<Option<String>, String> },
}

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What others may look at while the task works.
#[derive(Debug)]
pub(crate) struct Published {
    /// None while another controller decides.
    pub(crate) table: watch::Sender<Option<Arc<RouteTable>>>,
    pub(crate) statuses: watch::Sender<Arc<BTreeMap<String, Status>>>,
}

/// Whom decisions are told.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) webhook: Option<Webhook>,
    pub(crate) aliases: Option<AliasKeeper>,
    pub(crate) metrics: ControllerMetrics,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) published: Arc<Published>,
    pub(crate) listeners: Listeners,
    pub(crate) prober: Option<Prober>,
    /// To itself, from the tasks that it starts.
    pub(crate) itself: mpsc::Sender<Message>,
    pub(crate) deciding: bool,
    pub(crate) book: Book,
    pub(crate) gateways: Gateways,
    pub(crate) live: BTreeMap<String, Live>,
    pub(crate) dialogue: Dialogue,
    pub(crate) noted_ms: u64,
    /// Why it cannot decide, as it was told last.
    pub(crate) trouble: String,
    /// Whether that is because another controller decides.
    pub(crate) waits: bool,
}

/// What is known of a model's rollout beside what is written down.
#[derive(Debug, Default)]
pub(crate) struct Live {
    watched: Option<Watched>,
    warm: Vec<f64>,
    warm_failure: Option<String>,
    prompts: Prompts,
    probing: bool,
    last_compared_ms: u64,
    reason: String,
}

impl Live {
    fn assessment(&self) -> Option<Assessment> {
        self.watched.as_ref().map(|watched| watched.judge.assess())
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

impl Executor {
    /// Works until `shutdown` resolves.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut ticks = interval(Duration::from_millis(self.config.interval_ms));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(message) = messages.recv() => self.hear(message).await,
                _ = ticks.tick() => {
                    if let Err(error) = self.tick(unix_ms()).await {
                        self.step_down(&error);
                    }
                }
            }
        }
        self.note(unix_ms(), true).await;
    }

    /// Another controller may have taken over, or nothing can be written: gateways keep the table that they have.
    fn step_down(&mut self, error: &ControllerError) {
        if std::mem::take(&mut self.deciding) {
            tracing::error!(%error, "the controller stops deciding");
            self.published.table.send_replace(None);
            self.store.release();
            if let Some(aliases) = &self.listeners.aliases {
                aliases.stop();
            }
        } else {
            let trouble = error.to_string();
            if self.trouble != trouble {
                tracing::error!(trouble, "the controller cannot decide yet");
                self.trouble = trouble;
            }
        }
        self.waits = false;
        self.listeners.metrics.deciding.set(0);
    }

    /// Says once that another controller decides: two of a fleet want that, two on one machine by accident do not.
    fn stand_by(&mut self) {
        let trouble = format!("another controller holds {}", self.store.place());
        if self.trouble != trouble {
            tracing::warn!(
                "{trouble}: this one decides nothing until that one ends, and gateways that report to this one keep \
                 the routes that they have"
            );
            self.trouble = trouble;
        }
        self.waits = true;
    }

    async fn tick(&mut self, now_ms: u64) -> Result<(), ControllerError> {
        if self.deciding {
            if self.gateways.epoch() > self.book.epoch {
                return Err(ControllerError::Outrun { epoch: self.gateways.epoch() });
            }
            self.store.keep().await?;
        } else if !self.take_over(now_ms).await? {
            return Ok(());
        }
        self.gateways.tick(now_ms, self.config.gateway_timeout_ms);
        self.pin(now_ms).await?;
        self.tell_again(now_ms);
        let active: Vec<Rollout> = self.book.active().cloned().collect();
        for rollout in active {
            self.advance(&rollout, now_ms).await?;
        }
        self.probe(now_ms);
        self.publish(now_ms);
        self.note(now_ms, false).await;
        Ok(())
    }

    async fn take_over(&mut self, now_ms: u64) -> Result<bool, ControllerError> {
        let Some(taken) = self.store.take(self.gateways.epoch()).await? else {
            self.stand_by();
            return Ok(false);
        };
        self.book = Book::default();
        taken.records.iter().for_each(|record| self.book.add(record));
        self.book.epoch = taken.epoch;
        self.live.clear();
        self.dialogue = Dialogue::of(self.book.models.keys().cloned());
        let seen: Vec<(String, Watched)> =
            taken.checkpoint.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        for (model, watched) in seen {
            self.live.entry(model).or_default().watched = Some(watched);
        }
        self.deciding = true;
        self.trouble.clear();
        self.waits = false;
        self.listeners.metrics.deciding.set(1);
        let reason = format!("controller {} decides from here on", taken.epoch);
        self.write(Action::TookOver, "", Entry::default(), reason, None, now_ms).await?;
        Ok(true)
    }

    /// Writes a decision down; only then does anyone act by it.
    async fn write(
        &mut self,
        action: Action,
        model: &str,
        entry: Entry,
        reason: String,
        assessment: Option<Assessment>,
        now_ms: u64,
    ) -> Result<(), ControllerError> {
        let record = Record {
            seq: self.book.seq + 1,
            epoch: self.book.epoch,
            at_ms: now_ms,
            action,
            model: model.to_owned(),
            reason,
            stable: entry.stable,
            rollout: entry.rollout,
            assessment,
        };
        self.store.append(&record).await?;
        self.book.add(&record);
        self.published.table.send_replace(Some(Arc::new(self.book.table())));
        tracing::info!(
            model,
            action = action.as_str(),
            reason = &*record.reason,
            seq = record.seq,
            epoch = record.epoch,
            "decided"
        );
        self.listeners.metrics.decisions(action.as_str()).inc();
        self.tell(&record);
        if let Some(webhook) = &self.listeners.webhook {
            webhook.tell(&record);
        }
        Ok(())
    }

    /// Models that nobody decided about keep the version that they have: workers of another one get no users before a
    /// rollout says so.
    async fn pin(&mut self, now_ms: u64) -> Result<(), ControllerError> {
        if !self.gateways.complete() {
            return Ok(());
        }
        let mut unpinned = self.gateways.models().clone();
        unpinned.retain(|model, versions| {
            versions.values().any(|load| load.workers_up > 0)
                && self.book.models.get(model).is_none_or(|entry| {
                    entry.active().is_none() && self.gateways.is_gone(model, &entry.stable, now_ms)
                })
        });
        self.dialogue.ask_only_about(|model| unpinned.contains_key(model));
        for (model, versions) in unpinned {
            let Some(said) = self.said_stable(&model) else { continue };
            let entry = self.book.models.get(&model).cloned().unwrap_or_default();
            let up = || versions.iter().filter(|(_, load)| load.workers_up > 0);
            let said = up().find(|(version, _)| said.as_ref() == Some(version));
            // Of several with as many workers, the first by name: versions count up.
            let most = || up().rev().max_by_key(|(_, load)| load.workers_up);
            let Some((version, _)) = said.or_else(most) else { continue };
            let reason = match entry.stable.as_str() {
                "" => format!("{version} is the version that was found"),
                gone => format!("no worker of {gone} has been known for a while, and {version} has some"),
            };
            let entry = Entry { stable: version.clone(), ..entry };
            self.live.entry(model.clone()).or_default().reason.clone_from(&reason);
            self.write(Action::Pinned, &model, entry, reason, None, now_ms).await?;
        }
        Ok(())
    }

    fn fleet(&mut self, rollout: &Rollout, now_ms: u64) -> Fleet {
        self.gateways.fleet(rollout, (self.book.epoch, self.book.seq), now_ms)
    }

    /// Asks the plan what is next, and does it.
    async fn advance(&mut self, rollout: &Rollout, now_ms: u64) -> Result<(), ControllerError> {
        let model = &rollout.spec.model;
        let fleet = self.fleet(rollout, now_ms);
        let live = self.live.entry(model.clone()).or_default();
        match rollout.evidence_step() {
            Some(step) if live.watched.as_ref().is_none_or(|watched| watched.step != step) => {
                live.watched = Some(Watched::new(rollout, step));
            }
            Some(_) => {}
            None => live.watched = None,
        }
        let assessment = live.assessment();
        let observed = Observed {
            assessment: assessment.as_ref(),
            fleet,
            warm: &live.warm,
            warm_failure: live.warm_failure.as_deref(),
        };
        let decision = rollout.plan(&observed, now_ms);
        live.reason = decision.reason().to_owned();
        let Decision::Go { phase, reason } = decision else { return Ok(()) };
        self.go(rollout.at(phase, now_ms), Action::of(phase), reason, assessment, now_ms).await
    }

    /// Writes down that a rollout goes on like this.
    async fn go(
        &mut self,
        rollout: Rollout,
        action: Action,
        reason: String,
        assessment: Option<Assessment>,
        now_ms: u64,
    ) -> Result<(), ControllerError> {
        let model = rollout.spec.model.clone();
        let stable = if matches!(rollout.phase, Phase::Done { .. }) {
            rollout.winner().to_owned()
        } else {
            rollout.stable.clone()
        };
        let live = self.live.entry(model.clone()).or_default();
        live.reason.clone_from(&reason);
        if action == Action::Started {
            *live = Live { reason: reason.clone(), ..Live::default() };
        }
        let entry = Entry { stable, rollout: Some(rollout) };
        self.write(action, &model, entry, reason, assessment, now_ms).await
    }

    /// Shows owners how things stand.
    fn publish(&self, now_ms: u64) {
        let statuses = self.book.models.iter().map(|(model, entry)| {
            let live = self.live.get(model);
            let status = Status {
                model: model.clone(),
                stable: entry.stable.clone(),
                percent: entry.percent(),
                rollout: entry.rollout.clone(),
                reason: live.map(|live| live.reason.clone()).unwrap_or_default(),
                assessment: live.and_then(Live::assessment),
                warm_prompts: live.map_or(0, |live| live.warm.len()),
                at_ms: now_ms,
            };
            self.listeners.metrics.percent(model).set(status.percent);
            (model.clone(), status)
        });
        self.published.statuses.send_replace(Arc::new(statuses.collect()));
    }

    /// Notes what was seen of the evidence, so that whoever comes next need not begin anew.
    async fn note(&mut self, now_ms: u64, at_once: bool) {
        if !self.deciding || (!at_once && now_ms.saturating_sub(self.noted_ms) < CHECKPOINT_MS) {
            return;
        }
        self.noted_ms = now_ms;
        let seen: Vec<(&String, &Watched)> =
            self.live.iter().filter_map(|(model, live)| Some((model, live.watched.as_ref()?))).collect();
        let Ok(text) = serde_json::to_string(&seen) else { return };
        if let Err(error) = self.store.checkpoint(text).await {
            tracing::warn!(%error, "what was seen of the evidence is not noted");
        }
    }
}
