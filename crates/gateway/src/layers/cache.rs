//! The response cache: replays what was answered before, and joins what is being answered now.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use protocol::{ApiError, ErrorCode};
use response_cache::{
    CacheKey, CachedAnswer, FlightEvent, Follower, Joined, KeyParts, Leader, Pushed, Tier, is_deterministic,
};
use telemetry::CacheResult;
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::layer;
use crate::call::{Answer, CacheDirective, CacheMark, Call, CallService, Piece, Pieces};
use crate::error::CallError;
use crate::pool::UNKNOWN_VERSION;

/// How often a request joins again after a leader failed before it goes alone.
const JOINS_MAX: usize = 3;

layer! {
    /// Answers from the cache where that is allowed.
    CacheLayer => Cache
}

/// What the leader's own client is told before the flight's events.
enum First {
    /// All of it, not streamed.
    Whole(Bytes),
    /// Read the flight.
    Stream,
}

impl<S: CallService> Cache<S> {
    async fn run(self, call: Call) -> Result<Answer, CallError> {
        let Some((endpoint, key)) = self.key(&call) else {
            self.state.metrics.cache_requests(CacheResult::Bypass).inc();
            return self.inner.oneshot(call).await;
        };
        let cache = &self.state.cache;
        if let Some((answer, tier)) = cache.get(&key).await {
            call.trail.mark_cache(CacheMark::Hit);
            let result = if tier == Tier::Memory { CacheResult::HitMemory } else { CacheResult::HitRedis };
            self.state.metrics.cache_requests(result).inc();
            return Ok(replay(&answer, call.stream));
        }
        for _ in 0..JOINS_MAX {
            match cache.flights().join(key) {
                Joined::Full => break,
                Joined::Leader(leader) => {
                    call.trail.mark_cache(CacheMark::Miss);
                    self.state.metrics.cache_requests(CacheResult::Miss).inc();
                    return self.lead(call, endpoint, key, leader).await;
                }
                Joined::Follower(follower) => {
                    call.trail.mark_cache(CacheMark::Coalesced);
                    let since = std::time::Instant::now();
                    let followed = if call.stream { follow(follower).await } else { whole(follower).await };
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

    /// The key of a call that may be answered from the cache.
    fn key(&self, call: &Call) -> Option<(response_cache::Endpoint, CacheKey)> {
        let endpoint = call.endpoint.cached_as()?;
        let version = call.version.as_deref().filter(|version| *version != UNKNOWN_VERSION)?;
        let allowed = match call.directive {
            CacheDirective::NoStore => false,
            CacheDirective::Force => true,
            CacheDirective::Default => is_deterministic(&call.json),
        };
        if !allowed || !self.state.cache_enabled {
            return None;
        }
        let parts = KeyParts { model_version: version, tenant: &call.tenant, endpoint, body: &call.json };
        Some((endpoint, CacheKey::new(&parts)))
    }

    /// Fetches in a task of its own, so that the answer outlives this client as long as others follow.
    async fn lead(
        self,
        call: Call,
        endpoint: response_cache::Endpoint,
        key: CacheKey,
        leader: Leader,
    ) -> Result<Answer, CallError> {
        let follower = leader.subscribe();
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let answer = tokio::select! {
                answer = self.inner.oneshot(call) => answer,
                () = leader.abandoned() => return,
            };
            match answer {
                Err(error) => {
                    let _ = tell.send(Err(error));
                    leader.fail();
                }
                Ok(Answer::Whole(body)) => {
                    match CachedAnswer::from_json(endpoint, &body) {
                        Ok(answer) => {
                            let answer = Arc::new(answer);
                            self.state.cache.put(key, Arc::clone(&answer));
                            leader.complete(answer);
                        }
                        Err(error) => {
                            tracing::debug!(%error, "an answer is not kept");
                            leader.fail();
                        }
                    }
                    let _ = tell.send(Ok(First::Whole(body)));
                }
                Ok(Answer::Stream(pieces)) => {
                    let _ = tell.send(Ok(First::Stream));
                    let cache = &self.state.cache;
                    let ended = tokio::select! {
                        ended = pump(&leader, pieces) => ended,
                        () = leader.abandoned() => return,
                    };
                    match ended {
                        Err(_) => leader.fail(),
                        Ok(Pumped { events: None, usage }) => leader.end(usage),
                        Ok(Pumped { events: Some(events), usage }) => {
                            match CachedAnswer::from_events(endpoint, &events, usage.as_deref()) {
                                Ok(answer) => {
                                    let answer = Arc::new(answer);
                                    cache.put(key, Arc::clone(&answer));
                                    leader.complete(answer);
                                }
                                Err(error) => {
                                    tracing::debug!(%error, "a stream is not kept");
                                    leader.end(usage);
                                }
                            }
                        }
                    }
                }
            }
        });
        match told.await {
            Ok(Ok(First::Whole(body))) => Ok(Answer::Whole(body)),
            Ok(Ok(First::Stream)) => follow(follower).await.unwrap_or_else(|| Err(broken_off().into())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CallError::new(ErrorCode::Internal, "the request broke off")),
        }
    }
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
fn replay(answer: &CachedAnswer, stream: bool) -> Answer {
    if !stream {
        return Answer::Whole(answer.json());
    }
    let usage = answer.usage_event().map(|payload| Piece::Usage { payload, usage: None });
    let chunks = answer.events(false).into_iter().map(chunk);
    Answer::Stream(stream::iter(chunks.chain(usage).map(Ok).collect::<Vec<_>>()).boxed())
}

fn chunk(payload: Bytes) -> Piece {
    Piece::Chunk { payload, has_text: true }
}

/// The whole answer of a flight; `None` to try again.
async fn whole(follower: Follower) -> Option<Result<Answer, CallError>> {
    match follower.complete().await {
        Ok(answer) => Some(Ok(Answer::Whole(answer.json()))),
        Err(failed) => failed.error.map(|error| Err(error.into())),
    }
}

/// The stream of a flight, once its first event is there; `None` to try again.
async fn follow(mut follower: Follower) -> Option<Result<Answer, CallError>> {
    let first = match follower.next().await {
        FlightEvent::Event(payload) => chunk(payload),
        FlightEvent::Complete(answer) => return Some(Ok(replay(&answer, true))),
        FlightEvent::Ended { .. } => return None,
        FlightEvent::Failed(failed) => return failed.error.map(|error| Err(error.into())),
    };
    let rest = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            FlightEvent::Event(payload) => Some((Ok(chunk(payload)), Some(follower))),
            FlightEvent::Complete(answer) => answer.usage_event().map(|payload| (Ok(usage(payload)), None)),
            FlightEvent::Ended { usage: payload } => payload.map(|payload| (Ok(usage(payload)), None)),
            FlightEvent::Failed(_) => Some((Err(broken_off()), None)),
        }
    });
    Some(Ok(Answer::Stream(stream::iter([Ok(first)]).chain(rest).boxed())))
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
