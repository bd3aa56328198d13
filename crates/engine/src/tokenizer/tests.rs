use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use candle_core::quantized::gguf_file::{Content, Value};
use proptest::prelude::*;
use serde::Deserialize;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, SplitDelimiterBehavior,
};

use super::split::{PRE_TOKENIZERS, Splitter};
use super::{Detokenizer, Tokenizer, TokenizerError};

type Metadata = HashMap<String, Value>;

const SMOLLM2: &[u8] = include_bytes!("../../tests/fixtures/tokenizer/smollm2-vocab.gguf");
const SENTENCEPIECE: &[u8] = include_bytes!("../../tests/fixtures/tokenizer/sentencepiece-vocab.gguf");

fn metadata(file: &[u8]) -> Metadata {
    Content::read(&mut Cursor::new(file)).unwrap().metadata
}

fn fixture<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_gguf(&metadata(SMOLLM2)).unwrap());
static SPACED: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_gguf(&metadata(SENTENCEPIECE)).unwrap());

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    plain: Vec<u32>,
    no_prefix: Option<Vec<u32>>,
}

/// Reports every difference at once, since one wrong rule shows in many texts.
fn assert_same<'c>(label: &str, cases: impl Iterator<Item = (&'c str, Vec<u32>, &'c Vec<u32>)>) {
    let wrong: Vec<String> = cases
        .filter(|(_, ids, expected)| ids != *expected)
        .map(|(text, ids, expected)| {
            format!("{label}: {text:?}\n  gave     {ids:?}\n  expected {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn assert_all(label: &str, tokenizer: &Tokenizer, cases: &[Case]) {
    let encode = |text: &str, parse_special| tokenizer.encode(text, false, parse_special).unwrap();
    assert_same(label, cases.iter().map(|case| (case.text.as_str(), encode(&case.text, true), &case.ids)));
    assert_same(label, cases.iter().map(|case| (case.text.as_str(), encode(&case.text, false), &case.plain)));
}

#[test]
fn smollm2_ids_are_llama_cpps() {
    assert_all("smollm", &TOKENIZER, &fixture::<Vec<Case>>("smollm2.json"));
}

#[test]
fn each_pre_tokenizer_gives_llama_cpps_ids() {
    let texts: Vec<Case> = fixture("smollm2.json");
    let by_name: HashMap<String, Vec<Vec<u32>>> = fixture("pre_tokenizers.json");
    let mut metadata = metadata(SMOLLM2);
    for (name, expected) in &by_name {
        metadata.insert("tokenizer.ggml.pre".to_owned(), Value::String(name.clone()));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let encode = |text: &str| tokenizer.encode(text, false, true).unwrap();
        assert_same(
            name,
            texts.iter().zip(expected).map(|(case, ids)| (case.text.as_str(), encode(&case.text), ids)),
        );
    }
}

#[test]
fn sentencepiece_ids_are_llama_cpps() {
    let cases: Vec<Case> = fixture("sentencepiece.json");
    assert_all("sentencepiece", &SPACED, &cases);
    let mut metadata = metadata(SENTENCEPIECE);
    metadata.insert("tokenizer.ggml.add_space_prefix".to_owned(), Value::Bool(false));
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let encode = |text: &str| tokenizer.encode(text, false, true).unwrap();
    let expected = |case: &'_ Case| case.no_prefix.clone().unwrap();
    let expected: Vec<Vec<u32>> = cases.iter().map(expected).collect();
    assert_same(
        "no prefix",
        cases.iter().zip(&expected).map(|(case, ids)| (&*case.text, encode(&case.text), ids)),
    );
}

#[test]
fn the_real_models_vocabulary_is_the_fixtures() {
    let file = "tenk/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let Some(Ok(mut model)) = cache.map(|cache| fs::File::open(cache.join(file))) else {
        return; // Without the model there is nothing to compare.
    };
    let real = Content::read(&mut model).unwrap().metadata;
    let fixture = metadata(SMOLLM2);
    let tokenizer_keys = |all: &Metadata| {
        let mut pairs: Vec<(String, String)> = all
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."))
            .map(|(key, value)| (key.clone(), format!("{value:?}")))
            .collect();
        pairs.sort();
        pairs
    };
    assert!(tokenizer_keys(&real) == tokenizer_keys(&fixture));
}

#[test]
fn special_ids_come_from_the_metadata() {
    let tokenizer = &*TOKENIZER;
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(tokenizer.end_of_generation, [0, 2], "<|endoftext|> and <|im_end|>");
    assert!(tokenizer.is_eog(2) && !tokenizer.is_eog(1));
    assert!(tokenizer.is_special(16) && !tokenizer.is_special(17) && !tokenizer.is_special(u32::MAX));
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert!(tokenizer.prefix.is_empty(), "add_bos_token is false in the file");
    assert_eq!(SPACED.prefix, SPACED.bos().as_slice(), "a SentencePiece model adds it unless told otherwise");
}

#[test]
fn add_special_puts_what_the_flags_say_around_the_text() {
    let mut metadata = metadata(SMOLLM2);
    let text =
        |metadata: &Metadata| Tokenizer::from_gguf(metadata).unwrap().encode("Hello", true, true).unwrap();
    assert_eq!(text(&metadata), [19556]);
    metadata.insert("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(true));
    metadata.insert("tokenizer.ggml.add_eos_token".to_owned(), Value::Bool(true));
    assert_eq!(text(&metadata), [1, 19556, 2]);
    metadata.remove("tokenizer.ggml.add_bos_token");
    metadata.insert("tokenizer.ggml.pre".to_owned(), Value::String("llama-bpe".to_owned()));
    assert_eq!(text(&metadata), [1, 19556, 2], "llama-bpe starts documents by default");
}

#[test]
fn token_bytes_undo_the_vocabularys_spelling() {
    let bytes = |tokenizer: &'static Tokenizer, text: &str| -> Vec<Vec<u8>> {
        let ids = tokenizer.encode(text, false, true).unwrap();
        ids.iter().map(|id| tokenizer.token_bytes(*id).unwrap().to_vec()).collect()
    };
    assert_eq!(bytes(&TOKENIZER, " leading"), [b" leading"]);
    assert_eq!(bytes(&TOKENIZER, "<|im_end|>"), [b"<|im_end|>"]);
    assert_eq!(bytes(&TOKENIZER, "𓀀").concat(), "𓀀".as_bytes());
    assert!(bytes(&TOKENIZER, "𓀀").len() > 1);
    assert_eq!(bytes(&SPACED, "the")[0], b" the");
    assert_eq!(bytes(&SPACED, "\u{1F9FF}").concat(), " \u{1F9FF}".as_bytes());
    assert_eq!(TOKENIZER.token_bytes(49_152), None);
}

#[test]
fn an_unknown_pre_tokenizer_is_refused_with_the_known_ones() {
    let mut metadata = metadata(SMOLLM2);
    metadata.insert("tokenizer.ggml.pre".to_owned(), Value::String("kimi-k2".to_owned()));
    let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
    assert!(error.contains("`kimi-k2`") && error.contains("smollm, ") && error.contains("qwen2"), "{error}");
    metadata.insert("tokenizer.ggml.model".to_owned(), Value::String("bert".to_owned()));
    assert!(
        matches!(Tokenizer::from_gguf(&metadata), Err(TokenizerError::UnknownModel(name)) if name == "bert")
    );
}

#[test]
fn broken_metadata_is_refused_and_names_the_key() {
    let good = metadata(SENTENCEPIECE);
    let array = |values: Vec<Value>| Value::Array(values);
    let broken = [
        ("tokenizer.ggml.model", None),
        ("tokenizer.ggml.tokens", None),
        ("tokenizer.ggml.scores", None),
        ("tokenizer.ggml.tokens", Some(Value::U32(1))),
        ("tokenizer.ggml.tokens", Some(array(vec![Value::U8(1)]))),
        ("tokenizer.ggml.token_type", Some(array(vec![Value::Bool(true)]))),
        ("tokenizer.ggml.bos_token_id", Some(Value::String("1".to_owned()))),
        ("tokenizer.ggml.add_bos_token", Some(Value::U8(1))),
    ];
    for (key, value) in broken {
        let mut metadata = good.clone();
        match value {
            Some(value) => metadata.insert(key.to_owned(), value),
            None => metadata.remove(key),
        };
        let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
    for key in ["tokenizer.ggml.token_type", "tokenizer.ggml.scores"] {
        let mut metadata = good.clone();
        metadata.insert(key.to_owned(), array(Vec::new()));
        assert!(matches!(Tokenizer::from_gguf(&metadata), Err(TokenizerError::Vocabulary(_))), "{key}");
    }
}

/// A directory as a model's repository has it, made from the GGUF fixture.
fn directory(pre_tokenizer: serde_json::Value, post_processor: serde_json::Value) -> tempfile::TempDir {
    let metadata = metadata(SMOLLM2);
    let texts = |key: &str| -> Vec<String> {
        metadata[key].to_vec().unwrap().iter().map(|value| value.to_string().unwrap().clone()).collect()
    };
    let tokens = texts("tokenizer.ggml.tokens");
    let added: Vec<serde_json::Value> = tokens[..17]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let vocab: HashMap<&String, usize> = tokens.iter().enumerate().map(|(id, token)| (token, id)).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": {"type": "ByteLevel",
            "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": texts("tokenizer.ggml.merges")},
    });
    let config = serde_json::json!({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}});
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [2, 5]}"#).unwrap();
    dir
}

fn smollm_steps() -> serde_json::Value {
    serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]})
}

#[test]
fn a_hugging_face_directory_gives_the_same_ids() {
    let dir = directory(smollm_steps(), serde_json::Value::Null);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_all("directory", &tokenizer, &fixture::<Vec<Case>>("smollm2.json"));
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(
        tokenizer.end_of_generation,
        [0, 2, 5],
        "a list in generation_config.json, and what the texts say"
    );
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.encode("Hello", true, true).unwrap(), [19556]);
    assert!((0..49_152).all(|id| tokenizer.token_bytes(id) == TOKENIZER.token_bytes(id)));
}

#[test]
fn a_directorys_post_processor_says_what_add_special_adds() {
    let template = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]},
            "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}}});
    let dir = directory(smollm_steps(), template);
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("Hello", true, true).unwrap(), [1, 19556, 2]);
}

#[test]
fn a_step_that_is_not_known_is_refused_by_name() {
    let steps = [
        (serde_json::json!({"type": "Whitespace"}), "Whitespace"),
        (
            serde_json::json!({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]}),
            "Punctuation",
        ),
        (
            serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"(?=\d)\d+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}),
            r"(?=\d)",
        ),
        (
            serde_json::json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\p{L}?+x"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}),
            "possessive",
        ),
    ];
    for (step, named) in steps {
        let dir = directory(step, serde_json::Value::Null);
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let missing = Tokenizer::from_dir(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(missing.contains("tokenizer.json"), "{missing}");
}

/// SmolLM2's vocabulary lacks the bytes of a few rare characters; they are dropped, as llama.cpp drops them.
fn has_tokens(character: char) -> bool {
    !matches!(character, '\u{40000}'..='\u{bffff}' | '\x04' | '\x06' | '\x13' | '\x14' | '\x16' | '\x1d')
}

/// A SentencePiece tokenizer.json in one of the forms that are around, made from the GGUF fixture.
fn spaced_description(
    normalizer: &serde_json::Value,
    pre_tokenizer: &serde_json::Value,
) -> serde_json::Value {
    let metadata = metadata(SENTENCEPIECE);
    let tokens = metadata["tokenizer.ggml.tokens"].to_vec().unwrap();
    let tokens: Vec<&String> = tokens.iter().map(|token| token.to_string().unwrap()).collect();
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    // From `▁` on the tokens are words, the best scored first.
    let merges: Vec<(&str, &str)> = tokens[260..]
        .iter()
        .flat_map(|token| token.char_indices().skip(1).map(|(position, _)| token.split_at(position)))
        .filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right))
        .collect();
    let added = |id: usize, special: bool, strip: bool| {
        serde_json::json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": strip, "rstrip": strip,
            "normalized": false, "special": special})
    };
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, true, false), added(1, true, false), added(2, true, false), added(259, false, true)],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids, "merges": merges},
    })
}

#[test]
fn a_sentencepiece_directory_gives_the_tokenizers_crates_ids() {
    let replace = serde_json::json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = serde_json::json!({"type": "Prepend", "prepend": "▁"});
    let metaspace = |scheme: &str, split: bool| serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
    let none = serde_json::Value::Null;
    let forms = [
        (serde_json::json!({"type": "Sequence", "normalizers": [prepend, replace]}), none.clone()),
        (replace, none.clone()),
        (none.clone(), metaspace("always", true)),
        (none.clone(), metaspace("always", false)),
        (none.clone(), metaspace("first", false)),
        (none, metaspace("never", true)),
    ];
    let cases: Vec<Case> = fixture("sentencepiece.json");
    for (normalizer, pre_tokenizer) in forms {
        let description = spaced_description(&normalizer, &pre_tokenizer);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer.json"), description.to_string()).unwrap();
        let ours = Tokenizer::from_dir(dir.path()).unwrap();
        let mut theirs: tokenizers::Tokenizer = serde_json::from_value(description).unwrap();
        for parse_special in [true, false] {
            theirs.set_encode_special_tokens(!parse_special);
            for case in &cases {
                let expected = theirs.encode_fast(case.text.as_str(), false).unwrap().get_ids().to_vec();
                let ids = ours.encode(&case.text, false, parse_special).unwrap();
                assert_eq!(ids, expected, "{:?} with {normalizer} and {pre_tokenizer}", case.text);
            }
        }
    }
}

/// Texts that a million-byte prompt might be made of to waste the server's time.
fn hostile_texts() -> Vec<(&'static str, String)> {
    const SIZE: usize = 1 << 20;
    let repeat = |unit: &str| unit.repeat(SIZE / unit.len());
    // A generator of our own keeps the text the same in every run.
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from_u32(state >> 11).unwrap_or(' ')
    };
    vec![
        ("spaces", repeat(" ")),
        ("spaces before a letter", repeat(" ") + "x"),
        ("line breaks", repeat("\n")),
        ("one letter", repeat("a")),
        ("one emoji", repeat("😀")),
        ("apostrophes", repeat("'")),
        ("NULs", repeat("\0")),
        ("digits", repeat("7")),
        ("almost special", repeat("<|im_start|")),
        ("special", repeat("<|im_start|>")),
        ("combining marks", repeat("\u{301}")),
        ("random", (0..SIZE / 4).map(|_| random()).filter(|c| has_tokens(*c) && *c != '▁').collect()),
    ]
}

#[test]
fn a_megabyte_of_hostile_text_is_encoded_in_time_and_whole() {
    for (name, text) in hostile_texts() {
        for (tokenizer, prefix) in [(&*TOKENIZER, ""), (&*SPACED, " ")] {
            let started = Instant::now();
            let ids = tokenizer.encode(&text, true, false).unwrap();
            let took = started.elapsed();
            assert!(took < Duration::from_secs(10), "{name} took {took:?}");
            assert!(tokenizer.decode(&ids, true) == format!("{prefix}{text}"), "{name} came back otherwise");
        }
    }
}

/// Text made of what cutting rules care about, beside any characters at all.
fn texts() -> impl Strategy<Value = String> {
    let telling = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "a",
        "Zz",
        "é",
        "ſ",
        "K",
        "ǅ",
        "ª",
        "你",
        "の",
        "1",
        "42",
        "½",
        "٣",
        "'s",
        "'LL",
        "'",
        ".",
        "!?",
        "/",
        "$",
        "+",
        "_",
        "<|im_end|>",
        "<|im_",
        "\u{301}",
        "😀",
        "\0",
        "▁",
    ]);
    let part = prop_oneof![8 => telling.prop_map(str::to_owned), 1 => any::<char>().prop_filter("has tokens", |c| has_tokens(*c)).prop_map(String::from)];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// Our cutting and the `tokenizers` crate's own, on a backtracking engine that reads the patterns as published.
static CUTTERS: LazyLock<Vec<(Splitter, Vec<Split>)>> = LazyLock::new(|| {
    let backtracking = |pattern: &&str| {
        Split::new(SplitPattern::Regex((*pattern).to_owned()), SplitDelimiterBehavior::Isolated, false)
            .unwrap()
    };
    let cutters = PRE_TOKENIZERS.iter().map(|rules| {
        (Splitter::new(rules.patterns).unwrap(), rules.patterns.iter().map(backtracking).collect())
    });
    cutters.collect()
});

fn cut_by_backtracking(stages: &[Split], text: &str) -> Vec<String> {
    let mut pieces = PreTokenizedString::from(text);
    stages.iter().for_each(|stage| stage.pre_tokenize(&mut pieces).unwrap());
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(piece, _, _)| piece.to_owned()).collect()
}

proptest! {
    #[test]
    fn linear_cutting_gives_what_backtracking_gives(text in texts()) {
        prop_assume!(!text.is_empty());
        for (linear, backtracking) in &*CUTTERS {
            let mut pieces = Vec::new();
            let mut keep = |piece: &str| -> Result<(), ()> { pieces.push(piece.to_owned()); Ok(()) };
            linear.each(&text, &mut keep).unwrap();
            prop_assert_eq!(pieces, cut_by_backtracking(backtracking, &text), "{:?}", linear);
        }
    }

    #[test]
    fn decoding_gives_the_text_back(text in texts(), parse_special in any::<bool>()) {
        let ids = TOKENIZER.encode(&text, false, parse_special).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&ids, false), text);
    }

    #[test]
    fn sentencepiece_decoding_gives_the_text_back_behind_a_space(text in texts()) {
        let ids = SPACED.encode(&text, false, false).unwrap();
        let expected = if text.is_empty() { String::new() } else { format!(" {}", text.replace('▁', " ")) };
        prop_assert_eq!(SPACED.decode(&ids, false), expected);
    }

    #[test]
    fn plain_text_never_becomes_a_control_token(text in texts()) {
        for tokenizer in [&*TOKENIZER, &*SPACED] {
            let ids = tokenizer.encode(&text, false, false).unwrap();
            prop_assert!(ids.iter().all(|id| !tokenizer.is_special(*id)));
        }
    }

    #[test]
    fn a_stream_of_tokens_joins_to_the_decoded_list(
        ids in prop::collection::vec(prop_oneof![4 => 0..300_u32, 1 => 0..50_000_u32, 1 => any::<u32>()], 0..60),
        skip_special in any::<bool>(),
    ) {
        for tokenizer in [&*TOKENIZER, &*SPACED] {
            let mut stream = Detokenizer::new(skip_special);
            let mut text: String = ids.iter().map(|id| stream.push(tokenizer, *id)).collect();
            text += &stream.finish();
            prop_assert_eq!(&text, &tokenizer.decode(&ids, skip_special));
        }
    }

    #[test]
    fn a_stream_of_valid_text_never_shows_a_replacement_character(text in texts()) {
        let ids = TOKENIZER.encode(&text, false, true).unwrap();
        let mut stream = Detokenizer::new(false);
        for id in ids {
            let certain = stream.push(&TOKENIZER, id);
            prop_assert!(!certain.contains(char::REPLACEMENT_CHARACTER) || text.contains(char::REPLACEMENT_CHARACTER));
        }
        prop_assert_eq!(stream.finish(), "");
    }
}

#[test]
fn a_stream_holds_back_an_incomplete_character() {
    let ids = TOKENIZER.encode("𓀀!", false, true).unwrap();
    let mut stream = Detokenizer::default();
    let texts: Vec<String> = ids.iter().map(|id| stream.push(&TOKENIZER, *id)).collect();
    assert_eq!(texts.concat(), "𓀀!");
    assert_eq!(texts[0], "");
    let mut cut = Detokenizer::default();
    assert_eq!(cut.push(&TOKENIZER, ids[0]), "");
    assert_eq!(cut.finish(), "\u{fffd}");
    assert_eq!(cut.finish(), "", "a finished stream is empty");
}
