//! What a store gives back is refused or is an answer within its bound, which is stored and read back the same; a right
//! checksum does not make it trusted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use response_cache::{CacheKey, Endpoint, KeyParts, envelope};
use serde_json::Value;
use sha2::{Digest, Sha256};

const ANSWER_BYTES_MAX: u64 = 1 << 16;

fuzz_target!(|value: &[u8]| {
    let parts =
        KeyParts { model_version: "v", tenant: "t", endpoint: Endpoint::Chat, body: &Value::Bool(true) };
    let key = CacheKey::new(&parts);
    check(&key, value);
    for kind in [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [2, 0]] {
        check(&key, &sealed(&key, kind, value));
    }
});

fn check(key: &CacheKey, value: &[u8]) {
    let Ok(answer) = envelope::decode(key, value, ANSWER_BYTES_MAX) else { return };
    assert!(answer.size_bytes() <= ANSWER_BYTES_MAX);
    let again = envelope::encode(key, &answer).expect("encodes");
    assert_eq!(envelope::decode(key, &again, ANSWER_BYTES_MAX).as_ref(), Ok(&answer));
}

/// A value whose lengths and checksum are right, with each line as a part.
fn sealed(key: &CacheKey, kind: [u8; 2], lines: &[u8]) -> Vec<u8> {
    let mut parts = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        parts.extend_from_slice(&(line.len() as u32).to_le_bytes());
        parts.extend_from_slice(line);
    }
    let checksum = Sha256::new_with_prefix(key.as_bytes()).chain_update(kind).chain_update(&parts).finalize();
    let mut value = b"TKA\x01".to_vec();
    value.extend_from_slice(&kind);
    value.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    value.extend_from_slice(&checksum[..8]);
    value.extend_from_slice(&lz4_flex::block::compress(&parts));
    value
}
