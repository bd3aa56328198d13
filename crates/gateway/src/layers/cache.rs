//! The response cache: replays what was answered before, and joins what is being answered now.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use protocol::{ApiError, ErrorCode};
use response_cache::{
    CacheKey, CachedAnswer, FlightEvent, FlightFailed, Follower, Joined, KeyParts, Leader, Pushed, Tier,
    is_deterministic,
};
use telemetry::CacheResult;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tracing::Instrument;

use super::layer;
use crate::call::{Answer, CacheDirective, CacheMark, Call, CallService, Ending, Piece, Pieces};
use crate::error::CallError;
use crate::pool::UNKNOWN_VERSION;
use crate::state::State;

/// How often a request joins again after a leader failed before it goes alone.
const JOINS_MAX: usize = 3;

layer! {
    /// Answers from the cache where that is allowed.
    CacheLayer => Cache
}

/// What the leader's own client is told before the flight's events.
enum First {
    /// All of it, not streamed.
    Whole(Answer),
    /// Read the flight.
    Stream,
}

/// Where an answer belongs.
#[derive(Clone, Copy)]
struct Place {
    endpoint: response_cache::Endpoint,
    key: CacheKey,
}

impl<S: CallService> Cache<S> {
    async fn run(self, call: Call) -> Result<Answer, CallError> {
        let Some(place) = self.place(&call).await? else {
            self.state.metrics.cache_requests(CacheResult::Bypass).inc();
            return self.inner.oneshot(call).await;
        };
        let cache = &self.state.cache;
        if let Some((answer, tier)) = cache.get(&place.key).await {
            return Ok(self.hit(&call, &answer, tier));
        }
        for _ in 0..JOINS_MAX {
            match cache.flights().join(place.key) {
                Joined::Full => break,
                Joined::Leader(leader) => {
                    // It may have come since it was looked for.
                    if let Some(answer) = cache.peek(&place.key) {
                        leader.complete(Arc::clone(&answer));
                        return Ok(self.hit(&call, &answer, Tier::Memory));
                    }
                    call.trail.mark_cache(CacheMark::Miss);
                    self.state.metrics.cache_requests(CacheResult::Miss).inc();
                    return self.lead(call, place, leader).await;
                }
                Joined::Follower(follower) => {
                    call.trail.mark_cache(CacheMark::Coalesced);
                    let since = std::time::Instant::now();
                    let followed =
                        if call.stream { follow(follower, &call).await } else { whole(follower).await };
                    call.trail.waited(since.elapsed());
                    if let Some(answer) = followed {
                        self.state.metrics.cache_requests(CacheResult::Coalesced).inc();
                        return answer;
                    }
                }
            }
        }
        call.trail.mark_cache(CacheMark::Bypass);
        self.state.metrics.cache_requests(CacheResult::Bypass).inc();
        self.inner.oneshot(call).await
    }

    /// Where the answer of a call belongs, if it may come from the cache.
    async fn place(&self, call: &Call) -> Result<Option<Place>, CallError> {
        let Some(endpoint) = call.endpoint.cached_as() else { return Ok(None) };
        let known = |version: &&Arc<str>| ***version != *UNKNOWN_VERSION;
        let Some(version) = call.version.as_ref().filter(known).map(Arc::clone) else { return Ok(None) };
        let allowed = match call.directive {
            CacheDirective::NoStore => false,
            CacheDirective::Force => true,
            CacheDirective::Default => is_deterministic(&call.json),
        };
        if !allowed || !self.state.cache_enabled {
            return Ok(None);
        }
        let (tenant, json) = (Arc::clone(&call.tenant.name), Arc::clone(&call.json));
        let key = move || {
            let parts = KeyParts { model_version: &version, tenant: &tenant, endpoint, body: &json };
            Ok(CacheKey::new(&parts))
        };
        let key = self.state.compute.run_over(call.body.len(), key).await?;
        Ok(Some(Place { endpoint, key }))
    }

    fn hit(&self, call: &Call, answer: &CachedAnswer, tier: Tier) -> Answer {
        call.trail.mark_cache(CacheMark::Hit);
        let result = if tier == Tier::Memory { CacheResult::HitMemory } else { CacheResult::HitRedis };
        self.state.metrics.cache_requests(result).inc();
        replay(answer, call)
    }

    /// Fetches in a task of its own, so that the answer outlives this client as long as others follow.
    async fn lead(self, call: Call, place: Place, leader: Leader) -> Result<Answer, CallError> {
        let follower = leader.subscribe();
        let (tell, told) = oneshot::channel();
        tokio::spawn(self.fetch(call.clone(), place, leader, tell).in_current_span());
        match told.await {
            Ok(Ok(First::Whole(answer))) => Ok(answer),
            Ok(Ok(First::Stream)) => {
                follow(follower, &call).await.unwrap_or_else(|| Err(broken_off().into()))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CallError::new(ErrorCode::Internal, "the request broke off")),
        }
    }

    /// Ends early, and with it the worker's part, when nobody waits any more.
    async fn fetch(
        self,
        call: Call,
        place: Place,
        leader: Leader,
        tell: oneshot::Sender<Result<First, CallError>>,
    ) {
        let (trail, version) = (Arc::clone(&call.trail), call.version.clone());
        let answer = tokio::select! {
            answer = self.inner.oneshot(call) => answer,
            () = leader.abandoned() => return,
        };
        // The version that was to answer is in the key; it may have changed since.
        let may_be_kept = trail.version() == version;
        let complete = |leader: Leader, answer: CachedAnswer| {
            let answer = Arc::new(answer);
            if may_be_kept {
                self.state.cache.put(place.key, Arc::clone(&answer));
            }
            leader.complete(answer);
        };
        match answer {
            Err(error) => {
                match &error {
                    CallError::Own(error) => leader.fail_with(error.clone()),
                    CallError::Relayed { .. } => leader.fail(),
                }
                let _ = tell.send(Err(error));
            }
            Ok(Answer::Stream(pieces)) => {
                let _ = tell.send(Ok(First::Stream));
                let pumped = tokio::select! {
                    pumped = pump(&leader, pieces) => pumped,
                    () = leader.abandoned() => return,
                };
                match pumped {
                    Err(error) => leader.fail_with(error),
                    Ok(Pumped { events, usage }) => match stream_to_keep(place, events, usage.as_ref()) {
                        Some(answer) => complete(leader, answer),
                        None => leader.end(usage),
                    },
                }
            }
            Ok(Answer::Replay(replay)) => {
                leader.fail();
                let _ = tell.send(Ok(First::Whole(Answer::Replay(replay))));
            }
            Ok(Answer::Whole { body, usage, ending }) => {
                match body_to_keep(&self.state, &place, body.clone()).await {
                    Some(kept) => complete(leader, kept),
                    None => leader.fail(),
                }
                // Told last: a client that has its answer and asks again finds it kept.
                let _ = tell.send(Ok(First::Whole(Answer::Whole { body, usage, ending })));
            }
        }
    }
}

/// The leader's error that a follower without an event takes for its own, because it waited as long, and asking for
/// itself it would wait as long once more. After any other it tries again.
fn own_error(failed: FlightFailed) -> Option<CallError> {
    let for_all = |error: &ApiError| matches!(error.code, ErrorCode::Overloaded | ErrorCode::Timeout);
    failed.error.filter(for_all).map(CallError::Own)
}

async fn body_to_keep(state: &State, place: &Place, body: Bytes) -> Option<CachedAnswer> {
    let (endpoint, len) = (place.endpoint, body.len());
    let parse = move || Ok(CachedAnswer::from_json(endpoint, &body));
    let kept = state.compute.run_over(len, parse).await.ok()?;
    kept.inspect_err(|error| tracing::debug!(%error, "an answer is not kept")).ok()
}

fn stream_to_keep(place: Place, events: Option<Vec<Bytes>>, usage: Option<&Bytes>) -> Option<CachedAnswer> {
    let kept = CachedAnswer::from_events(place.endpoint, &events?, usage.map(|usage| &usage[..]));
    kept.inspect_err(|error| tracing::debug!(%error, "a stream is not kept")).ok()
}

/// A stream that came to its proper end.
struct Pumped {
    /// All of its events, unless they outgrew the flight's log.
    events: Option<Vec<Bytes>>,
    usage: Option<Bytes>,
}

/// Writes a stream into the flight's log.
async fn pump(leader: &Leader, mut pieces: Pieces) -> Result<Pumped, ApiError> {
    let (mut usage, mut kept) = (None, true);
    while let Some(piece) = pieces.next().await {
        match piece? {
            Piece::Chunk { payload, .. } => kept &= leader.push(payload).await == Pushed::Kept,
            Piece::Usage { payload, .. } => usage = Some(payload),
        }
    }
    Ok(Pumped { events: if kept { leader.events() } else { None }, usage })
}

/// A kept answer in the form that is asked for.
fn replay(answer: &CachedAnswer, call: &Call) -> Answer {
    if call.stream { Answer::Replay(answer.events(call.include_usage)) } else { whole_of(answer) }
}

/// The whole answer of a flight; `None` to try again.
async fn whole(follower: Follower) -> Option<Result<Answer, CallError>> {
    match follower.complete().await {
        Ok(answer) => Some(Ok(whole_of(&answer))),
        Err(failed) => own_error(failed).map(Err),
    }
}

fn whole_of(answer: &CachedAnswer) -> Answer {
    Answer::Whole { body: answer.json(), usage: None, ending: Ending::default() }
}

/// The stream of a flight, once its first event is there; `None` to try again.
async fn follow(mut follower: Follower, call: &Call) -> Option<Result<Answer, CallError>> {
    let first = match follower.next().await {
        FlightEvent::Event(payload) => chunk(payload),
        FlightEvent::Complete(answer) => return Some(Ok(replay(&answer, call))),
        // A stream without choices, which may have token counts all the same.
        FlightEvent::Ended { usage } => {
            return Some(Ok(Answer::Replay(usage.into_iter().filter(|_| call.include_usage).collect())));
        }
        FlightEvent::Failed(failed) => return own_error(failed).map(Err),
    };
    let rest = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            FlightEvent::Event(payload) => Some((Ok(chunk(payload)), Some(follower))),
            FlightEvent::Complete(answer) => answer.usage_event().map(|payload| (Ok(usage(payload)), None)),
            FlightEvent::Ended { usage: payload } => payload.map(|payload| (Ok(usage(payload)), None)),
            FlightEvent::Failed(failed) => Some((Err(failed.error.unwrap_or_else(broken_off)), None)),
        }
    });
    Some(Ok(Answer::Stream(stream::iter([Ok(first)]).chain(rest).boxed())))
}

fn chunk(payload: Bytes) -> Piece {
    Piece::Chunk { payload, ending: Ending { has_text: true, end: None } }
}

fn usage(payload: Bytes) -> Piece {
    Piece::Usage { payload, usage: None }
}

fn broken_off() -> ApiError {
    ApiError::new(
        ErrorCode::BadGateway,
        "the worker broke off in the middle of this answer; send the request again",
    )
}
