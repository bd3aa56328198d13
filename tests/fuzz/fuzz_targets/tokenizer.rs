//! Any text is encoded, and decodes to itself; any ids decode to the same text at once and one by one, in whole
//! characters. No control token comes out unless the text may name one.

#![no_main]

use std::sync::LazyLock;

use engine::tokenizer::{Detokenizer, Tokenizer};
use fuzz::vocabulary;
use libfuzzer_sys::fuzz_target;

static BYTE_LEVEL: LazyLock<Vec<Tokenizer>> = LazyLock::new(vocabulary::byte_level);
static SENTENCEPIECE: LazyLock<Tokenizer> = LazyLock::new(vocabulary::sentencepiece);

fuzz_target!(|input: (u8, Vec<u16>, &str)| {
    let (which, ids, text) = input;
    let ids: Vec<u32> = ids.into_iter().take(100).map(u32::from).collect();
    // Long texts find no more than short ones, only later.
    let text = &text[..text.floor_char_boundary(400)];

    let byte_level = &BYTE_LEVEL[usize::from(which) % BYTE_LEVEL.len()];
    for parse_special in [false, true] {
        let ids = encode(byte_level, text, parse_special);
        assert_eq!(byte_level.decode(&ids, false), text);
    }
    check_ids(byte_level, &ids);

    for parse_special in [false, true] {
        let ids = encode(&SENTENCEPIECE, text, parse_special);
        // Its mark for a space reads as one, and every text between control tokens gets a space in front.
        if !parse_special && !text.is_empty() {
            assert_eq!(SENTENCEPIECE.decode(&ids, false), format!(" {}", text.replace('▁', " ")));
        }
    }
    check_ids(&SENTENCEPIECE, &ids);
});

fn encode(tokenizer: &Tokenizer, text: &str, parse_special: bool) -> Vec<u32> {
    let ids = tokenizer.encode(text, false, parse_special).expect("there is a token for every byte");
    assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
    assert!(parse_special || !ids.iter().any(|id| tokenizer.is_special(*id)));
    let around = tokenizer.encode(text, true, parse_special).expect("the same with its surroundings");
    assert!(around.windows(ids.len().max(1)).any(|part| part == ids) || ids.is_empty());
    check_ids(tokenizer, &ids);
    ids
}

fn check_ids(tokenizer: &Tokenizer, ids: &[u32]) {
    for skip_special in [false, true] {
        let mut detokenizer = Detokenizer::new(skip_special);
        let mut text: String = ids.iter().map(|id| detokenizer.push(tokenizer, *id)).collect();
        text.push_str(&detokenizer.finish());
        assert_eq!(text, tokenizer.decode(ids, skip_special));
        tokenizer.encode(&text, true, true).expect("whatever was decoded");
    }
}
