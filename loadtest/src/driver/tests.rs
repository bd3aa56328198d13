use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::arrivals::Schedule;
use crate::asking::{Asked, Asking};
use crate::client::Client;
use crate::scenario::Arrivals;
use crate::tests::server::{Answer, Server, done, finish, text};

/// Conversations whose turns hold what was answered before.
struct Turns(u32);

impl Asking for Turns {
    fn request(&self, index: u64, turn: u32, history: &[String]) -> Asked {
        assert_eq!(history.len(), turn as usize);
        let messages = json!([{"role": "user", "content": format!("{index}.{turn}"), "history": history}]);
        Asked {
            messages_json: Bytes::from(messages.to_string()),
            max_tokens: 3,
            stream: true,
            prompt_tokens: 0,
            more_turns: turn + 1 < self.0,
        }
    }
}

/// Breaks at its third request.
struct Breaks;

impl Asking for Breaks {
    fn request(&self, index: u64, turn: u32, history: &[String]) -> Asked {
        assert!(index < 2, "broken on purpose");
        Turns(1).request(index, turn, history)
    }
}

fn says(word: &str) -> Answer {
    let events = [text(word), text("!"), finish(), done()];
    Answer::Events(events.to_vec(), crate::tests::server::End::Orderly)
}

fn pace(arrivals: &Arrivals, conversations: u64) -> Pace {
    let limit = Limit { requests: Some(conversations), duration_us: None };
    Pace::new(arrivals, 0, limit, Vec::new()).expect("in range")
}

/// Runs one phase in this runtime and gives back its records, by conversation and turn.
async fn drive(server: &Server, asking: impl Asking + 'static, pace: Pace) -> Result<Vec<Value>, Error> {
    let scenario = Scenario { target: server.address.clone(), ..Scenario::default() };
    let client = Client::new(&scenario, Target::parse(&scenario.target)?, None)?;
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, records) = Collector::start(Some(dir.path()), scenario.targets, None, None)?;
    let lanes = Arc::new(Lanes::new(client, Arc::new(asking), records, Arc::default()));
    let phase = Phase { pace, warmup: false, clock: Clock::start(), shard: Shard::WHOLE, in_flight_max: 9 };
    phase.run(Arc::clone(&lanes)).await?;
    lanes.records.flush().await;
    assert_eq!(lanes.in_flight(), 0);
    drop(lanes);
    collector.finish()?;
    let lines = std::fs::read_to_string(dir.path().join("records.jsonl")).expect("records");
    let mut records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    records.sort_by_key(|record| (record["index"].as_u64(), record["turn"].as_u64()));
    Ok(records)
}

fn turns(records: &[Value]) -> Vec<(u64, u64)> {
    let number = |record: &Value, name: &str| record[name].as_u64().expect("a number");
    records.iter().map(|record| (number(record, "index"), number(record, "turn"))).collect()
}

#[tokio::test]
async fn a_conversation_carries_the_real_answers_back() {
    let server = Server::start(vec![says("one"), says("two"), says("three")]).await;
    let users = Arrivals::ClosedLoop { users: 1, think_time_s: 0.0 };
    let records = drive(&server, Turns(3), pace(&users, 2)).await.expect("no failure");
    assert_eq!(turns(&records), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    let history = |nth: usize| server.bodies()[nth]["messages"][0]["history"].clone();
    assert_eq!((history(0), history(1), history(2)), (json!([]), json!(["one!"]), json!(["one!", "two!"])));
    assert_eq!(history(3), json!([]));
    for pair in records[..3].windows(2) {
        assert_eq!(pair[1]["scheduled_us"], pair[0]["done_us"], "a turn is due when the last one has ended");
    }
}

#[tokio::test]
async fn an_open_loop_starts_conversations_and_their_turns_follow() {
    let server = Server::start(vec![says("word")]).await;
    let constant = Arrivals::Constant { rate: 500.0 };
    let records = drive(&server, Turns(2), pace(&constant, 3)).await.expect("no failure");
    assert_eq!(turns(&records), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    let scheduled = |nth: usize| records[nth]["scheduled_us"].as_u64();
    assert_eq!([scheduled(0), scheduled(2), scheduled(4)], [Some(0), Some(2_000), Some(4_000)]);
    assert_eq!(records[3]["scheduled_us"], records[2]["done_us"]);
}

#[tokio::test]
async fn a_failed_turn_ends_its_conversation() {
    let server = Server::start(vec![says("one"), Answer::Body(500, json!({}))]).await;
    let users = Arrivals::ClosedLoop { users: 1, think_time_s: 0.0 };
    let records = drive(&server, Turns(5), pace(&users, 2)).await.expect("failures are records");
    assert_eq!(turns(&records), [(0, 0), (0, 1), (1, 0), (1, 1)]);
}

#[tokio::test]
async fn a_request_that_cannot_be_led_to_its_end_is_an_error_and_no_endless_wait() {
    let server = Server::start(vec![says("word")]).await;
    let constant = Arrivals::Constant { rate: 1_000.0 };
    let error = drive(&server, Breaks, pace(&constant, 3)).await.expect_err("broken");
    assert!(matches!(error, Error::Broken(_)), "{error}");
}

#[test]
fn a_shards_schedule_is_the_scenarios_own() {
    let Pace::Open(schedule) = pace(&Arrivals::Constant { rate: 1.0 }, 4) else { panic!("no schedule") };
    let own: Schedule = schedule.shard(Shard { index: 1, count: 2 });
    assert_eq!(own.map(|due| due.at_us).collect::<Vec<u64>>(), [1_000_000, 3_000_000]);
}
