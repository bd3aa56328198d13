//! A tokenizer from a GGUF file's metadata, with the ids that llama.cpp gives.

use std::collections::{HashMap, HashSet};

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use super::added::{AddedToken, AddedTokens};
use super::pieces::{Pieces, SPACE, SpaceCut, SpacePrefix};
use super::split::{self, Splitter};
use super::vocabulary::Vocabulary;
use super::{Tokenizer, TokenizerError, WORD_CACHE_CAPACITY, byte_level, end_of_generation};

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenType {
    fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// What both kinds of tokenizer read from the file.
struct Tokens<'m> {
    metadata: Metadata<'m>,
    texts: Vec<&'m str>,
    types: Vec<TokenType>,
}

/// How one kind makes words and merges them.
struct Words {
    pieces: Pieces,
    model: BPE,
    add_bos: bool,
}

impl Tokenizer {
    /// The tokenizer in a GGUF file's metadata (`tokenizer.ggml.*`): byte-level BPE or SentencePiece.
    pub fn from_gguf(metadata: &HashMap<String, Value>) -> Result<Self, TokenizerError> {
        let tokens = Tokens::read(Metadata(metadata))?;
        let (words, vocabulary) = match tokens.metadata.text("tokenizer.ggml.model")? {
            "gpt2" => (byte_level_words(&tokens)?, tokens.vocabulary(byte_level::read)),
            "llama" => (sentencepiece_words(&tokens)?, tokens.vocabulary(sentencepiece_bytes)),
            other => return Err(TokenizerError::UnknownModel(other.to_owned())),
        };
        let metadata = tokens.metadata;
        let bos = tokens.id("bos")?;
        let eos = tokens.id("eos")?;
        let named = [eos, tokens.id("eot")?, tokens.id("eom")?];
        let add_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(words.add_bos);
        let add_eos = metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        Ok(Self {
            added: tokens.added()?,
            pieces: words.pieces,
            model: words.model,
            end_of_generation: end_of_generation(&vocabulary, named.into_iter().flatten()),
            vocabulary,
            bos,
            eos,
            prefix: bos.filter(|_| add_bos).into_iter().collect(),
            suffix: eos.filter(|_| add_eos).into_iter().collect(),
        })
    }
}

impl<'m> Tokens<'m> {
    fn read(metadata: Metadata<'m>) -> Result<Self, TokenizerError> {
        let texts = metadata.texts("tokenizer.ggml.tokens")?;
        let types = match metadata.integers("tokenizer.ggml.token_type")? {
            None => vec![TokenType::Normal; texts.len()],
            Some(codes) => codes
                .iter()
                .map(|code| match code {
                    2 => TokenType::Unknown,
                    3 => TokenType::Control,
                    4 => TokenType::UserDefined,
                    5 => TokenType::Unused,
                    6 => TokenType::Byte,
                    _ => TokenType::Normal,
                })
                .collect(),
        };
        if types.len() != texts.len() {
            return Err(TokenizerError::Vocabulary(format!(
                "{} tokens, but {} types",
                texts.len(),
                types.len()
            )));
        }
        Ok(Self { metadata, texts, types })
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &'m str, TokenType)> {
        (0..).zip(&self.texts).zip(&self.types).map(|((id, text), kind)| (id, *text, *kind))
    }

    /// The id under `tokenizer.ggml.{name}_token_id`, where it is one of the vocabulary's.
    fn id(&self, name: &str) -> Result<Option<u32>, TokenizerError> {
        let id = self.metadata.integer(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok(id.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < self.texts.len()))
    }

    /// What the model merges; leaving control tokens out keeps plain text from ever becoming one.
    fn mergeable(&self) -> Vocab {
        let words = self.iter().filter(|(_, _, kind)| *kind != TokenType::Control);
        words.map(|(id, text, _)| (text.to_owned(), id)).collect()
    }

    fn vocabulary(&self, read: fn(&str) -> Vec<u8>) -> Vocabulary {
        let mut vocabulary = Vocabulary::with_capacity(self.texts.len());
        for (_, text, kind) in self.iter() {
            match kind {
                TokenType::Normal | TokenType::Unused | TokenType::Byte => {
                    vocabulary.push(&read(text), false)
                }
                _ => vocabulary.push(text.as_bytes(), kind.is_special()),
            }
        }
        vocabulary
    }

    fn added(&self) -> Result<AddedTokens, TokenizerError> {
        let added = self.iter().filter(|(_, _, kind)| kind.is_special() || *kind == TokenType::UserDefined);
        let tokens = added.map(|(id, text, kind)| AddedToken {
            id,
            text: text.to_owned(),
            special: kind.is_special(),
            strip_left: false,
            strip_right: false,
        });
        AddedTokens::new(tokens.collect())
    }
}

fn byte_level_words(tokens: &Tokens<'_>) -> Result<Words, TokenizerError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let name = tokens.metadata.optional_text("tokenizer.ggml.pre")?.unwrap_or("default");
    let rules = split::pre_tokenizer(name)?;
    // A part may begin with a space's stand-in but holds no space, so the first one parts the two.
    let merges: Option<Merges> =
        tokens.metadata.texts(MERGES)?.into_iter().map(|merge| merge.split_once(' ')).map(owned).collect();
    let merges = merges.ok_or_else(|| TokenizerError::WrongType {
        key: MERGES.to_owned(),
        expected: "pairs parted by a space",
    })?;
    let model = BPE::builder()
        .vocab_and_merges(tokens.mergeable(), merges)
        .ignore_merges(rules.ignore_merges)
        .cache_capacity(WORD_CACHE_CAPACITY)
        .build()
        .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
    let splitter = Splitter::new(rules.patterns)?;
    Ok(Words { pieces: Pieces::ByteLevel { splitter, compose: false }, model, add_bos: rules.add_bos })
}

fn owned(pair: Option<(&str, &str)>) -> Option<(String, String)> {
    pair.map(|(left, right)| (left.to_owned(), right.to_owned()))
}

fn sentencepiece_words(tokens: &Tokens<'_>) -> Result<Words, TokenizerError> {
    let scores = tokens.metadata.floats("tokenizer.ggml.scores")?;
    if scores.len() != tokens.texts.len() {
        let message = format!("{} tokens, but {} scores", tokens.texts.len(), scores.len());
        return Err(TokenizerError::Vocabulary(message));
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(tokens.mergeable(), merges_by_score(tokens, &scores))
        .byte_fallback(true)
        .fuse_unk(false)
        .cache_capacity(WORD_CACHE_CAPACITY);
    if let Some((_, unknown, _)) = tokens.iter().find(|(_, _, kind)| *kind == TokenType::Unknown) {
        builder = builder.unk_token(unknown.to_owned());
    }
    let model = builder.build().map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
    let prefix = match tokens.metadata.flag("tokenizer.ggml.add_space_prefix")? {
        Some(false) => SpacePrefix::Never,
        _ => SpacePrefix::Always,
    };
    let words = tokens.iter().filter(|(_, _, kind)| is_word(*kind)).map(|(_, text, _)| text);
    let pieces = Pieces::SentencePiece { prefix, cut: SpaceCut::for_tokens(words) };
    Ok(Words { pieces, model, add_bos: true })
}

fn is_word(kind: TokenType) -> bool {
    matches!(kind, TokenType::Normal | TokenType::Unused)
}

/// SentencePiece joins the neighbours whose joined token scores best. As merges: every way to part a word into two
/// words, the better scored first.
fn merges_by_score(tokens: &Tokens<'_>, scores: &[f32]) -> Merges {
    let words: HashSet<&str> =
        tokens.iter().filter(|(_, _, kind)| is_word(*kind)).map(|(_, text, _)| text).collect();
    let mut merges = Vec::new();
    for (id, text, _) in tokens.iter().filter(|(_, _, kind)| is_word(*kind)) {
        for (position, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(position);
            if words.contains(left) && words.contains(right) {
                merges.push((scores[id as usize], left, right));
            }
        }
    }
    merges.sort_by(|(first, ..), (second, ..)| second.total_cmp(first));
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// The bytes of a normal SentencePiece token: `<0x0A>` is one byte, `▁` a space.
pub(super) fn sentencepiece_bytes(token: &str) -> Vec<u8> {
    let hexadecimal = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match hexadecimal
        .filter(|digits| digits.len() == 2)
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}

/// Metadata with its types checked.
#[derive(Clone, Copy)]
struct Metadata<'m>(&'m HashMap<String, Value>);

impl<'m> Metadata<'m> {
    fn optional_text(self, key: &str) -> Result<Option<&'m str>, TokenizerError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(key, "a string")),
        }
    }

    fn text(self, key: &str) -> Result<&'m str, TokenizerError> {
        self.optional_text(key)?.ok_or_else(|| TokenizerError::Missing(key.to_owned()))
    }

    fn flag(self, key: &str) -> Result<Option<bool>, TokenizerError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(wrong_type(key, "a boolean")),
        }
    }

    fn integer(self, key: &str) -> Result<Option<i64>, TokenizerError> {
        self.0.get(key).map(|value| integer(value).ok_or_else(|| wrong_type(key, "an integer"))).transpose()
    }

    fn array(self, key: &str) -> Result<Option<&'m [Value]>, TokenizerError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(wrong_type(key, "an array")),
        }
    }

    fn integers(self, key: &str) -> Result<Option<Vec<i64>>, TokenizerError> {
        let Some(values) = self.array(key)? else { return Ok(None) };
        let integers: Option<Vec<i64>> = values.iter().map(integer).collect();
        integers.map(Some).ok_or_else(|| wrong_type(key, "an array of integers"))
    }

    fn texts(self, key: &str) -> Result<Vec<&'m str>, TokenizerError> {
        let values = self.array(key)?.ok_or_else(|| TokenizerError::Missing(key.to_owned()))?;
        let texts = values.iter().map(|value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Option<_>>().ok_or_else(|| wrong_type(key, "an array of strings"))
    }

    fn floats(self, key: &str) -> Result<Vec<f32>, TokenizerError> {
        let values = self.array(key)?.ok_or_else(|| TokenizerError::Missing(key.to_owned()))?;
        let floats = values.iter().map(|value| value.to_f32().ok());
        floats.collect::<Option<_>>().ok_or_else(|| wrong_type(key, "an array of 32-bit floats"))
    }
}

fn wrong_type(key: &str, expected: &'static str) -> TokenizerError {
    TokenizerError::WrongType { key: key.to_owned(), expected }
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(value) => Some(value.into()),
        Value::I8(value) => Some(value.into()),
        Value::U16(value) => Some(value.into()),
        Value::I16(value) => Some(value.into()),
        Value::U32(value) => Some(value.into()),
        Value::I32(value) => Some(value.into()),
        Value::U64(value) => i64::try_from(value).ok(),
        Value::I64(value) => Some(value),
        _ => None,
    }
}
