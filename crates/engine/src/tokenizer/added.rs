//! Tokens that are found in the text as they are, before anything else looks at it.

use aho_corasick::{AhoCorasick, MatchKind};

use super::TokenizerError;

/// One token of the added vocabulary.
#[derive(Clone, Debug)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) text: String,
    /// A control token, which only `parse_special` finds.
    pub(super) special: bool,
    /// Swallows the white space before it.
    pub(super) strip_left: bool,
    /// Swallows the white space after it.
    pub(super) strip_right: bool,
}

/// What a text is made of.
pub(super) enum Segment<'t> {
    Token(u32),
    /// Never empty.
    Text {
        text: &'t str,
        at_start: bool,
    },
}

/// Finds added tokens, the longest where several start at one place.
pub(super) struct AddedTokens {
    all: Finder,
    /// Those that aren't special.
    plain: Finder,
}

impl AddedTokens {
    pub(super) fn new(tokens: Vec<AddedToken>) -> Result<Self, TokenizerError> {
        let plain = tokens.iter().filter(|token| !token.special).cloned().collect();
        Ok(Self { all: Finder::new(tokens)?, plain: Finder::new(plain)? })
    }

    /// Calls `each` with the segments of `text` in order.
    pub(super) fn cut<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        mut each: impl FnMut(Segment<'t>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let finder = if parse_special { &self.all } else { &self.plain };
        let mut position = 0;
        for found in finder.automaton.find_iter(text) {
            if found.start() < position {
                continue;
            }
            let token = &finder.tokens[found.pattern()];
            let before = &text[position..found.start()];
            let before = if token.strip_left { before.trim_end() } else { before };
            if !before.is_empty() {
                each(Segment::Text { text: before, at_start: position == 0 })?;
            }
            each(Segment::Token(token.id))?;
            position = found.end();
            if token.strip_right {
                position = text.len() - text[position..].trim_start().len();
            }
        }
        match &text[position..] {
            "" => Ok(()),
            rest => each(Segment::Text { text: rest, at_start: position == 0 }),
        }
    }
}

struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<AddedToken>,
}

impl Finder {
    fn new(mut tokens: Vec<AddedToken>) -> Result<Self, TokenizerError> {
        tokens.retain(|token| !token.text.is_empty());
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|token| &token.text))
            .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
        Ok(Self { automaton, tokens })
    }
}
