//! JSON compared by what it means.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The members of an object, unread: JSON allows numbers that no type holds. Anything else is a finding.
pub fn members(bytes: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    match serde_json::from_slice(bytes) {
        Ok(members) => members,
        Err(error) => panic!("{} is no JSON object: {error}", String::from_utf8_lossy(bytes)),
    }
}

/// The same, read.
pub fn object(bytes: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(members)) => members,
        other => panic!("{} is no JSON object: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Equality, but for the last digit of a fraction: the parser may lose it, and so read what was read and written once
/// more as its neighbour.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_f64(), right.as_f64()) {
            (Some(a), Some(b)) if left.is_f64() && right.is_f64() => {
                (a - b).abs() <= 1e-15 * a.abs().max(b.abs())
            }
            _ => left == right,
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}
