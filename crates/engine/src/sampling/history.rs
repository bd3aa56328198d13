//! Which tokens a sequence has seen, as far as penalties ask.

/// The distinct tokens of a prompt and its output, and how often each is in the output. 8 bytes a distinct token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenHistory {
    /// Ascending by token. The count is of the output alone: 0 for a token that only the prompt has.
    seen: Vec<(u32, u32)>,
}

impl TokenHistory {
    /// The history of a sequence that has a prompt and no output yet. A sequence that moved here pushes what it
    /// had generated elsewhere.
    pub fn new(prompt: &[u32]) -> Self {
        let mut tokens = prompt.to_vec();
        tokens.sort_unstable();
        tokens.dedup();
        Self { seen: tokens.into_iter().map(|token| (token, 0)).collect() }
    }

    /// Takes note of one generated token.
    pub fn push(&mut self, token: u32) {
        match self.seen.binary_search_by_key(&token, |(token, _)| *token) {
            Ok(index) => self.seen[index].1 += 1,
            Err(index) => self.seen.insert(index, (token, 1)),
        }
    }

    /// Each distinct token with its count in the output, ascending by token.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.seen.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prompt_tokens_are_present_but_not_counted() {
        let mut history = TokenHistory::new(&[7, 3, 7]);
        for token in [3, 9, 3] {
            history.push(token);
        }
        assert_eq!(history.iter().collect::<Vec<_>>(), [(3, 2), (7, 0), (9, 1)]);
    }

    proptest! {
        #[test]
        fn a_history_counts_as_a_plain_scan_does(
            prompt in prop::collection::vec(0_u32..20, 0..40), output in prop::collection::vec(0_u32..20, 0..40),
        ) {
            let mut history = TokenHistory::new(&prompt);
            output.iter().for_each(|token| history.push(*token));
            let expected: Vec<_> = (0..20)
                .filter(|token| prompt.contains(token) || output.contains(token))
                .map(|token| (token, output.iter().filter(|other| **other == token).count() as u32))
                .collect();
            prop_assert_eq!(history.iter().collect::<Vec<_>>(), expected);
        }
    }
}
