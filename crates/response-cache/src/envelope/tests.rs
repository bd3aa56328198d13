use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::KeyParts;

const MAX: u64 = 1 << 20;

fn key(tenant: &str) -> CacheKey {
    let body = json!({});
    CacheKey::new(&KeyParts { model_version: "v", tenant, endpoint: Endpoint::Chat, body: &body })
}

fn whole(text: &str) -> CachedAnswer {
    let body = json!({"id": "x", "choices": [{"index": 0, "text": text, "finish_reason": "stop"}]});
    CachedAnswer::from_json(Endpoint::Completion, body.to_string()).expect("complete")
}

fn streamed(texts: &[String], usage: bool) -> CachedAnswer {
    let chunk = |text: &str, end: Option<&str>| {
        json!({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]})
            .to_string()
    };
    let mut events: Vec<String> = texts.iter().map(|text| chunk(text, None)).collect();
    events.push(chunk("", Some("length")));
    let counts = json!({"choices": [], "usage": {"total_tokens": 3}}).to_string();
    CachedAnswer::from_events(Endpoint::Chat, &events, usage.then_some(counts.as_bytes())).expect("complete")
}

proptest! {
    #[test]
    fn any_answer_comes_back_as_it_was(
        text in ".{0,200}", texts in prop::collection::vec(".{0,20}", 0..20), usage in any::<bool>(),
    ) {
        for answer in [whole(&text), streamed(&texts, usage)] {
            let value = encode(&key("a"), &answer).expect("encodes");
            prop_assert!(value.len() as u64 <= value_bytes_max(answer.size_bytes()));
            prop_assert_eq!(decode(&key("a"), &value, answer.size_bytes()).expect("decodes"), answer);
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&key("a"), &bytes, MAX).is_err());
        let mut bytes = bytes;
        bytes.splice(..0, MAGIC);
        prop_assert!(decode(&key("a"), &bytes, MAX).is_err());
    }

    #[test]
    fn a_value_with_any_byte_changed_or_cut_off_is_refused(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut value = encode(&key("a"), &streamed(&["hello hello hello".to_owned()], true)).expect("encodes");
        let at = at.index(value.len());
        prop_assert!(decode(&key("a"), &value[..at], MAX).is_err());
        value[at] ^= flip;
        // LZ4 has two ways to write the same bytes; what comes out must be the answer or nothing.
        if let Ok(answer) = decode(&key("a"), &value, MAX) {
            prop_assert_eq!(answer, streamed(&["hello hello hello".to_owned()], true));
        }
    }
}

#[test]
fn a_length_above_the_bound_is_refused_before_anything_is_allocated() {
    let mut value = encode(&key("a"), &whole("x")).expect("encodes");
    value[6..10].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&key("a"), &value, MAX), Err(Error::Corrupt("it says that it is longer than allowed")));
}

#[test]
fn a_value_kept_under_another_key_is_refused() {
    let value = encode(&key("a"), &whole("x")).expect("encodes");
    assert_eq!(decode(&key("b"), &value, MAX), Err(Error::Corrupt("its checksum is wrong")));
}

#[test]
fn repetitive_answers_shrink() {
    let answer = streamed(&vec!["word ".to_owned(); 200], true);
    let value = encode(&key("a"), &answer).expect("encodes");
    assert!((value.len() as u64) < answer.size_bytes() / 5, "{} of {}", value.len(), answer.size_bytes());
}
