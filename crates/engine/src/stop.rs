//! Stop strings in streamed text.

/// Finds stop strings in text that arrives piece by piece, and holds back what could still become one.
///
/// The match that is complete first wins; of several that end at the same byte, the one that starts earliest, since
/// the others are part of it. So the outcome doesn't depend on how the text was cut into pieces, and generation ends
/// with the very token that completes a stop string. Nothing that was emitted is ever taken back: what is held
/// is always shorter than the longest stop string, and starts where a character starts.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    patterns: Vec<Pattern>,
    /// Text that is not emitted yet.
    held: String,
    stopped: Option<usize>,
}

/// What [`StopMatcher::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that is safe to emit now; never part of a stop string that ends the text.
    pub text: String,
    /// Which stop string ended the text, as an index into the list that the matcher was made of.
    pub stopped: Option<usize>,
}

impl StopMatcher {
    /// A matcher for `stops`; an empty string among them never matches.
    pub fn new(stops: Vec<String>) -> Self {
        Self { patterns: stops.into_iter().map(Pattern::new).collect(), held: String::new(), stopped: None }
    }

    /// Takes the next piece of text. After a stop everything further is dropped, and `stopped` stays set.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.stopped.is_some() {
            return StopOutput { text: String::new(), stopped: self.stopped };
        }
        let start = self.held.len();
        self.held.push_str(text);
        for (at, byte) in text.bytes().enumerate() {
            if let Some((which, stop_len)) = self.advance(byte) {
                self.stopped = Some(which);
                self.held.truncate(start + at + 1 - stop_len);
                return StopOutput { text: std::mem::take(&mut self.held), stopped: self.stopped };
            }
        }
        let partial = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or_default();
        let rest = self.held.split_off(self.held.len() - partial);
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// The text still held back, when generation ended for another reason; empty after a stop.
    pub fn finish(&mut self) -> String {
        self.patterns.iter_mut().for_each(|pattern| pattern.matched = 0);
        std::mem::take(&mut self.held)
    }

    /// Moves every pattern on by one byte. The longest that is now complete, with its length in bytes.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut longest: Option<(usize, usize)> = None;
        for (which, pattern) in self.patterns.iter_mut().enumerate() {
            let len = pattern.bytes.len();
            if pattern.advance(byte) && longest.is_none_or(|(_, longest_len)| len > longest_len) {
                longest = Some((which, len));
            }
        }
        longest
    }
}

/// One stop string as a matching automaton (Knuth, Morris and Pratt, 1977). Stop strings and text are both UTF-8,
/// so a match of bytes is a match of characters.
#[derive(Clone, Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each count of matched bytes: how many still match when the next one doesn't.
    fallback: Vec<usize>,
    /// How many bytes at the end of the text are the start of the stop string; less than its length.
    matched: usize,
}

impl Pattern {
    fn new(stop: String) -> Self {
        let bytes = stop.into_bytes();
        let mut fallback = vec![0; bytes.len()];
        let mut border = 0;
        for at in 1..bytes.len() {
            fallback[at] = border;
            while border > 0 && bytes[border] != bytes[at] {
                border = fallback[border];
            }
            border += usize::from(bytes[border] == bytes[at]);
        }
        Self { bytes, fallback, matched: 0 }
    }

    /// Takes the next byte of the text; true if it completes the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        let is_complete = self.matched == self.bytes.len();
        if is_complete {
            self.matched = 0;
        }
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    fn output(text: &str, stopped: Option<usize>) -> StopOutput {
        StopOutput { text: text.to_owned(), stopped }
    }

    /// The text before the first stop, and which stop; by looking at every prefix of the text.
    fn naive(text: &str, stops: &[String]) -> (String, Option<usize>) {
        let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
        for prefix in ends.map(|end| &text[..end]) {
            let complete =
                stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty() && prefix.ends_with(*stop));
            // The first of the longest.
            let longest = complete.min_by_key(|(_, stop)| std::cmp::Reverse(stop.len()));
            if let Some((which, stop)) = longest {
                return (prefix[..prefix.len() - stop.len()].to_owned(), Some(which));
            }
        }
        (text.to_owned(), None)
    }

    /// `text` in pieces that end after `cuts` characters, over and over.
    fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
        let mut chars = text.chars();
        let pieces = cuts.iter().cycle().map(|cut| chars.by_ref().take(*cut).collect::<String>());
        pieces.take(text.chars().count() + 1).collect()
    }

    /// Few characters, of one to four bytes, so that overlaps, repeats and near misses are common.
    fn text_and_stops() -> impl Strategy<Value = (String, Vec<String>)> {
        let four = ("[abé🦀]{0,60}", prop::collection::vec("[abé🦀]{0,6}", 0..5));
        let two = ("[aé]{0,60}", prop::collection::vec("[aé]{4,10}", 0..4));
        // Text made of nothing but starts of stops.
        let fragments = prop::collection::vec((any::<prop::sample::Index>(), 1_usize..10), 1..8);
        let starts = (prop::collection::vec("[aé]{4,10}", 1..3), fragments).prop_map(|(stops, fragments)| {
            let start =
                |(stop, len): &(prop::sample::Index, usize)| stop.get(&stops).chars().take(*len).collect();
            (fragments.iter().map(start).collect::<Vec<String>>().concat(), stops)
        });
        prop_oneof![four, two, starts]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn however_text_is_cut_what_is_emitted_ends_where_the_first_stop_starts(
            (text, stops) in text_and_stops(),
            cuts in prop::collection::vec(1_usize..5, 1..8),
        ) {
            let longest = stops.iter().map(String::len).max().unwrap_or_default();
            let (expected, which) = naive(&text, &stops);
            let mut matcher = StopMatcher::new(stops);
            let (mut given, mut emitted, mut stopped) = (0, String::new(), None);
            for piece in pieces(&text, &cuts) {
                let output = matcher.push(&piece);
                given += piece.len();
                emitted.push_str(&output.text);
                stopped = output.stopped;
                prop_assert!(expected.starts_with(&emitted), "{} was emitted, of {}", emitted, expected);
                prop_assert!(stopped.is_some() || given - emitted.len() <= longest.saturating_sub(1));
            }
            emitted.push_str(&matcher.finish());
            prop_assert_eq!(emitted, expected);
            prop_assert_eq!(stopped, which);
        }
    }

    #[test]
    fn without_stops_text_passes_at_once() {
        let mut matcher = matcher(&[]);
        assert_eq!(matcher.push("anything"), output("anything", None));
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn a_start_is_held_until_it_is_a_stop_or_is_not() {
        let mut matcher = matcher(&["\n\nUser:"]);
        assert_eq!(matcher.push("Hello\n"), output("Hello", None));
        assert_eq!(matcher.push("\n"), output("", None));
        assert_eq!(matcher.push("\nUs"), output("\n", None));
        assert_eq!(matcher.push("er: hi"), output("", Some(0)));
        assert_eq!(matcher.push("more"), output("", Some(0)));
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn what_was_held_comes_out_when_generation_ends_otherwise() {
        let mut matcher = matcher(&["</s>", "<|end|>"]);
        assert_eq!(matcher.push("a < b </"), output("a < b ", None));
        assert_eq!(matcher.finish(), "</");
        assert_eq!(matcher.push("s>"), output("s>", None), "a finished text is no part of the next");
    }

    #[test]
    fn a_stop_that_begins_inside_its_own_false_start_is_found() {
        assert_eq!(matcher(&["aabaaaa"]).push("aabaaabaaaa!"), output("aaba", Some(0)));
    }

    #[test]
    fn the_stop_that_is_complete_first_wins_and_the_longest_of_those() {
        assert_eq!(matcher(&["abcd", "bc"]).push("xabcd"), output("xa", Some(1)));
        assert_eq!(matcher(&["c", "bc", "bc"]).push("abc"), output("a", Some(1)));
        assert_eq!(matcher(&["ab", "abc"]).push("abc"), output("", Some(0)));
    }
}
