//! Picks a worker, and another one if the first fails before its first byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::Stream;
use protocol::{ApiError, ErrorCode};
use routing::{Outcome, RouteError, WorkerId};
use telemetry::VersionSeries;
use tower::{Service, ServiceExt};

use crate::call::{Answer, Call, Piece, Pieces, TokenCounts};
use crate::error::CallError;
use crate::layers::forward::{Attempt, AttemptError, Fault};
use crate::observe::{AttemptEnd, Underway};
use crate::parse::Outgoing;
use crate::pool::{Claim, UNKNOWN_VERSION};
use crate::state::State;

/// Wraps the service that speaks to one worker into one that chooses it.
#[derive(Clone)]
pub(crate) struct BalanceLayer(Arc<State>);

impl BalanceLayer {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self(Arc::clone(state))
    }
}

impl<S> tower::Layer<S> for BalanceLayer {
    type Service = Balance<S>;

    fn layer(&self, inner: S) -> Balance<S> {
        Balance { state: Arc::clone(&self.0), inner }
    }
}

/// The layer's service.
#[derive(Clone)]
pub(crate) struct Balance<S> {
    state: Arc<State>,
    inner: S,
}

impl<S> Service<Call> for Balance<S>
where
    S: Service<Attempt, Response = Answer, Error = AttemptError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = Answer;
    type Error = CallError;
    type Future = futures::future::BoxFuture<'static, Result<Answer, CallError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().run(call))
    }
}

impl<S> Balance<S>
where
    S: Service<Attempt, Response = Answer, Error = AttemptError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    async fn run(self, call: Call) -> Result<Answer, CallError> {
        let pool = &self.state.pool;
        // Copies live by themselves: they neither fill nor drain what requests share.
        if !call.is_copy {
            pool.deposit_retry();
        }
        let call = Arc::new(call);
        let outgoing = {
            let call = Arc::clone(&call);
            move || Ok(Outgoing::of(&call))
        };
        let Outgoing { body, digests } = self.state.compute.run_over(call.body.len(), outgoing).await?;
        let mut tried: Vec<WorkerId> = Vec::new();
        let (mut last_error, mut engines_failed) = (None, 0);
        loop {
            let mut claim = match pool.pick(&call, &digests, &tried) {
                Ok(claim) => claim,
                Err(error) => return Err(last_error.unwrap_or_else(|| nobody(&error))),
            };
            tried.push(claim.id());
            call.trail.set_worker(claim.name());
            if let Some(version) = claim.version() {
                call.trail.set_version(version);
            }
            let attempt =
                Attempt { call: Arc::clone(&call), body: body.clone(), worker: Arc::clone(claim.worker()) };
            let mut underway = Underway::begin(&self.state, &call, &claim);
            let since = Instant::now();
            let result = tokio::select! {
                biased;
                result = self.inner.clone().oneshot(attempt) => result,
                () = claim.silence() => Err(Fault::BrokenOff.error()),
            };
            call.trail.waited(since.elapsed());
            let error = match result {
                Ok(answer) => return Ok(self.measured(answer, claim, underway, &call)),
                Err(error) => error,
            };
            // A whole answer may be long and its worker well; one that is gone is found silent by probes.
            let long = error.fault == Fault::Timeout && !call.stream;
            let outcome = error.fault.outcome().filter(|_| !long);
            claim.record(outcome, error.fault.as_str());
            underway.broke_off(error.fault.seen());
            drop(underway);
            tracing::info!(
                request_id = &*call.request_id,
                worker = &**claim.name(),
                fault = error.fault.as_str(),
                "an attempt failed"
            );
            // A request that ends the engines it meets is not shown to all of them.
            engines_failed += usize::from(error.fault == Fault::EngineFailed);
            let again = error.fault.may_be_retried()
                && engines_failed < 2
                && !call.is_copy
                && tried.len() < self.state.config.attempts_max
                && pool.any_untried(&call.model, &tried);
            if !again || !pool.withdraw_retry() {
                return Err(error.error);
            }
            self.state.metrics.retries(error.fault.as_str()).inc();
            last_error = Some(error.error);
        }
    }

    fn measured(&self, answer: Answer, mut claim: Claim, mut underway: Underway, call: &Arc<Call>) -> Answer {
        let version = call.trail.version();
        let series = self.state.metrics.version(&call.model, version.as_deref().unwrap_or(UNKNOWN_VERSION));
        match answer {
            Answer::Stream(pieces) => Answer::Stream(Box::pin(Measured {
                pieces,
                claim,
                series,
                arrived: call.trail.arrived,
                underway,
            })),
            Answer::Whole { usage, ending, .. } => {
                count_usage(&series, usage);
                claim.record(Some(Outcome::Success), "ok");
                underway.see_ending(ending);
                underway.see_usage(usage);
                underway.end();
                answer
            }
            Answer::Replay(_) => answer,
        }
    }
}

fn nobody(error: &RouteError) -> CallError {
    tracing::warn!(%error, "no worker can be picked");
    CallError::new(ErrorCode::Unavailable, "no worker can take this request at the moment; try again shortly")
}

fn count_usage(series: &VersionSeries, usage: Option<TokenCounts>) {
    if let Some(usage) = usage {
        series.prompt_tokens.inc_by(usage.prompt_tokens);
        series.completion_tokens.inc_by(usage.completion_tokens);
    }
}

/// A worker's stream: it holds its claim on the worker, and tells how it went.
struct Measured {
    pieces: Pieces,
    claim: Claim,
    series: Arc<VersionSeries>,
    arrived: Instant,
    underway: Underway,
}

impl Measured {
    fn see(&mut self, item: Option<&Result<Piece, ApiError>>) {
        match item {
            Some(Ok(Piece::Chunk { ending, .. })) => {
                self.underway.see_ending(*ending);
                if ending.has_text {
                    self.see_text(Instant::now());
                }
            }
            Some(Ok(Piece::Usage { usage, .. })) => {
                count_usage(&self.series, *usage);
                self.underway.see_usage(*usage);
            }
            Some(Err(_)) => {
                self.underway.broke_off(AttemptEnd::Failed);
                self.claim.record(Some(Outcome::BrokenOff), Fault::BrokenOff.as_str());
            }
            None => {
                self.underway.end();
                self.claim.record(Some(Outcome::Success), "ok");
            }
        }
    }

    fn see_text(&mut self, now: Instant) {
        match self.underway.see_text(now) {
            None => self.series.time_to_first_token.observe((now - self.arrived).as_secs_f64()),
            Some(last) => self.series.inter_token_latency.observe((now - last).as_secs_f64()),
        }
    }
}

impl Stream for Measured {
    type Item = Result<Piece, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.pieces.as_mut().poll_next(context);
        if let Poll::Ready(item) = &polled {
            self.see(item.as_ref());
        }
        polled
    }
}
