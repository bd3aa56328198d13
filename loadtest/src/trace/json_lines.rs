//! Lines of JSON: Mooncake's, and our own.

use serde::Deserialize;

use crate::trace::{BLOCK_TOKENS, TraceRequest};

/// The latest time: a year.
const AT_S_MAX: f64 = 366.0 * 86_400.0;

/// Mooncake's, with whatever else its kin put in.
#[derive(Deserialize)]
struct Mooncake {
    /// Milliseconds.
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    at_s: f64,
    prompt_tokens: Option<u32>,
    max_tokens: Option<u32>,
}

/// Whether a line has Mooncake's time; if not, it must have ours.
pub(super) fn is_mooncake(line: &str) -> Result<bool, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    match (object.contains_key("timestamp"), object.contains_key("at_s")) {
        (true, _) => Ok(true),
        (false, true) => Ok(false),
        (false, false) => Err("either `at_s` or Mooncake's `timestamp` was expected".into()),
    }
}

pub(super) fn mooncake(line: &str) -> Result<TraceRequest, String> {
    let line: Mooncake = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let at_us = at_us("timestamp", line.timestamp / 1e3)?;
    let blocks_max = u64::from(line.input_length).div_ceil(u64::from(BLOCK_TOKENS));
    if line.hash_ids.len() as u64 > blocks_max {
        return Err(format!(
            "`hash_ids` has {} blocks of {BLOCK_TOKENS} tokens, but `input_length` is {}",
            line.hash_ids.len(),
            line.input_length
        ));
    }
    Ok(TraceRequest {
        at_us,
        prompt_tokens: Some(line.input_length),
        max_tokens: Some(line.output_length.max(1)),
        blocks: line.hash_ids,
    })
}

pub(super) fn own(line: &str) -> Result<TraceRequest, String> {
    let line: Own = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if line.max_tokens == Some(0) {
        return Err("`max_tokens` is 0, but must be 1 or more".into());
    }
    Ok(TraceRequest {
        at_us: at_us("at_s", line.at_s)?,
        prompt_tokens: line.prompt_tokens,
        max_tokens: line.max_tokens,
        blocks: Vec::new(),
    })
}

fn at_us(name: &str, at_s: f64) -> Result<u64, String> {
    if (0.0..=AT_S_MAX).contains(&at_s) {
        Ok((at_s * 1e6).round() as u64)
    } else {
        Err(format!("`{name}` is {at_s} s, but must be from 0 to {AT_S_MAX} s"))
    }
}
