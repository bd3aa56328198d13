//! The Redis tier against a real server that is started, killed and paused.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use response_cache::{CacheKey, CachedAnswer, Config, Endpoint, KeyParts, ResponseCache, Tier};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

/// Far above what anything here takes, far below what a hang takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of this test's own on a free loopback port, killed when it is dropped.
struct Redis {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Redis {
    fn start() -> Self {
        // Between finding a free port and using it another process may take it.
        (0..5).find_map(|_| Self::start_on(free_port())).expect("redis-server starts on a free port")
    }

    fn start_on(port: u16) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => panic!(
                "redis-server cannot be started ({error}); run `cargo xtask test`, which brings the servers that the \
                 tests need, or install redis-server"
            ),
        };
        let mut log = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = log.any(|line| line.is_ok_and(|line| line.contains("Ready to accept connections")));
        if !ready {
            child.wait().expect("it has ended");
            return None;
        }
        // Its log must be read on, or it blocks when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        Some(Self { child, port, _directory: directory })
    }

    fn url(&self) -> String {
        url(self.port)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("the process is there");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Time-outs as in production, but probes in quick succession.
fn start(url: String) -> ResponseCache {
    let config = Config { redis_url: Some(url), redis_cooldown_ms: 10, ..Config::default() };
    ResponseCache::start(config).expect("starts")
}

async fn until_up(cache: &ResponseCache, wanted: bool) {
    let mut up = cache.redis_up().expect("there is a Redis tier");
    timeout(PATIENCE, up.wait_for(|up| *up == wanted)).await.expect("in time").expect("the cache lives");
}

async fn connected(url: String) -> ResponseCache {
    let cache = start(url);
    until_up(&cache, true).await;
    cache
}

fn key(number: u32) -> CacheKey {
    let body = json!({ "prompt": number });
    CacheKey::new(&KeyParts { model_version: "v", tenant: "t", endpoint: Endpoint::Completion, body: &body })
}

fn answer(text: &str) -> Arc<CachedAnswer> {
    let body = json!({"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}]});
    Arc::new(CachedAnswer::from_json(Endpoint::Completion, body.to_string()).expect("complete"))
}

async fn keep(cache: &ResponseCache, number: u32, text: &str) {
    cache.put(key(number), answer(text));
    assert!(cache.flush(PATIENCE).await, "written in time");
}

/// A busy machine may make one look-up time out; what is kept is found within a few.
async fn find(cache: &ResponseCache, number: u32) -> Option<(Arc<CachedAnswer>, Tier)> {
    for _ in 0..50 {
        until_up(cache, true).await;
        if let Some(found) = cache.get(&key(number)).await {
            return Some(found);
        }
    }
    None
}

#[tokio::test]
async fn one_gateway_finds_in_redis_what_another_put_and_then_in_its_own_memory() {
    let redis = Redis::start();
    let (one, other) = (connected(redis.url()).await, connected(redis.url()).await);
    keep(&one, 1, "hello").await;
    assert_eq!(one.get(&key(1)).await, Some((answer("hello"), Tier::Memory)));
    assert_eq!(find(&other, 1).await, Some((answer("hello"), Tier::Redis)));
    assert_eq!(other.get(&key(1)).await, Some((answer("hello"), Tier::Memory)));
    assert_eq!(other.get(&key(2)).await, None);

    let (one, other) = (one.stats(), other.stats());
    assert_eq!((one.redis_writes, one.writes_dropped, one.writes_queued), (1, 0, 0));
    assert_eq!((other.redis_hits, other.memory_hits, other.redis_corrupt), (1, 1, 0));
    assert!(other.redis_up && other.misses >= 1 && other.entries == 1 && other.bytes > 0);
}

#[tokio::test]
async fn what_is_kept_in_redis_ends_with_its_time_and_is_held_here_no_longer() {
    let redis = Redis::start();
    let (one, other) = (connected(redis.url()).await, connected(redis.url()).await);
    keep(&one, 1, "hello").await;
    let mut plain = client(&redis).await;
    let name = format!("{}{}", Config::default().redis_key_prefix, key(1));
    let left: i64 = redis::cmd("TTL").arg(&name).query_async(&mut plain).await.expect("answers");
    assert!((1..=3600).contains(&left), "{left}");

    // Whoever finds it a moment before its end holds it for that moment. A busy machine may miss the moment.
    for _ in 0..20 {
        keep(&one, 1, "hello").await;
        let () = redis::cmd("PEXPIRE").arg(&name).arg(300).query_async(&mut plain).await.expect("answers");
        if find(&other, 1).await.is_some() {
            let start = Instant::now();
            while other.peek(&key(1)).is_some() {
                assert!(start.elapsed() < PATIENCE, "it outlived its time");
                tokio::task::yield_now().await;
            }
            return;
        }
    }
    panic!("it was never found");
}

#[tokio::test]
async fn a_killed_redis_is_a_miss_at_once_and_is_used_again_when_it_is_back() {
    let redis = Redis::start();
    let port = redis.port;
    let cache = connected(redis.url()).await;
    keep(&cache, 1, "hello").await;
    drop(redis);

    let start = Instant::now();
    for number in 100..200 {
        assert_eq!(cache.get(&key(number)).await, None);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(
        cache.get(&key(1)).await,
        Some((answer("hello"), Tier::Memory)),
        "this process's own are not lost"
    );
    until_up(&cache, false).await;
    let stats = cache.stats();
    assert!(stats.redis_errors + stats.redis_timeouts >= 1 && stats.redis_skipped >= 1, "{stats:?}");
    cache.put(key(2), answer("dropped"));
    assert!(cache.flush(PATIENCE).await, "a flush does not wait for a Redis that is gone");
    assert_eq!(cache.stats().writes_dropped, 1);

    let _redis = Redis::start_on(port).expect("its port is free again");
    until_up(&cache, true).await;
    keep(&cache, 3, "back").await;
    let other = connected(url(port)).await;
    assert_eq!(find(&other, 3).await, Some((answer("back"), Tier::Redis)));
}

#[tokio::test]
async fn a_paused_redis_costs_a_few_requests_some_milliseconds_and_the_rest_nothing() {
    let redis = Redis::start();
    let cache = connected(redis.url()).await;
    keep(&cache, 1, "hello").await;
    redis.signal(Signal::SIGSTOP);

    let start = Instant::now();
    for number in 100..1100 {
        assert_eq!(cache.get(&key(number)).await, None);
    }
    // Without a breaker a thousand time-outs of 5 ms would take 5 s, with the library's own of 500 ms eight minutes.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let stats = cache.stats();
    assert!((5..20).contains(&stats.redis_timeouts), "{stats:?}");
    assert!(stats.redis_skipped > 900 && !stats.redis_up, "{stats:?}");

    redis.signal(Signal::SIGCONT);
    until_up(&cache, true).await;
    let other = connected(redis.url()).await;
    assert_eq!(find(&other, 1).await, Some((answer("hello"), Tier::Redis)));
}

#[tokio::test]
async fn it_starts_without_redis_and_uses_it_when_it_comes() {
    let port = free_port();
    let cache = start(url(port));
    assert_eq!(cache.get(&key(1)).await, None);
    cache.put(key(1), answer("early"));
    assert_eq!(cache.get(&key(1)).await, Some((answer("early"), Tier::Memory)));
    assert!(!cache.stats().redis_up);

    let _redis = Redis::start_on(port).expect("the port is free");
    until_up(&cache, true).await;
    keep(&cache, 2, "later").await;
    assert_eq!(find(&connected(url(port)).await, 2).await, Some((answer("later"), Tier::Redis)));
}

#[tokio::test]
async fn damaged_foreign_and_giant_values_are_misses() {
    let redis = Redis::start();
    let cache = connected(redis.url()).await;
    let mut plain = client(&redis).await;
    let prefix = Config::default().redis_key_prefix;
    let values = [b"x".to_vec(), b"TKA\x01 and then something else".to_vec(), vec![7; 8 << 20]];
    for (number, value) in (0..).zip(&values) {
        let () = redis::cmd("SET")
            .arg(format!("{prefix}{}", key(number)))
            .arg(value)
            .query_async(&mut plain)
            .await
            .expect("set");
    }
    let () = redis::cmd("LPUSH")
        .arg(format!("{prefix}{}", key(9)))
        .arg("x")
        .query_async(&mut plain)
        .await
        .expect("push");
    for number in [0, 1, 2, 9] {
        // Each until it was really looked at, for a busy machine may time out before.
        let looked_at = |cache: &ResponseCache| cache.stats().redis_corrupt + cache.stats().redis_errors;
        let before = looked_at(&cache);
        for _ in 0..50 {
            until_up(&cache, true).await;
            assert_eq!(cache.get(&key(number)).await, None);
            if looked_at(&cache) > before {
                break;
            }
        }
        assert!(looked_at(&cache) > before, "value {number} was never looked at");
    }
    assert_eq!(cache.stats().redis_corrupt, 3);
    assert!(cache.stats().redis_up, "a value is no reason to leave Redis alone");
    // A new answer takes the damaged one's place.
    keep(&cache, 0, "good").await;
    assert_eq!(find(&connected(redis.url()).await, 0).await, Some((answer("good"), Tier::Redis)));
}

#[tokio::test]
async fn a_full_queue_drops_writes_and_counts_them() {
    let redis = Redis::start();
    redis.signal(Signal::SIGSTOP);
    let config = Config { redis_url: Some(redis.url()), redis_write_queue_max: 2, ..Config::default() };
    let cache = ResponseCache::start(config).expect("starts");
    // The writing task does not run before this one first waits.
    for number in 0..10 {
        cache.put(key(number), answer("x"));
    }
    assert_eq!(cache.stats().writes_dropped, 8);
    assert_eq!(cache.stats().writes_queued, 2);
    assert_eq!(cache.stats().entries, 10, "all are kept here");
    assert!(cache.flush(PATIENCE).await);
    assert_eq!((cache.stats().writes_dropped, cache.stats().writes_queued), (10, 0));
}

#[tokio::test]
async fn without_redis_the_memory_tier_works_alone_and_a_disabled_cache_keeps_nothing() {
    let cache = ResponseCache::start(Config::default()).expect("starts");
    assert_eq!(cache.get(&key(1)).await, None);
    cache.put(key(1), answer("x"));
    assert_eq!(cache.get(&key(1)).await, Some((answer("x"), Tier::Memory)));
    cache.put(key(2), answer(&"x".repeat(2 << 20)));
    assert_eq!(cache.peek(&key(2)), None, "larger than an answer may be");
    assert!(cache.flush(PATIENCE).await && cache.redis_up().is_none());
    let stats = cache.stats();
    assert_eq!((stats.memory_hits, stats.misses, stats.answers_too_large, stats.entries), (1, 1, 1, 1));

    let off = ResponseCache::start(Config { enabled: false, ..Config::default() }).expect("starts");
    off.put(key(1), answer("x"));
    assert_eq!((off.get(&key(1)).await, off.peek(&key(1)), off.stats().entries), (None, None, 0));
}

#[test]
fn outside_a_runtime_it_says_so() {
    let error = ResponseCache::start(Config::default()).expect_err("no runtime").to_string();
    assert!(error.contains("tokio runtime"), "{error}");
}

async fn client(redis: &Redis) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("an address");
    client.get_multiplexed_async_connection().await.expect("connects")
}
