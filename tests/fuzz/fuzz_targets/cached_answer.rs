//! An answer that is kept can be replayed in both forms; what is read back from a replay is that answer.

#![no_main]

use fuzz::json::{members, object};
use libfuzzer_sys::fuzz_target;
use response_cache::{CachedAnswer, Endpoint};
use serde_json::{Map, Value};

fuzz_target!(|answer: &[u8]| {
    let lines: Vec<&[u8]> = answer.split(|byte| *byte == b'\n').collect();
    for endpoint in [Endpoint::Chat, Endpoint::Completion] {
        if let Ok(answer) = CachedAnswer::from_json(endpoint, answer) {
            check(&answer);
        }
        if let Ok(answer) = CachedAnswer::from_events(endpoint, &lines, None) {
            check(&answer);
        }
        if let Some((usage, events)) = lines.split_last()
            && let Ok(answer) = CachedAnswer::from_events(endpoint, events, Some(usage))
        {
            check(&answer);
        }
    }
});

fn check(answer: &CachedAnswer) {
    members(&answer.json());
    let (events, usage) = (answer.events(false), answer.usage_event());
    assert_eq!(answer.events(true).len(), events.len() + usage.iter().len());
    for event in events.iter().chain(&usage) {
        members(event);
        assert!(!event.contains(&b'\n') && !event.contains(&b'\r'), "{event:?}");
    }
    // A number that no type holds passes through, but cannot be compared here.
    let Ok(json) = serde_json::from_slice::<Map<String, Value>>(&answer.json()) else { return };
    // A message may hold what can be split but not joined; it is not understood, and never guessed at.
    let Ok(again) = CachedAnswer::from_events(answer.endpoint(), &events, usage.as_deref()) else { return };
    let again = object(&again.json());
    for member in ["id", "created", "model", "usage"] {
        assert_eq!(
            again.get(member).unwrap_or(&Value::Null),
            json.get(member).unwrap_or(&Value::Null),
            "{member}"
        );
    }
    let choices = |json: &Map<String, Value>| {
        let mut choices = json["choices"].as_array().expect("a list").clone();
        choices.sort_by_key(|choice| choice["index"].as_u64());
        choices
    };
    let (again, before) = (choices(&again), choices(&json));
    assert_eq!(again.len(), before.len());
    for (again, before) in again.iter().zip(&before) {
        for member in ["/index", "/finish_reason", "/text", "/message/content", "/message/refusal"] {
            let (again, before) = (again.pointer(member), before.pointer(member));
            assert_eq!(again.unwrap_or(&Value::Null), before.unwrap_or(&Value::Null), "{member}");
        }
    }
}
