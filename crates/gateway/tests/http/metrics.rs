//! What the gateway says about itself.

use std::time::Duration;

use crate::support::{Front, Gate, Reply, Worker, ask, error_json, streamed, with};

fn requests(code: u16) -> String {
    format!(
        r#"tenk_gateway_requests_total{{code="{code}",endpoint="chat_completions",model="m",version="v1"}}"#
    )
}

#[tokio::test]
async fn the_page_has_our_names_and_its_counts_move() {
    let worker = Worker::ours(Reply::completion("a")).await;
    let front = Front::of(&[&worker]).await;
    front.chat(&ask("x")).await;
    front.chat(&ask("x")).await;
    front.chat(&with(ask("x"), "temperature", 1)).await;
    worker.reply(Reply::stream(&["a", "b"]));
    front.chat(&streamed(ask("y"))).await;
    worker.reply(Reply::json(400, error_json("no")));
    front.chat(&ask("z")).await;
    for (sample, value) in [
        (requests(200).as_str(), 4.0),
        (requests(400).as_str(), 1.0),
        (r#"tenk_gateway_request_duration_seconds_count{model="m",version="v1"}"#, 5.0),
        (r#"tenk_gateway_time_to_first_token_seconds_count{model="m",version="v1"}"#, 1.0),
        (r#"tenk_gateway_inter_token_latency_seconds_count{model="m",version="v1"}"#, 1.0),
        (r#"tenk_gateway_tokens_total{kind="prompt",model="m",version="v1"}"#, 9.0),
        (r#"tenk_gateway_tokens_total{kind="completion",model="m",version="v1"}"#, 6.0),
        (r#"tenk_gateway_worker_requests_total{outcome="ok",worker="worker-0"}"#, 3.0),
        (r#"tenk_gateway_worker_requests_total{outcome="client_error",worker="worker-0"}"#, 1.0),
        (r#"tenk_gateway_worker_in_flight{worker="worker-0"}"#, 0.0),
        (r#"tenk_response_cache_requests_total{result="hit_memory"}"#, 1.0),
        (r#"tenk_response_cache_requests_total{result="miss"}"#, 3.0),
        (r#"tenk_response_cache_requests_total{result="bypass"}"#, 1.0),
        ("tenk_response_cache_entries", 2.0),
        ("tenk_gateway_own_seconds_count", 5.0),
        ("tenk_gateway_requests_in_flight", 0.0),
    ] {
        front.metric_is(sample, value).await;
    }
    let page = front.get("/metrics").await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let ours =
        |line: &&str| line.starts_with("tenk_") || line.starts_with('#') || line.starts_with("process_");
    assert_eq!(page.text().lines().find(|line| !ours(line)), None);
}

#[tokio::test]
async fn requests_that_never_reach_a_model_are_counted_too() {
    let worker = Worker::ours(Reply::Hang).await;
    let front = Front::of(&[&worker]).await;
    front.get("/v1/models").await;
    front.post("/v1/completions", "{").await;
    front.chat(&with(ask("x"), "model", "other")).await;
    let sample = |endpoint: &str, code: u16| {
        format!(
            r#"tenk_gateway_requests_total{{code="{code}",endpoint="{endpoint}",model="unknown",version="unknown"}}"#
        )
    };
    front.metric_is(&sample("models", 200), 1.0).await;
    front.metric_is(&sample("completions", 400), 1.0).await;
    front.metric_is(&sample("chat_completions", 404), 1.0).await;
}

#[tokio::test]
async fn a_client_that_went_away_is_no_success() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::gated_stream(&["a"], &gate)).await;
    let front = Front::of(&[&worker]).await;
    gate.open(1);
    let mut stream = front.stream(&streamed(ask("x"))).await;
    assert!(stream.next().await.is_some());
    drop(stream);
    front.metric_is(&requests(499), 1.0).await;
    let asked = front.spawn_chat(&with(ask("x"), "temperature", 1));
    worker.asked(2).await;
    asked.abort();
    front.metric_is(&requests(499), 2.0).await;
    assert_eq!(front.metric(&requests(200)).await, 0.0);
}

#[tokio::test]
async fn own_time_is_without_the_wait_for_workers_for_a_place_and_for_others() {
    const HELD: Duration = Duration::from_millis(300);
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::completion("a").after(&gate)).await;
    let front = Front::with(&[&worker], |parts| parts.config.in_flight_max = 2).await;
    let stream_gate = Gate::closed();
    stream_gate.open(1);
    worker.reply_once(Reply::gated_stream(&["a", "b"], &stream_gate));
    let stream = front.stream(&streamed(ask("stream"))).await;
    let mut asked = vec![front.spawn_chat(&ask("x"))];
    worker.asked(2).await;
    // One that follows, and one that waits in line.
    asked.extend([front.spawn_chat(&ask("x")), front.spawn_chat(&ask("y"))]);
    front.in_flight(4).await;
    tokio::time::sleep(HELD).await;
    gate.open_for_all();
    stream_gate.open_for_all();
    for asked in asked {
        assert_eq!(asked.await.expect("answered").status, 200);
    }
    assert_eq!(stream.rest().await.last().map(String::as_str), Some("[DONE]"));
    front.metric_is("tenk_gateway_own_seconds_count", 4.0).await;
    let spans = front.metric(r#"tenk_gateway_request_duration_seconds_sum{model="m",version="v1"}"#).await;
    let own = front.metric("tenk_gateway_own_seconds_sum").await;
    assert!(spans > 4.0 * HELD.as_secs_f64(), "{spans}");
    // Any one of the waits would be more than this.
    assert!(own < HELD.as_secs_f64(), "{own} of {spans} seconds");
}
