//! The engine's thread: `schedule → forward → sample → commit`, then the events of that step.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use protocol::FinishReason;
use scheduler::{ScheduledSequence, Scheduler, SequenceId, SequenceSpec, StepPlan};
use tokio::sync::mpsc;

use crate::engine::{Observer, Reservation, Shared, StepReport};
use crate::model::Batch;
use crate::sampling::{SampleError, Sampled, Scratch, TokenHistory, sample, score};
use crate::stop::StopMatcher;
use crate::tokenizer::{Detokenizer, Tokenizer};
use crate::{Backend, Ended, EngineError, Event, Failure, Logits, Request, Timings, TokenEvent, TokenScore};

/// A request on its way into the thread.
#[derive(Debug)]
pub(crate) struct Submission {
    place: Reservation,
    request: Request,
    events: mpsc::Sender<Event>,
    at: Instant,
}

impl Submission {
    pub(crate) fn new(place: Reservation, request: Request, events: mpsc::Sender<Event>) -> Self {
        Self { place, request, events, at: Instant::now() }
    }
}

/// A request in the thread.
struct Active {
    request: Request,
    events: mpsc::Sender<Event>,
    history: TokenHistory,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    prompt_scores: Vec<TokenScore>,
    last_token: u32,
    /// Tokens of the prompt that were in the cache at some time.
    num_prefilled: usize,
    num_generated: usize,
    cached_tokens: usize,
    submitted: Instant,
    scheduled: Option<Instant>,
    first_token: Option<Instant>,
    _place: Reservation,
}

/// Sampled tokens in the plan's order, and whose answers they complete.
type StepTokens = (Vec<(SequenceId, u32)>, Vec<(SequenceId, Ended)>);

pub(crate) struct StepLoop {
    scheduler: Scheduler,
    backend: Box<dyn Backend>,
    tokenizer: Arc<Tokenizer>,
    inbox: mpsc::Receiver<Submission>,
    active: HashMap<SequenceId, Active>,
    /// Who is part of the step under way, or was of the last.
    in_step: Vec<SequenceId>,
    scratch: Scratch,
    next_id: u64,
    shared: Arc<Shared>,
    observer: Observer,
}

impl StepLoop {
    pub(crate) fn new(
        scheduler: Scheduler,
        backend: Box<dyn Backend>,
        tokenizer: Arc<Tokenizer>,
        inbox: mpsc::Receiver<Submission>,
        shared: Arc<Shared>,
        observer: Observer,
    ) -> Self {
        let (active, in_step, scratch) = (HashMap::new(), Vec::new(), Scratch::default());
        Self { scheduler, backend, tokenizer, inbox, active, in_step, scratch, next_id: 0, shared, observer }
    }

    /// Runs until every handle is gone and every request has ended. A panic or an error in a step ends the engine:
    /// half of a step may have been written to the KV-cache, so nothing computed from it could be trusted.
    pub(crate) fn run(mut self) {
        while self.receive() {
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.fail(&error.to_string()),
                Err(_) => return self.fail("a step panicked"),
            }
        }
    }

    /// Takes what was submitted; waits when there is nothing else to do. False when nothing ever will be.
    fn receive(&mut self) -> bool {
        if self.active.is_empty() {
            self.backend.rest();
            match self.inbox.blocking_recv() {
                Some(submission) => self.start(submission),
                None => return false,
            }
        }
        while let Ok(submission) = self.inbox.try_recv() {
            self.start(submission);
        }
        true
    }

    fn start(&mut self, submission: Submission) {
        let Submission { place, request, events, at } = submission;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let spec = SequenceSpec {
            id,
            tokens: request.prompt.clone(),
            max_tokens: request.max_tokens,
            priority: request.priority,
            salt: request.salt.clone(),
            prompt_logprobs: request.prompt_logprobs.is_some(),
        };
        if let Err(error) = self.scheduler.add(spec) {
            tracing::error!(request_id = request.request_id, %error, "a request that had a place does not fit");
            let _ = events.try_send(Event::Failed(Failure::Engine));
            return;
        }
        let active = Active {
            history: TokenHistory::new(&request.prompt),
            detokenizer: Detokenizer::default(),
            stop: StopMatcher::new(request.stop.clone()),
            prompt_scores: Vec::new(),
            last_token: 0,
            num_prefilled: 0,
            num_generated: 0,
            cached_tokens: 0,
            submitted: at,
            scheduled: None,
            first_token: None,
            request,
            events,
            _place: place,
        };
        self.active.insert(id, active);
    }

    fn step(&mut self) -> Result<(), EngineError> {
        let started = Instant::now();
        self.in_step.clear();
        self.drop_cancelled();
        let plan = self.scheduler.schedule();
        self.in_step.extend(plan.sequences.iter().map(|run| run.id));
        if plan.is_empty() {
            assert!(self.active.is_empty(), "with requests there is always something to compute");
            self.shared.publish(self.scheduler.stats());
            return Ok(());
        }
        let active = &self.active;
        let block_size = self.scheduler.config().block_size;
        let batch =
            Batch::from_plan(&plan, block_size, |id| active.get(&id).map_or(0, |active| active.last_token));
        let mut logits = self.backend.forward(&batch)?;
        let (sampled, ended) = self.sample(&plan, &batch, &mut logits, started);
        self.backend.take_back(logits);
        self.scheduler.commit(plan.step, &sampled);
        let num_prompt_tokens = plan.sequences.iter().map(|run| self.count_prefilled(run)).sum();
        let ended: Vec<_> = ended.into_iter().filter_map(|(id, ended)| self.end(id, ended)).collect();
        let stats = self.scheduler.stats();
        self.shared.publish(stats);
        // Told last: a client that asks again at once finds its place free and the load without it.
        for (events, ended) in ended {
            let _ = events.try_send(Event::Ended(ended));
        }
        (self.observer)(&StepReport {
            plan: &plan,
            num_tokens: plan.num_tokens(),
            num_sequences: plan.sequences.len(),
            num_prompt_tokens,
            num_generated_tokens: sampled.len(),
            duration: started.elapsed(),
            stats,
            pace: self.backend.pace(),
        });
        Ok(())
    }

    /// A request whose receiver is gone gives its blocks back before the next step is planned.
    fn drop_cancelled(&mut self) {
        self.active.retain(|id, active| {
            let cancelled = active.events.is_closed();
            if cancelled {
                tracing::debug!(request_id = active.request.request_id, "cancelled");
                self.scheduler.remove(*id);
            }
            !cancelled
        });
    }

    /// Samples each run that asks, in the plan's order, tells its request, and scores prompt tokens where wanted. A
    /// request whose logits are not numbers fails alone.
    fn sample(&mut self, plan: &StepPlan, batch: &Batch, logits: &mut Logits, now: Instant) -> StepTokens {
        let mut rows = logits.rows();
        let (mut sampled, mut all_ended) = (Vec::with_capacity(batch.logit_rows.len()), Vec::new());
        for (run, shape) in plan.sequences.iter().zip(&batch.sequences) {
            let mut own: Vec<&mut [f32]> = rows.by_ref().take(shape.num_logits).collect();
            let Some(active) = self.active.get_mut(&run.id) else { continue };
            if active.scheduled.is_none() {
                active.scheduled = Some(now);
                active.cached_tokens = run.start;
            }
            let outcome = active.sample(run, &mut own, &mut self.scratch, &self.tokenizer, &mut sampled);
            match outcome {
                Ok(ended) => all_ended.extend(ended.map(|ended| (run.id, ended))),
                Err(error) => {
                    tracing::error!(request_id = active.request.request_id, %error, "sampling failed");
                    let _ = active.events.try_send(Event::Failed(Failure::NotANumber));
                    self.active.remove(&run.id);
                    self.scheduler.remove(run.id);
                }
            }
        }
        (sampled, all_ended)
    }

    /// Tokens of a prompt that are in the cache for the first time.
    fn count_prefilled(&mut self, run: &ScheduledSequence) -> usize {
        let Some(active) = self.active.get_mut(&run.id) else { return 0 };
        let before = active.num_prefilled;
        active.num_prefilled = before.max(run.end().min(active.request.prompt.len()));
        active.num_prefilled - before
    }

    /// Gives up a request's blocks and its place, and returns what is to be told, and whom.
    fn end(&mut self, id: SequenceId, ended: Ended) -> Option<(mpsc::Sender<Event>, Ended)> {
        let Active { events, .. } = self.active.remove(&id)?;
        self.scheduler.remove(id);
        Some((events, ended))
    }

    /// Tells everyone, now and as long as there are handles, that there will be no answer.
    fn fail(mut self, reason: &str) {
        tracing::error!(reason, requests = self.active.len(), "the engine failed and takes no more requests");
        self.shared.fail();
        for (id, active) in self.active.drain() {
            let failure = if self.in_step.contains(&id) { Failure::Engine } else { Failure::Stopped };
            let _ = active.events.try_send(Event::Failed(failure));
        }
        while let Some(submission) = self.inbox.blocking_recv() {
            let _ = submission.events.try_send(Event::Failed(Failure::Stopped));
        }
    }
}

impl Active {
    /// Samples where the run asks, up to the first token that ends the answer or is not what was guessed: since the
    /// rows after it follow a guess that is not so, and those before it are what one step each would have given.
    fn sample(
        &mut self,
        run: &ScheduledSequence,
        rows: &mut [&mut [f32]],
        scratch: &mut Scratch,
        tokenizer: &Tokenizer,
        all_sampled: &mut Vec<(SequenceId, u32)>,
    ) -> Result<Option<Ended>, SampleError> {
        if run.prompt_logprobs {
            self.score_prompt(run, rows)?;
        }
        if !run.sample {
            return Ok(None);
        }
        let guesses = &run.tokens[run.tokens.len() - run.num_drafts..];
        let first = rows.len().saturating_sub(1 + guesses.len());
        for (at, row) in rows[first..].iter_mut().enumerate() {
            let position = run.end() - guesses.len() + at;
            let sampled = sample(row, &self.request.sampling, &self.history, position as u64, scratch)?;
            let token = sampled.token;
            all_sampled.push((run.id, token));
            let ended = self.take_token(sampled, tokenizer);
            if ended.is_some() || guesses.get(at) != Some(&token) {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    /// Row r of a run sits at position `start + r` and predicts the token after it.
    fn score_prompt(&mut self, run: &ScheduledSequence, rows: &[&mut [f32]]) -> Result<(), SampleError> {
        let Some(top) = self.request.prompt_logprobs else { return Ok(()) };
        for (offset, row) in rows.iter().enumerate() {
            let predicted = run.start + offset + 1;
            // A preempted request comes by here twice.
            if let Some(token) =
                self.request.prompt.get(predicted).filter(|_| self.prompt_scores.len() < predicted)
            {
                self.prompt_scores.push(TokenScore::new(*token, score(row, *token, top)?));
            }
        }
        if run.end() >= self.request.prompt.len() && self.num_generated == 0 {
            let _ = self.events.try_send(Event::PromptLogprobs(std::mem::take(&mut self.prompt_scores)));
        }
        Ok(())
    }

    /// Tells the request about a token, and returns what is to be told last if the answer ends with it.
    fn take_token(&mut self, sampled: Sampled, tokenizer: &Tokenizer) -> Option<Ended> {
        let Sampled { token, logprobs } = sampled;
        let at = Instant::now();
        self.first_token.get_or_insert(at);
        self.last_token = token;
        self.num_generated += 1;
        self.history.push(token);
        let end_of_generation = tokenizer.is_eog(token) && !self.request.ignore_eos;
        let text = if end_of_generation { String::new() } else { self.detokenizer.push(tokenizer, token) };
        let output = self.stop.push(&text);
        let score = logprobs.map(|scored| TokenScore::new(token, scored));
        let _ = self.events.try_send(Event::Token(TokenEvent { token, text: output.text, score, at }));
        if output.stopped.is_some() {
            return Some(self.ended(FinishReason::Stop, String::new(), at));
        }
        if end_of_generation {
            let rest = self.rest();
            return Some(self.ended(FinishReason::Stop, rest, at));
        }
        (self.num_generated >= self.request.max_tokens).then(|| {
            let rest = self.rest();
            self.ended(FinishReason::Length, rest, at)
        })
    }

    /// What was held back for an unfinished character or a stop string that did not come.
    fn rest(&mut self) -> String {
        let tail = self.detokenizer.finish();
        let output = self.stop.push(&tail);
        if output.stopped.is_some() { output.text } else { output.text + &self.stop.finish() }
    }

    fn ended(&self, reason: FinishReason, text: String, at: Instant) -> Ended {
        let scheduled = self.scheduled.unwrap_or(at);
        let first_token = self.first_token.unwrap_or(at);
        Ended {
            reason,
            text,
            prompt_tokens: self.request.prompt.len(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.num_generated,
            timings: Timings {
                queued: scheduled.saturating_duration_since(self.submitted),
                prefill: first_token.saturating_duration_since(scheduled),
                decode: at.saturating_duration_since(first_token),
            },
            at,
        }
    }
}
