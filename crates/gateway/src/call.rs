//! What travels through the inner layers: a parsed request one way, an answer the other.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use http_server::Body;
use protocol::ApiError;
use routing::StickyKey;
use serde::Deserialize;
use serde_json::Value;
use tower::Service;

use crate::error::CallError;
use crate::layers::authenticate::Tenant;

/// The paths that are passed on to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Tokenize,
    Detokenize,
}

impl Endpoint {
    /// In the order of their discriminants.
    pub(crate) const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Tokenize, Self::Detokenize];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
        }
    }

    /// Whether text is generated, and may be streamed.
    pub(crate) const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Answers that can be kept.
    pub(crate) const fn cached_as(self) -> Option<response_cache::Endpoint> {
        match self {
            Self::Chat => Some(response_cache::Endpoint::Chat),
            Self::Completions => Some(response_cache::Endpoint::Completion),
            Self::Tokenize | Self::Detokenize => None,
        }
    }
}

/// What the client says about the response cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CacheDirective {
    /// Deterministic requests are cached.
    #[default]
    Default,
    /// So is this one, deterministic or not.
    Force,
    /// This one is neither looked up nor kept.
    NoStore,
}

/// A parsed request. What only a worker needs is made of it where a worker is asked, so that an answer from the cache
/// does not pay for it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: Endpoint,
    pub(crate) request_id: Arc<str>,
    pub(crate) tenant: Tenant,
    /// As the client sent it.
    pub(crate) body: Body,
    /// The same, parsed.
    pub(crate) json: Arc<Value>,
    pub(crate) model: Arc<str>,
    pub(crate) stream: bool,
    /// The client wants the chunk with token counts; workers are always asked for it.
    pub(crate) include_usage: bool,
    pub(crate) directive: CacheDirective,
    pub(crate) sticky: StickyKey,
    /// Asked for by name, by someone who tries a version.
    pub(crate) wanted_version: Option<Arc<str>>,
    /// A copy of a request, whose answer nobody sees.
    pub(crate) is_copy: bool,
    /// Set by the layer that chooses the version.
    pub(crate) version: Option<Arc<str>>,
    /// The step of a rollout in which that was.
    pub(crate) step: Option<Arc<str>>,
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) trail: Arc<Trail>,
}

/// What the layers leave behind for headers, log and metrics.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) arrived: Instant,
    pub(crate) model: OnceLock<Arc<str>>,
    answered_by: Mutex<AnsweredBy>,
    cache: AtomicU8,
    waited_ns: AtomicU64,
    /// The status that a stream's error would have had before its first byte; 0 for none.
    broken: AtomicU16,
}

#[derive(Debug, Default)]
struct AnsweredBy {
    worker: Option<Arc<str>>,
    version: Option<Arc<str>>,
}

/// How the response cache took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheMark {
    Bypass,
    Hit,
    Miss,
    Coalesced,
}

impl CacheMark {
    const ALL: [Self; 4] = [Self::Bypass, Self::Hit, Self::Miss, Self::Coalesced];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
        }
    }
}

impl Trail {
    pub(crate) fn new(arrived: Instant) -> Self {
        Self {
            arrived,
            model: OnceLock::new(),
            answered_by: Mutex::default(),
            cache: AtomicU8::new(CacheMark::Bypass as u8),
            waited_ns: AtomicU64::new(0),
            broken: AtomicU16::new(0),
        }
    }

    pub(crate) fn set_worker(&self, name: &Arc<str>) {
        self.answered_by().worker = Some(Arc::clone(name));
    }

    pub(crate) fn worker(&self) -> Option<Arc<str>> {
        self.answered_by().worker.clone()
    }

    /// The version that was chosen, or the one that answered where that turned out to be another.
    pub(crate) fn set_version(&self, version: &Arc<str>) {
        self.answered_by().version = Some(Arc::clone(version));
    }

    pub(crate) fn version(&self) -> Option<Arc<str>> {
        self.answered_by().version.clone()
    }

    pub(crate) fn mark_cache(&self, mark: CacheMark) {
        self.cache.store(mark as u8, Ordering::Relaxed);
    }

    pub(crate) fn cache(&self) -> CacheMark {
        CacheMark::ALL[usize::from(self.cache.load(Ordering::Relaxed))]
    }

    /// Notes that the answer broke off after its first byte, when its status had gone out already.
    pub(crate) fn break_off(&self, status: u16) {
        self.broken.store(status, Ordering::Relaxed);
    }

    /// How it broke off, if it did.
    pub(crate) fn broken(&self) -> Option<u16> {
        Some(self.broken.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// Adds time that a worker, the queue or another request took, and the gateway did not.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn wait(&self) -> Duration {
        Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed))
    }

    fn answered_by(&self) -> MutexGuard<'_, AnsweredBy> {
        self.answered_by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client gets.
pub(crate) enum Answer {
    /// One JSON body.
    Whole {
        body: Bytes,
        /// From a worker that says them.
        usage: Option<TokenCounts>,
        ending: Ending,
    },
    /// Pieces of a stream; its end is the stream's proper end, an error its last item.
    Stream(Pieces),
    /// The payloads of a whole stream, all there already.
    Replay(Vec<Bytes>),
}

/// The payloads of events, without framing.
pub(crate) type Pieces = BoxStream<'static, Result<Piece, ApiError>>;

/// One event's payload.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// It has choices.
    Chunk {
        payload: Bytes,
        /// Whether it brings text, and not only a role, and whether a choice ends with it.
        ending: Ending,
    },
    /// It has token counts alone.
    Usage { payload: Bytes, usage: Option<TokenCounts> },
}

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// For a reason of its own.
    Complete,
    /// At its greatest length.
    Truncated,
}

/// What is seen of an answer, or of a piece of one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) has_text: bool,
    /// `None` where no reason was given; at the end of all that reads as truncation.
    pub(crate) end: Option<End>,
}

impl Ending {
    /// Takes in another piece, or another choice: what is cut once stays so.
    pub(crate) fn add(&mut self, has_text: bool, end: Option<End>) {
        self.has_text |= has_text;
        if self.end != Some(End::Truncated) {
            self.end = end.or(self.end);
        }
    }
}

/// What is counted of a worker's `usage`. Servers differ in what else they put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TokenCounts {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) prompt_tokens_details: Option<PromptDetails>,
}

/// Of a prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PromptDetails {
    pub(crate) cached_tokens: u64,
}

impl TokenCounts {
    /// Tokens of the prompt that had to be computed.
    pub(crate) fn uncached_tokens(&self) -> u64 {
        self.prompt_tokens
            .saturating_sub(self.prompt_tokens_details.map_or(0, |details| details.cached_tokens))
    }
}

/// A layer, or all of them.
pub(crate) trait CallService:
    Service<Call, Response = Answer, Error = CallError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> CallService for S where
    S: Service<Call, Response = Answer, Error = CallError, Future: Send> + Clone + Send + Sync + 'static
{
}
