//! nginx, two gateways, Redis, two workers and a model that speaks: the whole of it.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Api, Launch, Nginx, RealModel, Redis, Stream, Tenk, eventually};

const CHAT: &str = "/v1/chat/completions";

fn question(text: &str) -> Value {
    json!({
        "model": RealModel::NAME,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 24,
    })
}

#[tokio::test]
async fn clients_of_nginx_get_answers_streams_and_hits_from_two_gateways_and_two_workers() {
    let model = RealModel::path().expect("the model");
    let redis = Redis::start().await.expect("redis");
    let worker = || Launch::worker(&model).arg("--served-model-name").arg(RealModel::NAME).start();
    let (first, second) = tokio::try_join!(worker(), worker()).expect("workers");
    let workers = [&first, &second];
    let gateway = || Launch::gateway(workers).arg("--redis").arg(redis.url()).start();
    let (a, b) = tokio::try_join!(gateway(), gateway()).expect("gateways");
    tokio::try_join!(a.ready(), b.ready()).expect("ready");
    let nginx = Nginx::start([a.address(), b.address()]).await.expect("nginx");

    answers_are_right_and_repeat_from_the_cache(&nginx.api(), &redis).await.expect("answers");
    one_gateways_answer_is_the_others_hit(&a.api(), &b.api(), &redis).await.expect("shared cache");
    tokens_leave_nginx_as_they_come(&nginx.api()).await.expect("streams");
    what_is_for_the_inside_stays_there(&nginx.api()).await.expect("kept inside");
    one_gateway_is_enough(&nginx.api(), a).await.expect("one gateway");
}

async fn answers_are_right_and_repeat_from_the_cache(api: &Api, redis: &Redis) -> Result<()> {
    let asked = question("What is the capital of France?");
    let fresh = api.post(CHAT, &asked).await?;
    ensure!(fresh.status == 200, "{}", fresh.text());
    ensure!(fresh.content().contains("Paris"), "{}", fresh.text());
    ensure!(fresh.header("x-tenk-cache") == "miss", "{:?}", fresh.headers);
    ensure!(["worker-0", "worker-1"].contains(&fresh.header("x-tenk-worker")), "{:?}", fresh.headers);
    ensure!(!fresh.header("x-tenk-model-version").is_empty(), "{:?}", fresh.headers);
    ensure!(fresh.headers.get_all("x-request-id").iter().count() == 1, "{:?}", fresh.headers);
    let usage = &fresh.json()["usage"];
    ensure!(usage["completion_tokens"].as_u64() > Some(0), "{usage}");

    // nginx may choose the other gateway, which finds it once it has been written to Redis.
    eventually("the answer is in Redis", || async {
        ensure!(redis.keys().await? == 1, "{} keys", redis.keys().await?);
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    for _ in 0..4 {
        let again = api.post(CHAT, &asked).await?;
        ensure!(again.header("x-tenk-cache") == "hit", "{:?}", again.headers);
        ensure!(again.body == fresh.body, "{}\n{}", again.text(), fresh.text());
        ensure!(again.header("x-tenk-model-version") == fresh.header("x-tenk-model-version"), "versions");
    }

    let mut streamed = question("What is the capital of France?");
    streamed["stream"] = true.into();
    let mut stream = api.stream(CHAT, &streamed).await?;
    ensure!(stream.header("x-tenk-cache") == "hit", "{:?}", stream.headers);
    let events = stream.rest().await?;
    ensure!(Stream::is_complete(&events), "{events:?}");
    ensure!(Stream::content(&events) == fresh.content(), "{events:?}");
    Ok(())
}

async fn one_gateways_answer_is_the_others_hit(a: &Api, b: &Api, redis: &Redis) -> Result<()> {
    let before = redis.keys().await?;
    let asked = question("Name a colour of the rainbow.");
    let fresh = a.post(CHAT, &asked).await?;
    ensure!(fresh.header("x-tenk-cache") == "miss", "{:?}", fresh.headers);
    eventually("the answer is in Redis", || async {
        ensure!(redis.keys().await? == before + 1, "{} keys", redis.keys().await?);
        Ok::<_, anyhow::Error>(())
    })
    .await?;
    let shared = b.post(CHAT, &asked).await?;
    ensure!(shared.header("x-tenk-cache") == "hit", "{:?}", shared.headers);
    ensure!(shared.body == fresh.body, "{}\n{}", shared.text(), fresh.text());
    // Refused by name: neither looked up nor kept.
    let fresh = b.clone().with_header("cache-control", "no-store")?.post(CHAT, &asked).await?;
    ensure!(fresh.header("x-tenk-cache") == "bypass", "{:?}", fresh.headers);
    Ok(())
}

async fn tokens_leave_nginx_as_they_come(api: &Api) -> Result<()> {
    let mut asked = question("Write a short story about a cat.");
    asked["stream"] = true.into();
    asked["stream_options"] = json!({"include_usage": true});
    let mut stream = api.stream(CHAT, &asked).await?;
    ensure!(stream.status == 200, "status {}", stream.status);
    ensure!(stream.header("content-type").starts_with("text/event-stream"), "{:?}", stream.headers);
    ensure!(stream.header("x-tenk-cache") == "miss", "{:?}", stream.headers);
    let first = stream.next().await?;
    let since = Instant::now();
    let mut events = Vec::from_iter(first);
    events.extend(stream.rest().await?);
    ensure!(Stream::is_complete(&events), "{events:?}");
    ensure!(!Stream::content(&events).is_empty(), "{events:?}");
    let usage = events.iter().rev().nth(1).map(|event| serde_json::from_str::<Value>(event)).transpose()?;
    ensure!(usage.is_some_and(|usage| usage["usage"]["completion_tokens"] == 24), "{events:?}");
    // A buffer somewhere on the way would hand them over all at once, or in a few lumps at the end.
    let pieces = stream.arrivals.len();
    ensure!(pieces >= 12, "{} events came in {pieces} pieces", events.len());
    let half = stream.arrivals[pieces / 2].duration_since(since);
    ensure!(half < since.elapsed().mul_f64(0.9), "half of the pieces came only after {half:?}");
    Ok(())
}

async fn what_is_for_the_inside_stays_there(api: &Api) -> Result<()> {
    for path in ["/metrics", "/internal/load", "/internal", "/%6detrics", "//metrics", "/x/../metrics"] {
        let reply = api.get(path).await?;
        ensure!(
            reply.status == 404 && reply.json()["error"]["code"] == "not_found",
            "{path}: {}",
            reply.text()
        );
    }
    let mut asked = question("");
    asked["messages"][0]["content"] = "x".repeat(5 << 20).into();
    let refused = api.post(CHAT, &asked).await?;
    ensure!(
        refused.status == 413 && refused.json()["error"]["code"] == "payload_too_large",
        "{}",
        refused.text()
    );
    let mut asked = question("");
    asked["messages"][0]["content"] = "x".repeat(1 << 20).into();
    let refused = api.post(CHAT, &asked).await?;
    ensure!(refused.status == 400, "{}", refused.text());
    ensure!(refused.json()["error"]["code"] == "context_length_exceeded", "{}", refused.text());
    Ok(())
}

async fn one_gateway_is_enough(api: &Api, mut gateway: Tenk) -> Result<()> {
    gateway.kill9().await?;
    for _ in 0..4 {
        let reply = api.post(CHAT, &question("What is the capital of France?")).await?;
        ensure!(reply.status == 200 && reply.content().contains("Paris"), "{}", reply.text());
    }
    Ok(())
}
