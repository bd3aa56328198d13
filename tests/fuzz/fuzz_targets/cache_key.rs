//! A request has one key however it is written, and another once anything is said otherwise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use response_cache::{CacheKey, Endpoint, KeyParts, is_deterministic};
use serde_json::{Map, Value};

fuzz_target!(|body: &[u8]| {
    let Ok(request @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else { return };
    let before = key(&request);
    assert_eq!(is_deterministic(&request), is_deterministic(&request.clone()));

    let mut text = String::new();
    write_otherwise(&request, &mut text);
    let otherwise: Value = serde_json::from_str(&text).expect("the same JSON");
    let plain: Value = serde_json::from_str(&request.to_string()).expect("the same JSON");
    // The parser may lose a fraction's last digit, and then it is another number.
    if plain == request {
        assert_eq!(key(&otherwise), before, "{text}");
    }

    let with = |name: &str, value: Value| {
        let mut request = request.as_object().cloned().unwrap_or_default();
        let is_new = request.insert(name.to_owned(), value.clone()).is_none_or(|old| old != value);
        (key(&Value::Object(request)), is_new)
    };
    assert_eq!(with("user", "anyone".into()).0, before);
    let (changed, is_new) = with("n", 12_345.into());
    assert_eq!(changed != before, is_new);
});

fn key(body: &Value) -> CacheKey {
    CacheKey::new(&KeyParts { model_version: "v", tenant: "t", endpoint: Endpoint::Chat, body })
}

/// Members turned around, white space everywhere, whole numbers as fractions.
fn write_otherwise(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => write_members(members, text),
        Value::Array(items) => {
            text.push_str("[ ");
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { "\t,\n" } else { "" });
                write_otherwise(item, text);
            }
            text.push(']');
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number.unsigned_abs() < 1 << 53) => {
            text.push_str(&format!("{number}.0e0"));
        }
        other => text.push_str(&other.to_string()),
    }
}

fn write_members(members: &Map<String, Value>, text: &mut String) {
    text.push('{');
    for (at, (name, value)) in members.iter().rev().enumerate() {
        text.push_str(if at > 0 { " ," } else { "\r\n" });
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push_str(" : ");
        write_otherwise(value, text);
    }
    text.push('}');
}
