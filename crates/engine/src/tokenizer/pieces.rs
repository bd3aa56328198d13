//! Cutting plain text into the words that merging works on, spelled as the vocabulary spells them.

use std::borrow::Cow;

use tokenizers::normalizers::unicode::NFC;
use tokenizers::{NormalizedString, Normalizer as _};

use super::split::Splitter;
use super::{TokenizerError, byte_level};

/// SentencePiece's letter for a space.
pub(super) const SPACE: char = '▁';

/// How a vocabulary spells text.
#[derive(Debug)]
pub(super) enum Pieces {
    /// Words cut by patterns, each byte a character (GPT-2's way).
    ByteLevel {
        splitter: Splitter,
        /// Compose characters first (Unicode NFC).
        compose: bool,
    },
    /// Spaces written as [`SPACE`]; other characters are themselves (SentencePiece's way).
    SentencePiece { prefix: SpacePrefix, cut: SpaceCut },
}

/// When a text gets a space of its own before the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpacePrefix {
    Never,
    /// At the start, and again after every added token.
    Always,
    /// As `Always`, where there isn't a space already.
    WhereAbsent,
    /// As `WhereAbsent`, but only at the start.
    FirstWhereAbsent,
}

/// Where words may be merged on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpaceCut {
    /// The whole text is one word, since some token has a space inside.
    Nowhere,
    /// Before a run of spaces. As good as `Nowhere` for a vocabulary without such tokens, and much faster.
    BeforeRun,
    /// Before every space.
    BeforeEach,
}

type Each<'e> = dyn FnMut(&str) -> Result<(), TokenizerError> + 'e;

impl Pieces {
    /// Calls `each` with the words of `text`, which is not empty. `at_start` says that nothing stood before it.
    pub(super) fn each(&self, text: &str, at_start: bool, each: &mut Each<'_>) -> Result<(), TokenizerError> {
        match self {
            Self::ByteLevel { splitter, compose } => {
                let text = if *compose { composed(text)? } else { Cow::Borrowed(text) };
                let mut spelled = String::new();
                splitter.each(&text, &mut |piece| {
                    spelled.clear();
                    byte_level::write(piece, &mut spelled);
                    each(&spelled)
                })
            }
            Self::SentencePiece { prefix, cut } => {
                let has_space = text.starts_with([' ', SPACE]);
                let add = match prefix {
                    SpacePrefix::Never => false,
                    SpacePrefix::Always => true,
                    SpacePrefix::WhereAbsent => !has_space,
                    SpacePrefix::FirstWhereAbsent => at_start && !has_space,
                };
                let mut spelled = String::with_capacity(text.len() * 5 / 4 + SPACE.len_utf8());
                spelled.extend(add.then_some(SPACE));
                spelled.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
                cut.each(&spelled, each)
            }
        }
    }
}

impl SpaceCut {
    /// The coarsest cut that cannot change a result, for a vocabulary of `tokens`.
    pub(super) fn for_tokens<'t>(mut tokens: impl Iterator<Item = &'t str>) -> Self {
        let spans_words = |token: &str| token.trim_start_matches(SPACE).contains(SPACE);
        if tokens.any(spans_words) { Self::Nowhere } else { Self::BeforeRun }
    }

    fn each(self, text: &str, each: &mut Each<'_>) -> Result<(), TokenizerError> {
        let mut start = 0;
        if self != Self::Nowhere {
            let mut previous = None;
            for (position, character) in text.char_indices() {
                let inside_run = self == Self::BeforeRun && previous == Some(SPACE);
                if character == SPACE && position > start && !inside_run {
                    each(&text[start..position])?;
                    start = position;
                }
                previous = Some(character);
            }
        }
        if start < text.len() { each(&text[start..]) } else { Ok(()) }
    }
}

fn composed(text: &str) -> Result<Cow<'_, str>, TokenizerError> {
    if text.is_ascii() {
        return Ok(Cow::Borrowed(text));
    }
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized).map_err(|error| TokenizerError::Encode(error.to_string()))?;
    Ok(Cow::Owned(normalized.get().to_owned()))
}
