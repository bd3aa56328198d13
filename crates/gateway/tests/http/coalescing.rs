//! The same request from many clients at once.

use tokio::task::JoinHandle;

use crate::support::{
    End, Front, Gate, Got, Reply, Worker, ask, chunks, completion, error_json, streamed, texts, with,
};

async fn all(asked: Vec<JoinHandle<Got>>) -> Vec<Got> {
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.expect("answered"));
    }
    answers
}

fn caches(answers: &[Got]) -> Vec<&str> {
    let mut caches: Vec<&str> = answers.iter().map(Got::cache).collect();
    caches.sort_unstable();
    caches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_with_one_question_cost_one_answer() {
    for stream in [false, true] {
        let gate = Gate::closed();
        let reply = if stream { Reply::stream(&["a", "b"]) } else { Reply::completion("ab") };
        let worker = Worker::ours(reply.after(&gate)).await;
        let front = Front::of(&[&worker]).await;
        let request = if stream { streamed(ask("x")) } else { ask("x") };
        let asked = (0..50).map(|_| front.spawn_chat(&request)).collect();
        worker.asked(1).await;
        front.in_flight(50).await;
        gate.open_for_all();
        let answers = all(asked).await;
        assert_eq!(worker.count(), 1);
        assert!(answers.iter().all(|got| got.status == 200 && got.body == answers[0].body));
        assert!(answers.iter().filter(|got| got.cache() == "miss").count() == 1, "{:?}", caches(&answers));
        let coalesced = front.metric(r#"tenk_response_cache_requests_total{result="coalesced"}"#).await;
        assert!(coalesced >= 1.0 && caches(&answers)[0] == "coalesced", "{:?}", caches(&answers));
    }
}

#[tokio::test]
async fn who_joins_a_stream_gets_its_start_and_then_each_event_as_it_comes() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::gated_stream(&["a", "b"], &gate)).await;
    let front = Front::of(&[&worker]).await;
    let sent = chunks(&["a", "b"]);
    gate.open(2);
    let mut leader = front.stream(&streamed(ask("x"))).await;
    let mut follower = front.stream(&streamed(ask("x"))).await;
    assert_eq!((leader.cache(), follower.cache()), ("miss", "coalesced"));
    let body = front.spawn_chat(&ask("x"));
    for event in &sent[..2] {
        assert_eq!(leader.next().await.as_ref(), Some(event));
        assert_eq!(follower.next().await.as_ref(), Some(event));
    }
    front.in_flight(3).await;
    gate.open(1);
    assert_eq!(follower.next().await.as_ref(), Some(&sent[2]), "before the answer is whole");
    gate.open_for_all();
    assert_eq!(leader.rest().await, [&sent[2..4], &["[DONE]".into()]].concat());
    assert_eq!(follower.rest().await, [&sent[3..4], &["[DONE]".into()]].concat());
    let body = body.await.expect("answered");
    assert_eq!((body.cache(), &body.json()["choices"][0]["message"]["content"]), ("coalesced", &"ab".into()));
    assert_eq!(worker.count(), 1);
}

#[tokio::test]
async fn a_slow_reader_holds_up_neither_the_leader_nor_the_others() {
    let worker = Worker::ours(Reply::stream(&["x".repeat(1000).as_str(); 500])).await;
    let front = Front::of(&[&worker]).await;
    let gate = Gate::closed();
    worker.reply(Reply::gated_stream(&["x".repeat(1000).as_str(); 500], &gate));
    gate.open(1);
    // Neither of them reads further than this.
    let _slow = [front.stream(&streamed(ask("x"))).await, front.stream(&streamed(ask("x"))).await];
    let quick = front.spawn_chat(&streamed(ask("x")));
    front.in_flight(3).await;
    gate.open_for_all();
    let quick = quick.await.expect("answered");
    assert_eq!((quick.cache(), texts(&quick.events()).len()), ("coalesced", 500_000));
}

#[tokio::test]
async fn a_leader_whose_worker_fails_does_not_take_its_followers_with_it() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::completion("ab")).await;
    let front = Front::of(&[&worker]).await;
    worker.reply_once(Reply::Raw("I am no web server\r\n\r\n".into()).after(&gate));
    let asked: Vec<_> = (0..4).map(|_| front.spawn_chat(&ask("x"))).collect();
    worker.asked(1).await;
    front.in_flight(4).await;
    gate.open(1);
    let mut answers = all(asked).await;
    answers.sort_by_key(|got| got.status);
    assert_eq!(answers.iter().map(|got| got.status).collect::<Vec<_>>(), [200, 200, 200, 502]);
    assert_eq!(caches(&answers[..3]), ["coalesced", "coalesced", "miss"]);
    assert_eq!(worker.count(), 2, "the followers did not make one request of theirs");
}

#[tokio::test]
async fn a_leader_that_found_every_worker_busy_says_so_for_all() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::json(429, "{}").after(&gate)).await;
    let front = Front::of(&[&worker]).await;
    let mut asked: Vec<_> = (0..3).map(|_| front.spawn_chat(&ask("x"))).collect();
    asked.push(front.spawn_chat(&streamed(ask("x"))));
    worker.asked(1).await;
    front.in_flight(4).await;
    gate.open_for_all();
    let answers = all(asked).await;
    assert!(
        answers.iter().all(|got| got.status == 429 && got.header("retry-after") == Some("1")),
        "{answers:?}"
    );
    assert_eq!(worker.count(), 1, "followers asked a busy worker once more");
}

#[tokio::test]
async fn a_refusal_is_relayed_to_the_leader_and_followers_hear_it_for_themselves() {
    let gate = Gate::closed();
    let worker = Worker::ours(Reply::json(400, error_json("too long"))).await;
    let front = Front::of(&[&worker]).await;
    worker.reply_once(Reply::json(400, error_json("too long")).after(&gate));
    let asked = (0..5).map(|_| front.spawn_chat(&ask("x"))).collect();
    worker.asked(1).await;
    front.in_flight(5).await;
    gate.open(1);
    let answers = all(asked).await;
    assert!(
        answers.iter().all(|got| got.status == 400 && got.text() == error_json("too long")),
        "{answers:?}"
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_still_everyones() {
    let gate = Gate::closed();
    let cut = completion("ab").replace(r#""finish_reason":"stop""#, r#""finish_reason":null"#);
    let worker = Worker::ours(Reply::json(200, cut.clone()).after(&gate)).await;
    let front = Front::of(&[&worker]).await;
    let asked = (0..10).map(|_| front.spawn_chat(&ask("x"))).collect();
    worker.asked(1).await;
    front.in_flight(10).await;
    gate.open_for_all();
    let answers = all(asked).await;
    assert!(answers.iter().all(|got| got.status == 200 && got.text() == cut));
    assert_eq!(worker.count(), 10);
}

#[tokio::test]
async fn a_leader_whose_client_leaves_goes_on_for_those_who_follow() {
    for stream in [false, true] {
        let gate = Gate::closed();
        let reply = if stream {
            Reply::gated_stream(&["a", "b"], &gate)
        } else {
            Reply::completion("ab").after(&gate)
        };
        let worker = Worker::ours(reply).await;
        let front = Front::of(&[&worker]).await;
        let request = if stream { streamed(ask("x")) } else { ask("x") };
        let leader = front.spawn_chat(&request);
        worker.asked(1).await;
        let follower = front.spawn_chat(&request);
        front.in_flight(2).await;
        leader.abort();
        front.in_flight(1).await;
        gate.open_for_all();
        let got = follower.await.expect("answered");
        assert_eq!((got.status, got.cache()), (200, "coalesced"));
        assert_eq!((worker.count(), worker.cancellations()), (1, 0));
        assert_eq!(front.chat(&request).await.cache(), "hit");
    }
}

#[tokio::test]
async fn when_all_clients_have_left_the_worker_is_told_to_stop() {
    for stream in [false, true] {
        let gate = Gate::closed();
        let reply = if stream { Reply::gated_stream(&["a", "b"], &gate) } else { Reply::Hang };
        let worker = Worker::ours(reply).await;
        let front = Front::of(&[&worker]).await;
        let request = if stream { streamed(ask("x")) } else { ask("x") };
        gate.open(1);
        let asked: Vec<_> = (0..3).map(|_| front.spawn_chat(&request)).collect();
        worker.asked(1).await;
        front.in_flight(3).await;
        asked[0].abort();
        asked[1].abort();
        front.in_flight(1).await;
        assert_eq!(worker.cancellations(), 0, "one client still waits");
        asked[2].abort();
        worker.cancelled(1).await;
        worker.reply(Reply::completion("ab"));
        assert_eq!(front.chat(&ask("x")).await.cache(), "miss");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error_for_everyone_on_it_and_is_not_kept() {
    let gate = Gate::closed();
    let events = chunks(&["a", "b"]).into_iter().take(3).collect();
    let worker = Worker::ours(Reply::Stream { events, gate: Some(gate.clone()), end: End::BreakOff }).await;
    let front = Front::of(&[&worker]).await;
    gate.open(2);
    let mut streams = [front.stream(&streamed(ask("x"))).await, front.stream(&streamed(ask("x"))).await];
    for stream in &mut streams {
        assert!(stream.next().await.is_some() && stream.next().await.is_some());
    }
    gate.open(1);
    for stream in streams {
        let events = stream.rest().await;
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[1].starts_with(r#"{"error""#), "{events:?}");
    }
    worker.reply(Reply::stream(&["a"]));
    assert_eq!(front.chat(&streamed(ask("x"))).await.cache(), "miss");
}

#[tokio::test]
async fn a_stream_that_outgrows_the_cache_reaches_its_clients_whole_and_is_not_kept() {
    let gate = Gate::closed();
    let texts_sent = ["x".repeat(100), "y".repeat(700), "z".repeat(700)];
    let texts_sent: Vec<&str> = texts_sent.iter().map(String::as_str).collect();
    let worker = Worker::ours(Reply::stream(&texts_sent)).await;
    let front = Front::with(&[&worker], |parts| parts.response_cache.answer_bytes_max = 1024).await;
    worker.reply_once(Reply::gated_stream(&texts_sent, &gate));
    gate.open(1);
    let request = with(streamed(ask("x")), "stream_options", serde_json::json!({ "include_usage": true }));
    let streams = [front.stream(&request).await, front.stream(&request).await];
    // Who waits for a body gets none from a log with a hole, and asks for one.
    worker.reply_once(Reply::completion("whole"));
    let body = front.spawn_chat(&ask("x"));
    front.in_flight(3).await;
    gate.open_for_all();
    for stream in streams {
        let events = stream.rest().await;
        assert_eq!(texts(&events), texts_sent.concat());
        assert!(events.iter().any(|event| event.contains("total_tokens")));
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    }
    let body = body.await.expect("answered");
    assert_eq!((body.status, body.text()), (200, completion("whole").as_str()));
}

#[tokio::test]
async fn a_stream_without_choices_is_passed_on_for_what_it_is() {
    let usage = chunks(&[]).pop().expect("the last is the token counts");
    let worker =
        Worker::ours(Reply::Stream { events: vec![usage.clone()], gate: None, end: End::Done }).await;
    let front = Front::of(&[&worker]).await;
    assert_eq!(front.chat(&streamed(ask("x"))).await.events(), ["[DONE]"]);
    let request = with(streamed(ask("x")), "stream_options", serde_json::json!({ "include_usage": true }));
    assert_eq!(front.chat(&request).await.events(), [usage, "[DONE]".into()]);
}
