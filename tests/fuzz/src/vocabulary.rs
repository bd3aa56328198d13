//! Small tokenizers of both kinds.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use engine::tokenizer::Tokenizer;

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Every name of cutting rules, one of each kind.
const RULES: [&str; 9] =
    ["default", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "deepseek-v3", "tekken", "gpt-4o"];

/// Byte-level BPE under each of the cutting rules: what is encoded can be decoded to the byte.
pub fn byte_level() -> Vec<Tokenizer> {
    let mut tokens: Vec<(String, i32)> =
        byte_characters().map(|character| (character.into(), NORMAL)).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ©", "ð Ł", "ðŁ ¦", "1 2"];
    tokens.extend(merges.iter().map(|merge| (merge.replace(' ', ""), NORMAL)));
    for special in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user"] {
        tokens.push((special.into(), CONTROL));
    }
    tokens.push(("<tool>".into(), USER_DEFINED));
    let merges = Value::Array(merges.map(|merge| Value::String(merge.into())).to_vec());
    let of_rules = |name: &&str| {
        let more = [
            ("model", Value::String("gpt2".into())),
            ("pre", Value::String((*name).into())),
            ("merges", merges.clone()),
        ];
        build(&tokens, more)
    };
    RULES.iter().map(of_rules).collect()
}

/// SentencePiece, with a token for each byte.
pub fn sentencepiece() -> Tokenizer {
    let mut tokens = vec![("<unk>".to_owned(), UNKNOWN), ("<s>".into(), CONTROL), ("</s>".into(), CONTROL)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    let words = ["▁", "a", "b", "é", "🦀", "▁a", "ab", "▁ab", "▁▁", "<", "0", "x", ">", "<0"];
    tokens.extend(words.map(|word| (word.to_owned(), NORMAL)));
    let scores = (0..tokens.len()).map(|id| Value::F32(-(id as f32))).collect();
    build(&tokens, [("model", Value::String("llama".into())), ("scores", Value::Array(scores))])
}

fn build<const N: usize>(tokens: &[(String, i32)], more: [(&str, Value); N]) -> Tokenizer {
    let texts = tokens.iter().map(|(text, _)| Value::String(text.clone())).collect();
    let types = tokens.iter().map(|(_, kind)| Value::I32(*kind)).collect();
    let mut metadata: HashMap<String, Value> = HashMap::new();
    let lists = [("tokens", Value::Array(texts)), ("token_type", Value::Array(types))];
    for (key, value) in lists.into_iter().chain(more) {
        metadata.insert(format!("tokenizer.ggml.{key}"), value);
    }
    Tokenizer::from_gguf(&metadata).expect("a sound vocabulary")
}

/// GPT-2's printable stand-ins for the 256 bytes.
fn byte_characters() -> impl Iterator<Item = char> {
    let mut moved = 0x100;
    (0_u8..=255).map(move |byte| {
        if matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) {
            return char::from(byte);
        }
        moved += 1;
        char::from_u32(moved - 1).expect("a character")
    })
}
