//! The tier that gateways share.
//!
//! Requests only ever see a connection that works or none. A lost connection, or time-outs in a row, take it away at
//! once (the breaker is open); a task of its own connects again and probes (half open) after a cool-down, so that no
//! request ever pays for finding out whether Redis is back. Writes wait in a bounded queue for another task, on a
//! connection of their own, so that a large answer on its way out delays no look-up.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::stats::Counters;
use crate::{CacheKey, CachedAnswer, Config, envelope};

/// Commands that wait for the connection's own task; above it callers wait, and time out.
const PIPELINE_MAX: usize = 1024;

/// Dropping it ends its tasks; what is still queued is lost, as [`RedisTier::flush`] was the time to write it.
pub(crate) struct RedisTier {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Write>,
    _tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    bounds: Bounds,
    link: RwLock<Option<Arc<Link>>>,
    /// Told when the link was taken away.
    broken: Notify,
    up: watch::Sender<bool>,
    queued: AtomicU64,
    queued_bytes: AtomicU64,
    counters: Arc<Counters>,
}

struct Bounds {
    timeout: Duration,
    background_timeout: Duration,
    cooldown: Duration,
    failures_max: u32,
    ttl_s: u64,
    answer_bytes_max: u64,
    queue_bytes_max: u64,
    key_prefix: String,
}

/// One connected period.
struct Link {
    reads: Lane,
    writes: Lane,
    /// A refusal is logged once in a period: a full Redis refuses every write.
    refusal_told: AtomicBool,
}

/// One connection. Reads and writes count apart: writes that succeed in a second say nothing about reads that must
/// in milliseconds.
struct Lane {
    connection: MultiplexedConnection,
    timeouts_in_a_row: AtomicU32,
}

enum Write {
    Answer { key: CacheKey, answer: Arc<CachedAnswer>, bytes: u64 },
    Flush(oneshot::Sender<()>),
}

impl RedisTier {
    /// Starts the two tasks; needs a runtime. Redis need not be there yet.
    pub(crate) fn start(client: Client, config: &Config, counters: Arc<Counters>) -> Self {
        let (queue, writes) = mpsc::channel(usize::try_from(config.redis_write_queue_max).unwrap_or(1));
        let shared = Arc::new(Shared {
            client,
            bounds: Bounds {
                timeout: Duration::from_millis(config.redis_timeout_ms),
                background_timeout: Duration::from_millis(config.redis_background_timeout_ms),
                cooldown: Duration::from_millis(config.redis_cooldown_ms),
                failures_max: config.redis_failures_max,
                ttl_s: config.ttl_s,
                answer_bytes_max: config.answer_bytes_max,
                queue_bytes_max: config.redis_write_queue_bytes_max,
                key_prefix: config.redis_key_prefix.clone(),
            },
            link: RwLock::new(None),
            broken: Notify::new(),
            up: watch::Sender::new(false),
            queued: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            counters,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_connected(Arc::clone(&shared)));
        tasks.spawn(write_queued(Arc::clone(&shared), writes));
        Self { shared, queue, _tasks: tasks }
    }

    /// An answer and how long it may still live. Whatever Redis does, this takes no longer than the time-out and what
    /// it takes to unpack one answer.
    pub(crate) async fn get(&self, key: &CacheKey) -> Option<(CachedAnswer, Duration)> {
        let shared = &self.shared;
        let Some(link) = shared.link() else {
            shared.counters.redis_skipped.add_one();
            return None;
        };
        let fetch = shared.fetch(&link.reads, key);
        let (value, ttl_ms) = shared.watched(&link, &link.reads, shared.bounds.timeout, fetch).await?;
        if value.is_empty() {
            return None;
        }
        // Negative for a key that was given no end, or that ended in this very moment.
        let left = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        match envelope::decode(key, &value, shared.bounds.answer_bytes_max) {
            Ok(answer) => Some((answer, left.min(Duration::from_secs(shared.bounds.ttl_s)))),
            Err(_) => {
                shared.counters.redis_corrupt.add_one();
                None
            }
        }
    }

    /// Queues an answer to be written. A full queue drops it: the cache must not hold up what it is to speed up.
    pub(crate) fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>) {
        let shared = &self.shared;
        let bytes = answer.memory_bytes();
        let waiting = shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.queued.fetch_add(1, Ordering::Relaxed);
        let fits = waiting + bytes <= shared.bounds.queue_bytes_max;
        if !fits || self.queue.try_send(Write::Answer { key, answer, bytes }).is_err() {
            shared.leave_queue(bytes);
            shared.counters.writes_dropped.add_one();
        }
    }

    /// Waits until everything queued before was written or dropped, at most `deadline`. Whether it was in time.
    pub(crate) async fn flush(&self, deadline: Duration) -> bool {
        let (done, written) = oneshot::channel();
        let flush = async { self.queue.send(Write::Flush(done)).await.is_ok() && written.await.is_ok() };
        timeout(deadline, flush).await.unwrap_or(false)
    }

    /// Whether Redis is in use, as it changes.
    pub(crate) fn up(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    pub(crate) fn queued(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client holds the password.
        f.debug_struct("RedisTier").field("up", &*self.shared.up.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn name(&self, key: &CacheKey) -> String {
        format!("{}{key}", self.bounds.key_prefix)
    }

    /// The value and the milliseconds that it has left, in one round trip. Never more of the value than an answer
    /// can take, whatever lies there: one that is longer is cut, and does not decode.
    async fn fetch(&self, lane: &Lane, key: &CacheKey) -> Result<(Vec<u8>, i64), RedisError> {
        let name = self.name(key);
        let last = envelope::value_bytes_max(self.bounds.answer_bytes_max);
        let mut pipe = redis::pipe();
        pipe.cmd("GETRANGE").arg(&name).arg(0).arg(last).cmd("PTTL").arg(&name);
        pipe.query_async(&mut lane.connection.clone()).await
    }

    async fn store(&self, lane: &Lane, key: &CacheKey, value: Vec<u8>) -> Result<(), RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(self.name(key)).arg(value).arg("EX").arg(self.bounds.ttl_s);
        set.query_async(&mut lane.connection.clone()).await
    }

    /// Runs a command under a time-out and keeps account of what became of it.
    async fn watched<T>(
        &self,
        link: &Arc<Link>,
        lane: &Lane,
        limit: Duration,
        command: impl Future<Output = Result<T, RedisError>>,
    ) -> Option<T> {
        match timeout(limit, command).await {
            Ok(Ok(reply)) => {
                lane.timeouts_in_a_row.store(0, Ordering::Relaxed);
                Some(reply)
            }
            Ok(Err(error)) => {
                self.counters.redis_errors.add_one();
                if error.is_unrecoverable_error() || error.is_io_error() {
                    self.break_link(link, &format!("the connection is lost: {error}"));
                } else if !link.refusal_told.swap(true, Ordering::Relaxed) {
                    warn!(%error, "redis refuses a command; what it refuses is not kept or not found");
                }
                None
            }
            Err(_) => {
                self.counters.redis_timeouts.add_one();
                if lane.timeouts_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= self.bounds.failures_max {
                    self.break_link(link, "it does not answer in time");
                }
                None
            }
        }
    }

    /// Takes a link away from requests, once.
    fn break_link(&self, broken: &Arc<Link>, reason: &str) {
        {
            let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
            // A failure that comes late must not break the link that came after its own.
            if !link.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
                return;
            }
            *link = None;
            self.up.send_replace(false);
        }
        warn!(reason, "redis is left alone for now; answers are kept in this process only");
        self.broken.notify_one();
    }

    fn set_link(&self, connected: Link) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        *link = Some(Arc::new(connected));
        self.up.send_replace(true);
    }

    /// Connects twice and makes sure that both answer.
    async fn connect(&self) -> Result<Link, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.bounds.background_timeout))
            // Each call has its own time-out.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_MAX);
        let connect = async || {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            redis::cmd("PING").query_async::<()>(&mut connection).await?;
            Ok::<_, RedisError>(Lane { connection, timeouts_in_a_row: AtomicU32::new(0) })
        };
        let both = async {
            let (reads, writes) = (connect().await?, connect().await?);
            Ok::<_, RedisError>(Link { reads, writes, refusal_told: AtomicBool::new(false) })
        };
        match timeout(self.bounds.background_timeout, both).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer in time".to_owned()),
        }
    }

    async fn write(&self, key: &CacheKey, answer: &CachedAnswer) {
        let Some(link) = self.link() else {
            self.counters.redis_skipped.add_one();
            self.counters.writes_dropped.add_one();
            return;
        };
        let store = async {
            let value = envelope::encode(key, answer).ok()?;
            let store = self.store(&link.writes, key, value);
            self.watched(&link, &link.writes, self.bounds.background_timeout, store).await
        };
        match store.await {
            Some(()) => self.counters.redis_writes.add_one(),
            None => self.counters.writes_dropped.add_one(),
        }
    }

    fn leave_queue(&self, bytes: u64) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Connects, waits until the link breaks, and connects again after a cool-down, for ever.
async fn keep_connected(shared: Arc<Shared>) {
    let mut told = false;
    loop {
        match shared.connect().await {
            Ok(link) => {
                shared.set_link(link);
                info!("redis is in use");
                told = true;
                shared.broken.notified().await;
            }
            Err(error) if !told => {
                told = true;
                warn!(error, "redis cannot be reached; answers are kept in this process only until it can");
            }
            Err(_) => {}
        }
        sleep(shared.bounds.cooldown).await;
    }
}

async fn write_queued(shared: Arc<Shared>, mut queue: mpsc::Receiver<Write>) {
    while let Some(write) = queue.recv().await {
        match write {
            Write::Answer { key, answer, bytes } => {
                shared.write(&key, &answer).await;
                shared.leave_queue(bytes);
            }
            // Nobody waits any more if this fails.
            Write::Flush(done) => drop(done.send(())),
        }
    }
}
