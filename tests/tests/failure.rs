//! Processes that are killed, stopped and asked to end while requests run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tests::{Api, Launch, Redis, Stream, Tenk, TinyModel, eventually};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";
/// The id of the token `a`, which the tiny model is biased to say and nothing else.
const TOKEN: &str = "97";

/// A chat whose answer is `max_tokens` times `a`. Half of them, at temperature 0, go through the response cache.
fn question(number: usize, max_tokens: usize, stream: bool) -> Value {
    json!({
        "model": TinyModel::NAME,
        "messages": [{"role": "user", "content": format!("question {number}")}],
        "max_tokens": max_tokens,
        "ignore_eos": true,
        "logit_bias": {TOKEN: 100},
        "temperature": number / 4 % 2,
        "stream": stream,
    })
}

/// A stream from its first event on.
#[derive(Debug)]
struct Streamed {
    worker: String,
    events: Vec<String>,
}

/// Asks for a stream, tells through `begun` which worker began it, and reads it to its end.
async fn stream(api: Api, asked: Value, begun: Option<mpsc::Sender<String>>) -> Result<Streamed> {
    let mut stream = api.stream(CHAT, &asked).await?;
    if stream.status != 200 {
        let events = stream.rest().await?;
        bail!("status {}: {events:?}", stream.status);
    }
    let worker = stream.header("x-tenk-worker").to_owned();
    let mut events = vec![stream.next().await?.context("a stream without an event")?];
    if let Some(begun) = begun {
        begun.send(worker.clone()).await?;
    }
    events.extend(stream.rest().await?);
    Ok(Streamed { worker, events })
}

fn check_complete(streamed: &Streamed, max_tokens: usize) -> Result<()> {
    ensure!(Stream::is_complete(&streamed.events), "cut: {:?}", streamed.events.last());
    ensure!(Stream::content(&streamed.events) == "a".repeat(max_tokens), "{:?}", streamed.events);
    Ok(())
}

async fn whole(api: Api, asked: Value, max_tokens: usize) -> Result<()> {
    let reply = api.post(CHAT, &asked).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    ensure!(reply.content() == "a".repeat(max_tokens), "{}", reply.text());
    Ok(())
}

/// Waits until so many streams have begun at each of two workers.
async fn both_began(begun: &mut mpsc::Receiver<String>, each: usize) -> Result<()> {
    let mut counts = BTreeMap::from([("worker-0".to_owned(), 0), ("worker-1".to_owned(), 0)]);
    while counts.values().any(|count| *count < each) {
        let worker = tokio::time::timeout(tests::PATIENCE, begun.recv()).await;
        let worker = worker.with_context(|| format!("streams begun: {counts:?}"))?;
        let worker = worker.with_context(|| format!("no more streams begin: {counts:?}"))?;
        *counts.entry(worker).or_default() += 1;
    }
    Ok(())
}

async fn all<T: 'static>(tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    tasks.join_all().await.into_iter().collect()
}

/// Clients that ask short questions, one after the other, until they are told to stop. The first failure is kept.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Result<()>>,
}

impl Load {
    /// `questions` bounds how many different ones are asked.
    fn start(api: &Api, clients: usize, questions: usize) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        for client in 0..clients {
            let (api, stop, answered) = (api.clone(), Arc::clone(&load.stop), Arc::clone(&load.answered));
            load.clients.spawn(async move {
                for turn in client.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let number = turn * 7 % questions;
                    if turn % 2 == 0 {
                        whole(api.clone(), question(number, 4, false), 4).await?;
                    } else {
                        check_complete(&stream(api.clone(), question(number, 4, true), None).await?, 4)?;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        load
    }

    /// Waits for so many more answers.
    async fn answers(&mut self, count: usize) -> Result<()> {
        let until = self.answered.load(Ordering::Relaxed) + count;
        let answered = Arc::clone(&self.answered);
        let enough = eventually("the load is answered", || async {
            let now = answered.load(Ordering::Relaxed);
            if now >= until { Ok(()) } else { Err(format!("{now} of {until} answers")) }
        });
        tokio::select! {
            enough = enough => enough,
            Some(ended) = self.clients.join_next() => bail!("a client ended early: {:?}", ended?),
        }
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        all(self.clients).await.map(drop)
    }
}

#[tokio::test]
async fn killing_a_worker_under_load_fails_no_request_whose_first_byte_was_not_there() {
    const TOKENS: usize = 300;
    let model = TinyModel::slow().expect("a model");
    // Few places, so that requests also wait at the worker that dies.
    let worker = || Launch::worker(&model.path()).env("TENK_SCHEDULER__MAX_NUM_SEQS", "4");
    let (mut first, second) = tokio::try_join!(worker().start(), worker().start()).expect("workers");
    let gateway = Tenk::gateway([&first, &second]).await.expect("a gateway");
    let api = gateway.api();

    let (tell, mut begun) = mpsc::channel(32);
    let (mut streams, mut wholes) = (JoinSet::new(), JoinSet::new());
    for number in 0..32 {
        // Two and two: requests that come one after the other go to the two workers in turns.
        let streamed = number / 2 % 2 == 0;
        let asked = question(number, TOKENS, streamed);
        match streamed {
            true => drop(streams.spawn(stream(api.clone(), asked, Some(tell.clone())))),
            false => drop(wholes.spawn(whole(api.clone(), asked, TOKENS))),
        }
    }
    drop(tell);
    both_began(&mut begun, 2).await.expect("streams run at both workers");
    eventually("requests run at the worker that is to die", || async {
        let count = gateway.metric("tenk_gateway_worker_in_flight", "worker-0").await?;
        ensure!(count >= 8.0, "{count} requests");
        Ok::<_, anyhow::Error>(())
    })
    .await
    .expect("the load is spread");
    first.kill9().await.expect("killed");

    all(wholes).await.expect("each whole answer comes");
    let mut broken = 0;
    for streamed in all(streams).await.expect("each stream comes to an end") {
        if check_complete(&streamed, TOKENS).is_ok() {
            continue;
        }
        broken += 1;
        assert_eq!(streamed.worker, "worker-0", "a stream of the other worker broke: {streamed:?}");
        let last = streamed.events.last().expect("events");
        assert!(!streamed.events.iter().any(|event| event == "[DONE]"), "{streamed:?}");
        assert!(streamed.events.len() > 1, "failed before its first byte: {streamed:?}");
        let error: Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(error["error"]["code"], "bad_gateway", "{last}");
        assert!(error["error"]["message"].as_str().is_some_and(|text| !text.contains("127.0.0.1")), "{last}");
    }
    assert!(broken >= 1, "no stream was cut, so nothing was proven");
    let retries = gateway.metric("tenk_gateway_retries_total", "").await.expect("metrics");
    assert!(retries >= 1.0, "no request was asked again, so nothing was proven");

    let address = first.address();
    drop(first);
    let restarted = worker().listen(address).start().await.expect("the worker again");
    assert_eq!(restarted.address(), address);
    eventually("the worker is used again", || async {
        let streamed = stream(api.clone(), question(4, 2, true), None).await?;
        ensure!(streamed.worker == "worker-0", "answered by {}", streamed.worker);
        check_complete(&streamed, 2)
    })
    .await
    .expect("it comes back");
}

#[tokio::test]
async fn redis_may_hang_and_die_under_load_and_no_request_fails() {
    let model = TinyModel::new().expect("a model");
    let mut redis = Redis::start().await.expect("redis");
    let worker = Tenk::worker(&model.path()).await.expect("a worker");
    // Redis is the only tier, so that each request goes to it.
    let gateway = Launch::gateway([&worker])
        .arg("--redis")
        .arg(redis.url())
        .env("TENK_RESPONSE_CACHE__MEMORY_BYTES_MAX", "0")
        .env("TENK_RESPONSE_CACHE__REDIS_COOLDOWN_MS", "100");
    let gateway = gateway.start().await.expect("a gateway");
    gateway.ready().await.expect("ready");
    let hits = || gateway.metric("tenk_response_cache_requests_total", "hit_redis");
    let errors = || gateway.metric("tenk_response_cache_errors_total", "kind=\"redis_");

    let mut load = Load::start(&gateway.api(), 8, 20);
    load.answers(100).await.expect("Redis is well");
    more("hits from Redis", &hits, 0.0).await.expect("Redis is used");

    let before = errors().await.expect("metrics");
    redis.pause().await.expect("paused");
    load.answers(200).await.expect("Redis hangs");
    more("errors of Redis", &errors, before).await.expect("the hang is seen");
    redis.resume().expect("resumed");
    let before = hits().await.expect("metrics");
    load.answers(100).await.expect("Redis is back");
    more("hits from Redis", &hits, before).await.expect("Redis is used again");

    redis.kill9().await.expect("killed");
    load.answers(200).await.expect("Redis is gone");
    load.stop().await.expect("no request failed");
}

/// Waits until a count has grown.
async fn more<F: Future<Output = Result<f64>>>(what: &str, count: &impl Fn() -> F, than: f64) -> Result<()> {
    eventually(what, || async {
        let now = count().await?;
        ensure!(now > than, "still {now}");
        Ok::<_, anyhow::Error>(())
    })
    .await
}

#[tokio::test]
async fn a_worker_and_a_gateway_that_are_asked_to_end_cut_no_stream_and_exit_with_0() {
    const TOKENS: usize = 300;
    let model = TinyModel::slow().expect("a model");
    let path = model.path();
    let start = || Tenk::worker(&path);
    let (mut first, second) = tokio::try_join!(start(), start()).expect("workers");
    let mut gateway = Tenk::gateway([&first, &second]).await.expect("a gateway");
    let api = gateway.api();

    let (tell, mut begun) = mpsc::channel(32);
    let mut load = Load::start(&api, 4, 1_000_000);
    let start_streams = |numbers: std::ops::Range<usize>| {
        let mut streams = JoinSet::new();
        for number in numbers {
            streams.spawn(stream(api.clone(), question(number, TOKENS, true), Some(tell.clone())));
        }
        streams
    };

    let streams = start_streams(2_000_000..2_000_008);
    both_began(&mut begun, 1).await.expect("streams run at both workers");
    first.terminate().expect("asked to end");
    let status = first.wait().await.expect("it ends");
    assert!(status.success(), "the worker ended with {status}");
    for streamed in all(streams).await.expect("streams end") {
        check_complete(&streamed, TOKENS).expect("not cut");
    }
    load.answers(20).await.expect("the other worker answers");
    load.stop().await.expect("no request failed");
    while begun.try_recv().is_ok() {}

    let streams = start_streams(3_000_000..3_000_006);
    for _ in 0..6 {
        let worker = tokio::time::timeout(tests::PATIENCE, begun.recv()).await.expect("all streams begin");
        assert_eq!(worker.as_deref(), Some("worker-1"));
    }
    gateway.terminate().expect("asked to end");
    for streamed in all(streams).await.expect("streams end") {
        check_complete(&streamed, TOKENS).expect("not cut");
    }
    let status = gateway.wait().await.expect("it ends");
    assert!(status.success(), "the gateway ended with {status}");
    assert!(api.get("/health/live").await.is_err(), "nobody listens any more");
}
