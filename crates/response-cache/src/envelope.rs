//! How an answer lies in Redis.
//!
//! ```text
//! magic and version  4   "TKA" 1
//! endpoint, form     2   0 chat, 1 completion; 0 body, 1 events, 2 events and usage
//! length             4   of the parts before compression
//! checksum           8   the head of SHA-256 over key, the two bytes above and the parts
//! parts              …   LZ4 block of (length 4, bytes)*
//! ```
//!
//! Integers are little-endian. What Redis gives back is not trusted: the length is checked before anything is
//! allocated, and the checksum ties a value to its key.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::answer::First;
use crate::{CacheKey, CachedAnswer, Endpoint, Error};

const MAGIC: [u8; 4] = *b"TKA\x01";
const HEAD_BYTES: usize = 18;
const CHECKSUM_BYTES: usize = 8;

/// The longest value that an answer of `answer_bytes_max` can have. One more byte is never fetched.
pub(crate) fn value_bytes_max(answer_bytes_max: u64) -> u64 {
    let length = usize::try_from(answer_bytes_max).unwrap_or(usize::MAX >> 1);
    (HEAD_BYTES + lz4_flex::block::get_maximum_output_size(length)) as u64
}

/// Packs an answer to be kept under `key`.
///
/// # Errors
/// [`Error::Corrupt`] for an answer above 4 GiB, whose lengths have no room.
pub fn encode(key: &CacheKey, answer: &CachedAnswer) -> Result<Vec<u8>, Error> {
    let mut parts = Vec::with_capacity(usize::try_from(answer.size_bytes()).unwrap_or_default());
    let mut add = |part: &Bytes| {
        let length = u32::try_from(part.len()).map_err(|_| Error::Corrupt("a part is longer than 4 GiB"))?;
        parts.extend_from_slice(&length.to_le_bytes());
        parts.extend_from_slice(part);
        Ok::<(), Error>(())
    };
    let form = match answer.first() {
        First::Json(body) => {
            add(body)?;
            0
        }
        First::Stream(events, usage) => {
            events.iter().chain(usage).try_for_each(add)?;
            1 + u8::from(usage.is_some())
        }
    };
    let kind = [answer.endpoint().code(), form];
    let length = u32::try_from(parts.len()).map_err(|_| Error::Corrupt("the answer is longer than 4 GiB"))?;

    let mut value = Vec::with_capacity(HEAD_BYTES + parts.len() / 2);
    value.extend_from_slice(&MAGIC);
    value.extend_from_slice(&kind);
    value.extend_from_slice(&length.to_le_bytes());
    value.extend_from_slice(&checksum(key, kind, &parts));
    value.extend_from_slice(&lz4_flex::block::compress(&parts));
    Ok(value)
}

/// Unpacks what was kept under `key`. Whatever the bytes are, no more than `answer_bytes_max` is allocated for them.
///
/// # Errors
/// [`Error::Corrupt`] for what [`encode`] did not write under this key; the errors of [`CachedAnswer::from_json`] and
/// [`CachedAnswer::from_events`] for what is no answer.
pub fn decode(key: &CacheKey, value: &[u8], answer_bytes_max: u64) -> Result<CachedAnswer, Error> {
    let (head, packed) =
        value.split_first_chunk::<HEAD_BYTES>().ok_or(Error::Corrupt("it is shorter than its head"))?;
    let [m0, m1, m2, m3, endpoint, form, l0, l1, l2, l3, ..] = *head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(Error::Corrupt("it is no answer, or one of another version"));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if u64::from(length) > answer_bytes_max {
        return Err(Error::Corrupt("it says that it is longer than allowed"));
    }
    let mut parts = vec![0; length as usize];
    let unpacked = lz4_flex::block::decompress_into(packed, &mut parts);
    if unpacked.ok() != Some(parts.len()) {
        return Err(Error::Corrupt("it does not decompress to its length"));
    }
    if head[HEAD_BYTES - CHECKSUM_BYTES..] != checksum(key, [endpoint, form], &parts) {
        return Err(Error::Corrupt("its checksum is wrong"));
    }
    let endpoint = Endpoint::from_code(endpoint).ok_or(Error::Corrupt("its endpoint is unknown"))?;
    let mut parts = split(&parts)?;
    match form {
        0 => match parts.as_slice() {
            [body] => CachedAnswer::from_json(endpoint, body),
            _ => Err(Error::Corrupt("a body must be one part")),
        },
        1 => CachedAnswer::from_events(endpoint, &parts, None),
        2 => {
            let usage = parts.pop().ok_or(Error::Corrupt("its usage is missing"))?;
            CachedAnswer::from_events(endpoint, &parts, Some(usage))
        }
        _ => Err(Error::Corrupt("its form is unknown")),
    }
}

fn split(mut parts: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let mut list = Vec::new();
    while !parts.is_empty() {
        let (length, rest) = parts.split_first_chunk().ok_or(Error::Corrupt("a part has no length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (part, rest) = rest.split_at_checked(length).ok_or(Error::Corrupt("a part is cut off"))?;
        list.push(part);
        parts = rest;
    }
    Ok(list)
}

fn checksum(key: &CacheKey, kind: [u8; 2], parts: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Sha256::new_with_prefix(key.as_bytes());
    hash.update(kind);
    hash.update(parts);
    let hash: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests;
