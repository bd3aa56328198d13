//! Text to token ids and back, with the ids that the model was trained on.
//!
//! A model brings its tokenizer along: in a GGUF file's metadata ([`Tokenizer::from_gguf`]) or as a directory of
//! Hugging Face files ([`Tokenizer::from_dir`]). Both become the same three steps: added tokens are cut out of the
//! text, the rest is cut into pieces, and each piece is merged by the `tokenizers` crate's BPE.
//!
//! The first two steps are ours, because a client's text is hostile until shown otherwise: they run in linear time
//! on any input, where a backtracking regular expression gives up and quietly cuts elsewhere. A form of tokenizer
//! that isn't known exactly is refused at load, since wrong ids look like a bad model.

mod added;
mod byte_level;
mod detokenizer;
mod directory;
mod gguf;
mod pieces;
mod split;
mod vocabulary;
mod words;

use std::fmt;
use std::path::PathBuf;

pub use detokenizer::Detokenizer;
use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;

use added::AddedTokens;
use pieces::Pieces;
use vocabulary::Vocabulary;

/// Words that each thread remembers the merges of; about 200 bytes each.
const WORD_CACHE_CAPACITY: usize = 4096;

/// Texts of control tokens that end an answer, whatever the model's configuration says of them.
const END_OF_GENERATION: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
];

/// What keeps a tokenizer from being built or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A key that the format requires is absent.
    #[error("the GGUF metadata has no `{0}`; the file is incomplete, or holds no language model")]
    Missing(String),
    /// A key holds something else than it should.
    #[error("the GGUF metadata's `{key}` must be {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// `tokenizer.ggml.model` names an algorithm that isn't built in.
    #[error(
        "tokenizer model `{0}` is not supported; known are `gpt2` (byte-level BPE) and `llama` (SentencePiece)"
    )]
    UnknownModel(String),
    /// `tokenizer.ggml.pre` names cutting rules that aren't built in.
    #[error("pre-tokenizer `{name}` is not supported; known are {known}")]
    UnknownPreTokenizer {
        /// The name in the file.
        name: String,
        /// Every supported name.
        known: String,
    },
    /// A tokenizer.json asks for a step that isn't built in.
    #[error("the tokenizer's {0} is not supported")]
    Unsupported(String),
    /// A file of the model's directory can't be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the model's directory isn't what its name says.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The vocabulary contradicts itself.
    #[error("the vocabulary is inconsistent: {0}")]
    Vocabulary(String),
    /// A text can't be encoded: the vocabulary has neither a token for a character nor an unknown token.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
}

/// A model's tokenizer. Immutable; share it in an `Arc`.
pub struct Tokenizer {
    added: AddedTokens,
    pieces: Pieces,
    model: BPE,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    end_of_generation: Vec<u32>,
    /// Ids that `add_special` puts before and after a text.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("pieces", &self.pieces)
            .field("bos", &self.bos)
            .field("end_of_generation", &self.end_of_generation)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The ids of `text`.
    ///
    /// `add_special` adds what the model expects around a document (its beginning-of-sequence token, as a rule);
    /// leave it off for a text from a chat template, which writes its own. `parse_special` reads control tokens such
    /// as `<|im_start|>` in the text as what they are; without it they are plain text, and no control id comes out.
    pub fn encode(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if add_special {
            ids.extend(&self.prefix);
        }
        self.added.cut(text, parse_special, |segment| match segment {
            added::Segment::Token(id) => {
                ids.push(id);
                Ok(())
            }
            added::Segment::Text { text, at_start } => self.pieces.each(text, at_start, &mut |piece| {
                let tokens =
                    self.model.tokenize(piece).map_err(|error| TokenizerError::Encode(error.to_string()))?;
                ids.extend(tokens.iter().map(|token| token.id));
                Ok(())
            }),
        })?;
        if add_special {
            ids.extend(&self.suffix);
        }
        Ok(ids)
    }

    /// The text of `ids`: their bytes joined, with U+FFFD where those aren't UTF-8. Unknown ids have no text.
    ///
    /// A SentencePiece vocabulary's first word keeps its space, since the text may continue another.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let shown = ids.iter().filter(|id| !(skip_special && self.is_special(**id)));
        let bytes: Vec<u8> = shown.filter_map(|id| self.token_bytes(*id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that one token stands for; a character's bytes may be spread over several tokens. None for an id
    /// outside the vocabulary or one that nothing is assigned to.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// One token's text, with U+FFFD where its bytes aren't UTF-8 by themselves.
    pub fn token_text(&self, id: u32) -> Option<std::borrow::Cow<'_, str>> {
        self.token_bytes(id).map(String::from_utf8_lossy)
    }

    /// Whether `id` is a control token, which an answer's text leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.is_special(id)
    }

    /// The number of ids, assigned or not: one more than the greatest. The model's own rows may be more, padded.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes of the longest token: a text of more than `n` times as many has more than `n` tokens.
    pub fn longest_token_bytes(&self) -> usize {
        self.vocabulary.longest()
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token that the model names first.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether `id` ends an answer.
    pub fn is_eog(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }
}

/// `named` and the special tokens whose text is known to end an answer, ascending.
fn end_of_generation(vocabulary: &Vocabulary, named: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let known = (0..vocabulary.len() as u32).filter(|id| {
        vocabulary.is_special(*id)
            && vocabulary
                .bytes(*id)
                .is_some_and(|bytes| END_OF_GENERATION.iter().any(|text| text.as_bytes() == bytes))
    });
    let mut ids: Vec<u32> = known.chain(named).filter(|id| (*id as usize) < vocabulary.len()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests;
