//! A tokenizer from a directory of Hugging Face files, with the ids that the `transformers` library gives.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::models::ModelWrapper;

use super::added::{AddedToken, AddedTokens};
use super::pieces::{Pieces, SPACE, SpaceCut, SpacePrefix};
use super::split::{GPT2, Splitter};
use super::vocabulary::Vocabulary;
use super::{Tokenizer, TokenizerError, WORD_CACHE_CAPACITY, byte_level, end_of_generation};

impl Tokenizer {
    /// The tokenizer in `dir`: `tokenizer.json`, and `tokenizer_config.json` and `generation_config.json` where there
    /// are such. BPE only, byte-level or SentencePiece; a step that isn't known is refused by name.
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        Self::from_file(&dir.join("tokenizer.json"))
    }

    /// The same from a `tokenizer.json` of whatever name; the two others lie beside it.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let bytes = read(path)?.ok_or_else(|| TokenizerError::File {
            path: path.to_owned(),
            source: ErrorKind::NotFound.into(),
        })?;
        let steps: Steps = parse(path, &bytes)?;
        let config = read_json(&dir.join("tokenizer_config.json"))?;
        let generation = read_json(&dir.join("generation_config.json"))?;
        let malformed = |reason: String| TokenizerError::Malformed { path: path.to_owned(), reason };
        let mut source: tokenizers::Tokenizer = parse(path, &bytes)?;
        source.with_padding(None);
        source.with_truncation(None).map_err(|error| malformed(error.to_string()))?;
        let ModelWrapper::BPE(model) = source.get_model() else {
            return Err(TokenizerError::Unsupported("model (only BPE is)".to_owned()));
        };
        let mut model = model.clone();
        model.resize_cache(WORD_CACHE_CAPACITY);

        let pieces = pieces(&steps, &source)?;
        if matches!(pieces, Pieces::ByteLevel { .. }) {
            // A byte without a token would become the unknown token, which may be a control token.
            model.unk_token = None;
        }
        let vocabulary = vocabulary(&source, matches!(pieces, Pieces::ByteLevel { .. }));
        let token = |key: &str| token_text(&config[key]).and_then(|text| source.token_to_id(text));
        let bos = token("bos_token").or_else(|| ids(&generation["bos_token_id"]).first().copied());
        let named = ids(&generation["eos_token_id"]);
        let eos = token("eos_token").or_else(|| named.first().copied());
        let (mut prefix, suffix) = surroundings(&source).map_err(malformed)?;
        if config["add_bos_token"] == true && prefix.first() != bos.as_ref() {
            prefix.splice(0..0, bos);
        }
        Ok(Self {
            added: added(&source)?,
            pieces,
            model,
            end_of_generation: end_of_generation(&vocabulary, named.into_iter().chain(eos)),
            vocabulary,
            bos,
            eos,
            prefix,
            suffix,
        })
    }
}

/// The part of tokenizer.json that says how text is cut.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::File { path: path.to_owned(), source }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, TokenizerError> {
    serde_json::from_slice(bytes)
        .map_err(|error| TokenizerError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// Null for a file that doesn't exist.
fn read_json(path: &Path) -> Result<Value, TokenizerError> {
    read(path)?.map_or(Ok(Value::Null), |bytes| parse(path, &bytes))
}

/// A token of tokenizer_config.json: its text, or an object that holds it.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// One id or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    values.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
}

/// What the post-processor puts before and after a text, seen on a text of one letter.
fn surroundings(source: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), String> {
    let encode = |add_special| source.encode_fast("a", add_special).map_err(|error| error.to_string());
    let (plain, full) = (encode(false)?, encode(true)?);
    let (plain, full) = (plain.get_ids(), full.get_ids());
    let at = full.windows(plain.len().max(1)).position(|window| window == plain);
    let at = at.ok_or("its post-processor changes the text's own tokens")?;
    Ok((full[..at].to_vec(), full[at + plain.len()..].to_vec()))
}

fn added(source: &tokenizers::Tokenizer) -> Result<AddedTokens, TokenizerError> {
    let mut tokens = Vec::new();
    for (id, token) in source.get_added_tokens_decoder() {
        if token.single_word {
            return Err(TokenizerError::Unsupported(format!(
                "added token `{}` (a single word only)",
                token.content
            )));
        }
        tokens.push(AddedToken {
            id,
            text: token.content,
            special: token.special,
            strip_left: token.lstrip,
            strip_right: token.rstrip,
        });
    }
    AddedTokens::new(tokens)
}

fn vocabulary(source: &tokenizers::Tokenizer, byte_level: bool) -> Vocabulary {
    let added = source.get_added_tokens_decoder();
    let mut tokens: Vec<(u32, String)> =
        source.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
    tokens.sort_unstable();
    let mut vocabulary = Vocabulary::with_capacity(tokens.len());
    for (id, text) in tokens {
        // Two texts for one id: the first stays.
        if (id as usize) < vocabulary.len() {
            continue;
        }
        while vocabulary.len() < id as usize {
            vocabulary.push(&[], false);
        }
        match added.get(&id) {
            Some(token) => vocabulary.push(token.content.as_bytes(), token.special),
            None if byte_level => vocabulary.push(&byte_level::read(&text), false),
            None => vocabulary.push(&super::gguf::sentencepiece_bytes(&text), false),
        }
    }
    vocabulary
}

/// One step, or those of a sequence, whose members are under the key `inner`.
fn unfold<'d>(step: &'d Value, inner: &str, out: &mut Vec<&'d Value>) {
    match step[inner].as_array() {
        Some(sequence) => sequence.iter().for_each(|step| unfold(step, inner, out)),
        None if step.is_null() => {}
        None => out.push(step),
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn pieces(steps: &Steps, source: &tokenizers::Tokenizer) -> Result<Pieces, TokenizerError> {
    let (mut normalizers, mut cuts) = (Vec::new(), Vec::new());
    unfold(&steps.normalizer, "normalizers", &mut normalizers);
    unfold(&steps.pre_tokenizer, "pretokenizers", &mut cuts);
    match cuts.split_last() {
        Some((last, before)) if kind(last) == "ByteLevel" => byte_level_pieces(&normalizers, before, last),
        _ => sentencepiece_pieces(&normalizers, &cuts, source),
    }
}

fn byte_level_pieces(
    normalizers: &[&Value],
    before: &[&Value],
    last: &Value,
) -> Result<Pieces, TokenizerError> {
    if let Some(step) = normalizers.iter().find(|step| kind(step) != "NFC") {
        return Err(TokenizerError::Unsupported(format!("normalizer `{}`", kind(step))));
    }
    if last["add_prefix_space"] == true {
        return Err(TokenizerError::Unsupported("`add_prefix_space` of `ByteLevel`".to_owned()));
    }
    let mut patterns: Vec<String> = before.iter().map(|step| pattern(step)).collect::<Result<_, _>>()?;
    if last["use_regex"] != false {
        patterns.push(GPT2.to_owned());
    }
    Ok(Pieces::ByteLevel { splitter: Splitter::new(&patterns)?, compose: !normalizers.is_empty() })
}

fn pattern(step: &Value) -> Result<String, TokenizerError> {
    match (kind(step), step["pattern"]["Regex"].as_str(), step["behavior"].as_str(), &step["invert"]) {
        ("Split", Some(regex), Some("Isolated"), Value::Bool(false))
        // Dropping what doesn't match: nothing, for patterns that match everything.
        | ("Split", Some(regex), Some("Removed"), Value::Bool(true)) => Ok(regex.to_owned()),
        ("Digits", ..) if step["individual_digits"] == true => Ok(r"\p{N}".to_owned()),
        ("Digits", ..) => Ok(r"\p{N}+".to_owned()),
        _ => Err(TokenizerError::Unsupported(format!("pre-tokenizer step {step}"))),
    }
}

fn sentencepiece_pieces(
    normalizers: &[&Value],
    cuts: &[&Value],
    source: &tokenizers::Tokenizer,
) -> Result<Pieces, TokenizerError> {
    let space = SPACE.to_string();
    let is_prepend = |step: &Value| kind(step) == "Prepend" && step["prepend"] == *space;
    let is_replace = |step: &Value| {
        kind(step) == "Replace" && step["pattern"]["String"] == " " && step["content"] == *space
    };
    let vocabulary = source.get_vocab(false);
    let coarsest = || SpaceCut::for_tokens(vocabulary.keys().map(String::as_str));
    match (normalizers, cuts) {
        ([prepend, replace], []) if is_prepend(prepend) && is_replace(replace) => {
            Ok(Pieces::SentencePiece { prefix: SpacePrefix::Always, cut: coarsest() })
        }
        ([replace], []) if is_replace(replace) => {
            Ok(Pieces::SentencePiece { prefix: SpacePrefix::Never, cut: coarsest() })
        }
        ([], [step]) if kind(step) == "Metaspace" && step["replacement"] == *space => {
            let prefix = match (step["prepend_scheme"].as_str(), &step["add_prefix_space"]) {
                (Some("never"), _) | (None, Value::Bool(false)) => SpacePrefix::Never,
                (Some("first"), _) => SpacePrefix::FirstWhereAbsent,
                _ => SpacePrefix::WhereAbsent,
            };
            let cut = if step["split"] == false { coarsest() } else { SpaceCut::BeforeEach };
            Ok(Pieces::SentencePiece { prefix, cut })
        }
        _ => {
            let names: Vec<&str> = normalizers.iter().chain(cuts).map(|step| kind(step)).collect();
            Err(TokenizerError::Unsupported(format!("combination of steps [{}]", names.join(", "))))
        }
    }
}
