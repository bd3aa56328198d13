//! Text of common words, written fast into a buffer.

use std::sync::LazyLock;

use crate::random::{GOLDEN_GAMMA, draw, mix};
use crate::words::WORDS;

/// Words that spell 64 bits, a byte each: texts that start with different ones are different.
pub(crate) const ID_WORDS: u64 = 8;
/// About how many bytes a word takes with its space, for capacities.
pub(crate) const WORD_BYTES: usize = 6;

/// Each word after a space, in eight bytes, so that writing one is a copy of fixed size.
static SPACED: LazyLock<[([u8; 8], u8); 256]> = LazyLock::new(|| {
    WORDS.map(|word| {
        let mut bytes = [b' '; 8];
        let letters = word.len().min(7);
        bytes[1..=letters].copy_from_slice(&word.as_bytes()[..letters]);
        (bytes, letters as u8 + 1)
    })
});

/// Writes words into `out`, each after a space. They need no escape in JSON.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    spaced: &'static [([u8; 8], u8); 256],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, spaced: &SPACED }
    }

    /// `words` words that look random and depend on `seed` alone.
    pub(crate) fn stream(&mut self, seed: u64, words: u64) {
        let mut state = !seed;
        let mut left = words;
        while left > 0 {
            state = state.wrapping_add(GOLDEN_GAMMA);
            let now = left.min(8);
            self.words_of(mix(state), now as usize);
            left -= now;
        }
    }

    /// `words` words that start differently for each `id`, as far as there are eight of them.
    pub(crate) fn own(&mut self, seed: u64, id: u64, words: u64) {
        let id = draw(seed, id);
        self.words_of(id, words.min(ID_WORDS) as usize);
        self.stream(id, words.saturating_sub(ID_WORDS));
    }

    fn words_of(&mut self, bits: u64, words: usize) {
        for byte in &bits.to_le_bytes()[..words] {
            let (spaced, len) = &self.spaced[usize::from(*byte)];
            let end = self.out.len() + usize::from(*len);
            self.out.extend_from_slice(spaced);
            self.out.truncate(end);
        }
    }
}

/// Text of `words` words, without the space that it starts with.
pub(crate) fn plain(seed: u64, words: u64) -> String {
    let mut out = Vec::new();
    Writer::new(&mut out).own(seed, 0, words);
    String::from_utf8_lossy(&out).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_vocabulary_has_no_word_twice_and_each_fits_eight_bytes_with_its_space() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), 256);
        assert!(WORDS.iter().all(|word| (1..=7).contains(&word.len())));
        assert!(WORDS.iter().all(|word| word.bytes().all(|letter| letter.is_ascii_lowercase())));
    }

    #[test]
    fn as_many_words_are_written_as_were_asked_for() {
        for words in [0, 1, 7, 8, 9, 16, 100] {
            let text = plain(5, words);
            assert_eq!(text.split_whitespace().count() as u64, words, "{text}");
            assert!(text.split_whitespace().all(|word| WORDS.contains(&word)), "{text}");
        }
    }

    #[test]
    fn a_word_is_a_byte_of_an_id() {
        let mut out = Vec::new();
        Writer::new(&mut out).words_of(0x0100, 8);
        assert_eq!(String::from_utf8(out).expect("text"), " able about able able able able able able");
    }
}
