//! A tokenizer made up from a list of words, for a model that only pretends.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use super::{Tokenizer, TokenizerError, byte_level};

/// Control tokens, after all others: a turn's start and end, and the end of a text.
const CONTROL: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

impl Tokenizer {
    /// Each of `words` with a space before it is one token, its index the id. Other words are spelled by pairs of
    /// letters, everything else by bytes, so that any text has ids and they give it back.
    pub fn from_words(words: &[&str]) -> Result<Self, TokenizerError> {
        let spelled = |text: &str| {
            let mut token = String::new();
            byte_level::write(text, &mut token);
            token
        };
        let letters = || ('a'..='z').map(String::from);
        let starts = letters().map(|letter| (spelled(" "), letter));
        let pairs = letters().flat_map(|first| letters().map(move |second| (first.clone(), second)));
        let merges: Vec<(String, String)> = starts.chain(pairs).collect();
        let words = words.iter().map(|word| spelled(&format!(" {word}")));
        let bytes = byte_level::characters().iter().map(char::to_string);
        let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
        let plain: Vec<String> = words.chain(bytes).chain(merged).collect();
        let end = plain.len() as u32 + 1;
        let types = plain.iter().map(|_| 1).chain(CONTROL.map(|_| 3)).map(Value::I32).collect();
        let tokens = plain.into_iter().chain(CONTROL.map(str::to_owned)).map(Value::String).collect();
        let merges = merges.iter().map(|(left, right)| Value::String(format!("{left} {right}"))).collect();
        let metadata = [
            ("model", Value::String("gpt2".into())),
            // Takes a word that is a token whole, without merges that lead there.
            ("pre", Value::String("llama-bpe".into())),
            ("tokens", Value::Array(tokens)),
            ("token_type", Value::Array(types)),
            ("merges", Value::Array(merges)),
            ("eos_token_id", Value::U32(end)),
            ("add_bos_token", Value::Bool(false)),
        ];
        let metadata: HashMap<String, Value> =
            metadata.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
        Self::from_gguf(&metadata)
    }
}
