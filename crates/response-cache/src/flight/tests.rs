use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use proptest::prelude::*;
use protocol::ErrorCode;
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::{Endpoint, KeyParts};

fn flights(log_bytes: u64) -> Flights {
    Flights::new(&Config {
        answer_bytes_max: log_bytes,
        flight_followers_max: 4,
        flights_max: 3,
        ..Config::default()
    })
}

fn key(number: u32) -> CacheKey {
    let body = json!({ "prompt": number });
    CacheKey::new(&KeyParts { model_version: "v", tenant: "t", endpoint: Endpoint::Completion, body: &body })
}

fn answer() -> Arc<CachedAnswer> {
    let body = json!({"id": "cmpl-1", "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]});
    Arc::new(CachedAnswer::from_json(Endpoint::Completion, body.to_string()).expect("complete"))
}

fn lead(flights: &Flights, key: CacheKey) -> Leader {
    match flights.join(key) {
        Joined::Leader(leader) => leader,
        other => panic!("expected to lead: {other:?}"),
    }
}

fn follow(flights: &Flights, key: CacheKey) -> Follower {
    match flights.join(key) {
        Joined::Follower(follower) => follower,
        other => panic!("expected to follow: {other:?}"),
    }
}

fn event(number: usize) -> Bytes {
    Bytes::from(number.to_string())
}

/// Polls once: what is there now, without waiting.
fn now(follower: &mut Follower) -> Option<FlightEvent> {
    follower.next().now_or_never()
}

fn push(leader: &Leader, event: Bytes) -> Option<Pushed> {
    leader.push(event).now_or_never()
}

const RETRY: FlightFailed = FlightFailed { retryable: true, error: None };

#[test]
fn a_late_follower_replays_the_log_from_its_start_and_then_goes_on_live() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    let mut first = leader.subscribe();
    push(&leader, event(0));
    push(&leader, event(1));
    assert_eq!(now(&mut first), Some(FlightEvent::Event(event(0))));

    let mut late = follow(&flights, key(1));
    for number in 0..2 {
        assert_eq!(now(&mut late), Some(FlightEvent::Event(event(number))));
    }
    assert_eq!(now(&mut late), None);
    push(&leader, event(2));
    assert_eq!(now(&mut late), Some(FlightEvent::Event(event(2))));
    assert_eq!(leader.events(), Some((0..3).map(event).collect()));

    leader.complete(answer());
    assert_eq!(now(&mut late), Some(FlightEvent::Complete(answer())));
    assert_eq!(now(&mut first), Some(FlightEvent::Event(event(1))), "the slow one misses nothing");
    assert_eq!(flights.coalesced(), 1);
}

#[test]
fn whole_and_streaming_followers_share_one_flight() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    let mut streaming = leader.subscribe();
    let mut whole = Box::pin(follow(&flights, key(1)).complete());
    push(&leader, event(0));
    assert!(whole.as_mut().now_or_never().is_none());
    leader.complete(answer());
    assert_eq!(whole.now_or_never(), Some(Ok(answer())));
    assert_eq!(now(&mut streaming), Some(FlightEvent::Event(event(0))));
    assert_eq!(now(&mut streaming), Some(FlightEvent::Complete(answer())));
}

#[test]
fn different_keys_fly_apart_and_a_finished_flight_is_not_joined() {
    let flights = flights(1 << 20);
    let (one, two) = (lead(&flights, key(1)), lead(&flights, key(2)));
    assert_eq!(flights.in_flight(), 2);
    one.complete(answer());
    two.fail();
    assert_eq!(flights.in_flight(), 0);
    drop(lead(&flights, key(1)));
}

#[test]
fn a_failed_leader_lets_those_who_delivered_nothing_start_anew_and_one_of_them_leads() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    let mut started = leader.subscribe();
    let mut fresh = follow(&flights, key(1));
    let whole = follow(&flights, key(1));
    push(&leader, event(0));
    push(&leader, event(1));
    assert_eq!(now(&mut started), Some(FlightEvent::Event(event(0))));
    drop(leader);

    assert_eq!(now(&mut fresh), Some(FlightEvent::Failed(RETRY)));
    assert_eq!(whole.complete().now_or_never(), Some(Err(RETRY)));
    assert_eq!(now(&mut started), Some(FlightEvent::Event(event(1))), "what was said is delivered");
    assert_eq!(now(&mut started), Some(FlightEvent::Failed(FlightFailed { retryable: false, error: None })));

    let again = lead(&flights, key(1));
    let mut other = follow(&flights, key(1));
    again.complete(answer());
    assert_eq!(now(&mut other), Some(FlightEvent::Complete(answer())));
}

#[test]
fn an_error_that_holds_for_everyone_reaches_everyone_and_is_not_retried() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    let mut follower = follow(&flights, key(1));
    let whole = follow(&flights, key(1));
    let error = ApiError::new(ErrorCode::InvalidRequest, "too long");
    leader.fail_with(error.clone());
    let failed = FlightFailed { retryable: false, error: Some(error) };
    assert_eq!(now(&mut follower), Some(FlightEvent::Failed(failed.clone())));
    assert_eq!(whole.complete().now_or_never(), Some(Err(failed)));
}

#[test]
fn flights_and_followers_are_bounded() {
    let flights = flights(1 << 20);
    let leaders: Vec<_> = (0..3).map(|number| lead(&flights, key(number))).collect();
    assert!(matches!(flights.join(key(3)), Joined::Full));
    let followers: Vec<_> = (0..4).map(|_| follow(&flights, key(0))).collect();
    assert!(matches!(flights.join(key(0)), Joined::Full));
    drop(followers);
    drop(leaders);
    drop(lead(&flights, key(3)));
}

#[test]
fn a_flight_is_abandoned_when_its_last_follower_leaves_and_then_nobody_joins() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    assert!(leader.abandoned().now_or_never().is_none(), "nobody has come yet");
    let (first, second) = (leader.subscribe(), follow(&flights, key(1)));
    let mut abandoned = Box::pin(leader.abandoned());
    assert!(abandoned.as_mut().now_or_never().is_none());
    drop(first);
    assert!(abandoned.as_mut().now_or_never().is_none(), "one is left");
    drop(second);
    assert!(abandoned.as_mut().now_or_never().is_some());
    drop(abandoned);

    let next = lead(&flights, key(1));
    drop(leader);
    drop(follow(&flights, key(1)));
    assert_eq!(flights.in_flight(), 1, "the old leader takes only its own flight away");
    drop(next);
}

#[test]
fn above_the_bound_the_leader_waits_for_the_slowest_and_memory_stays_bounded() {
    const LOG: usize = 2000;
    let flights = flights(LOG as u64);
    let leader = lead(&flights, key(1));
    let (mut fast, mut slow) = (leader.subscribe(), follow(&flights, key(1)));
    let whole = Box::pin(follow(&flights, key(1)).complete());

    let mut pushed = 0;
    while push(&leader, Bytes::from(vec![b'x'; 100])).is_some() {
        pushed += 1;
        while now(&mut fast).is_some() {}
    }
    assert_eq!(pushed, LOG / 132, "the slow one holds the whole log");
    assert_eq!(leader.events(), None, "it will not be kept");
    assert!(!matches!(flights.join(key(1)), Joined::Follower(_)), "nobody joins any more");
    assert_eq!(whole.now_or_never(), Some(Err(RETRY)), "a whole answer cannot come of it");

    for _ in 0..1000 {
        while now(&mut fast).is_some() {}
        assert!(matches!(now(&mut slow), Some(FlightEvent::Event(_))));
        assert_eq!(push(&leader, Bytes::from(vec![b'y'; 100])), Some(Pushed::Overflowed));
        assert_eq!(push(&leader, Bytes::from(vec![b'y'; 100])), None);
    }
    drop(slow);
    let pushed = (0..1000).take_while(|_| push(&leader, Bytes::from(vec![b'z'; 100])).is_some()).count();
    assert!((1..=LOG / 132).contains(&pushed), "only what the other one has read makes room: {pushed}");
    while now(&mut fast).is_some() {}
    assert_eq!(
        push(&leader, Bytes::from(vec![b'z'; 10 * LOG])),
        Some(Pushed::Overflowed),
        "a giant goes alone"
    );
    assert_eq!(push(&leader, event(1)), None);
    drop(fast);
    assert_eq!(push(&leader, event(1)), Some(Pushed::Overflowed), "with nobody left nothing holds it up");
}

#[test]
fn a_stream_that_makes_no_answer_ends_for_streams_and_fails_for_those_who_want_it_whole() {
    let flights = flights(1 << 20);
    let leader = lead(&flights, key(1));
    let mut streaming = leader.subscribe();
    let whole = follow(&flights, key(1));
    push(&leader, event(0));
    leader.end(Some(event(9)));
    assert_eq!(now(&mut streaming), Some(FlightEvent::Event(event(0))));
    assert_eq!(now(&mut streaming), Some(FlightEvent::Ended { usage: Some(event(9)) }));
    assert_eq!(whole.complete().now_or_never(), Some(Err(RETRY)));
}

/// What one client in the stress test saw.
async fn ride(
    mut follower: Follower,
    leaves_after: Option<usize>,
    pause: usize,
) -> Result<usize, FlightFailed> {
    let mut seen = 0;
    loop {
        if leaves_after == Some(seen) {
            return Ok(seen);
        }
        for _ in 0..pause {
            yield_now().await;
        }
        match follower.next().await {
            FlightEvent::Event(bytes) => {
                assert_eq!(bytes, event(seen), "events come in order, none lost, none twice");
                seen += 1;
            }
            FlightEvent::Complete(_) | FlightEvent::Ended { .. } => return Ok(seen),
            FlightEvent::Failed(failed) => {
                assert_eq!(failed.retryable, seen == 0);
                return Err(failed);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Client {
    whole: bool,
    leaves_after: Option<usize>,
    pause: usize,
    starts_after: usize,
}

fn any_client() -> impl Strategy<Value = Client> {
    (any::<bool>(), prop::option::weighted(0.3, 0..30_usize), 0..4_usize, 0..60_usize).prop_map(
        |(whole, leaves_after, pause, starts_after)| Client { whole, leaves_after, pause, starts_after },
    )
}

async fn fetch(leader: Leader, num_events: usize, fails_at: Option<usize>) -> bool {
    for number in 0..num_events {
        if fails_at == Some(number) {
            return false;
        }
        tokio::select! {
            () = leader.abandoned() => return false,
            _ = leader.push(event(number)) => {}
        }
        yield_now().await;
    }
    match leader.events() {
        Some(events) => {
            assert_eq!(events.len(), num_events);
            leader.complete(answer());
        }
        None => leader.end(None),
    }
    true
}

/// Clients come and go while leaders succeed, fail and overflow; each client retries until it has an answer.
async fn stress(clients: Vec<Client>, num_events: usize, log_bytes: u64, fails_at: Option<usize>) {
    let flights = Flights::new(&Config { answer_bytes_max: log_bytes, ..Config::default() });
    let attempts = Arc::new(AtomicU64::new(0));
    let tasks = clients.into_iter().map(|client| {
        let (flights, attempts) = (flights.clone(), Arc::clone(&attempts));
        tokio::spawn(async move {
            for _ in 0..client.starts_after {
                yield_now().await;
            }
            loop {
                let follower = match flights.join(key(1)) {
                    Joined::Leader(leader) => {
                        let follower = leader.subscribe();
                        // Only the first fetch fails.
                        let fails_at = fails_at.filter(|_| attempts.fetch_add(1, Ordering::Relaxed) == 0);
                        // One that wants the whole does not stream, as the gateway's would not.
                        let num_events = if client.whole { 0 } else { num_events };
                        tokio::spawn(fetch(leader, num_events, fails_at));
                        follower
                    }
                    Joined::Follower(follower) => follower,
                    Joined::Full => panic!("the bounds are far away"),
                };
                let rode = if client.whole {
                    follower.complete().await.map(|_| 0)
                } else {
                    ride(follower, client.leaves_after, client.pause).await
                };
                match rode {
                    Err(failed) if failed.retryable => {}
                    _ => return,
                }
            }
        })
    });
    let done = timeout(Duration::from_secs(60), join_all(tasks)).await.expect("nobody waits for ever");
    done.into_iter().for_each(|task| task.expect("no client saw a wrong order"));
    // Leaders whose clients have all left end by themselves.
    timeout(Duration::from_secs(60), async {
        while flights.in_flight() > 0 {
            yield_now().await;
        }
    })
    .await
    .expect("every flight ends");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whoever_comes_when_and_whatever_fails_every_client_is_served_in_order(
        clients in prop::collection::vec(any_client(), 1..24),
        num_events in 1..40_usize,
        small_log in any::<bool>(),
        fails_at in prop::option::of(0..40_usize),
        threads in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_time()
            .build()
            .expect("a runtime");
        runtime.block_on(stress(clients, num_events, if small_log { 200 } else { 1 << 20 }, fails_at));
    }
}

/// In tests a waiter pauses between its look at the state and its wait: the first poll ends there.
#[test]
fn what_happens_between_a_look_and_the_wait_is_not_missed() {
    let flights = flights(1);
    let leader = lead(&flights, key(1));
    let mut follower = leader.subscribe();
    {
        let mut next = Box::pin(follower.next());
        assert!(next.as_mut().now_or_never().is_none());
        push(&leader, event(0));
        assert_eq!(next.now_or_never(), Some(FlightEvent::Event(event(0))));
    }
    push(&leader, event(1));
    {
        let mut push = Box::pin(leader.push(event(2)));
        assert!(push.as_mut().now_or_never().is_none(), "the follower has not read");
        assert_eq!(now(&mut follower), Some(FlightEvent::Event(event(1))));
        assert_eq!(push.now_or_never(), Some(Pushed::Overflowed));
    }
    {
        let mut abandoned = Box::pin(leader.abandoned());
        assert!(abandoned.as_mut().now_or_never().is_none());
        drop(follower);
        assert_eq!(abandoned.now_or_never(), Some(()));
    }
    let mut whole = Box::pin(leader.subscribe().complete());
    assert_eq!(whole.as_mut().now_or_never(), Some(Err(RETRY)), "it has overflowed");

    let leader = lead(&flights, key(2));
    let mut whole = Box::pin(leader.subscribe().complete());
    assert!(whole.as_mut().now_or_never().is_none());
    leader.complete(answer());
    assert_eq!(whole.now_or_never(), Some(Ok(answer())));
}

/// Two tasks that wait for each other through a log of one event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_and_a_follower_that_wait_for_each_other_never_both_wait() {
    const EVENTS: usize = 20_000;
    let flights = flights(1);
    let leader = lead(&flights, key(1));
    let follower = leader.subscribe();
    let fetching = tokio::spawn(fetch(leader, EVENTS, None));
    let seen = timeout(Duration::from_secs(60), ride(follower, None, 0)).await.expect("no wake-up is lost");
    assert_eq!(seen, Ok(EVENTS));
    assert!(fetching.await.expect("the leader ends"));
}
