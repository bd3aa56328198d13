//! How long the vocabulary's words are in tokens.

use crate::error::Error;
use crate::prompts::PromptBasis;
use crate::prompts::text::{ID_WORDS, plain};
use crate::random::{Purpose, seed_for};

/// How often a sample is made longer or shorter until it has the tokens that were wanted.
const CORRECTIONS_MAX: u32 = 3;
/// The longest sample. The ratio no longer changes beyond, and a server may bound what it counts.
const SAMPLE_TOKENS_MAX: u64 = 4_096;

/// Tokens of a word with its space, on average; above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokensPerWord(f64);

impl Default for TokensPerWord {
    /// One: what byte-pair tokenizers mostly take for a common word.
    fn default() -> Self {
        Self(1.0)
    }
}

impl TokensPerWord {
    /// What a text of `words` words that was counted says.
    pub fn counted(tokens: u64, words: u64) -> Self {
        Self(tokens.max(1) as f64 / words.max(1) as f64)
    }

    /// How many words come nearest to so many tokens.
    pub fn words(self, tokens: u32) -> u64 {
        (f64::from(tokens) / self.0).round() as u64
    }
}

/// Finds how many tokens a word takes: samples of about `tokens` tokens are counted by `count`, and made
/// longer or shorter until they have so many. `count` says `None` where there is nobody to count; then a token a word is
/// assumed and the basis says so.
///
/// # Errors
/// When `count` fails.
pub(super) async fn calibrate(
    seed: u64,
    tokens: u64,
    count: impl AsyncFn(&str) -> Result<Option<u64>, Error>,
) -> Result<(TokensPerWord, PromptBasis), Error> {
    let wanted = tokens.clamp(ID_WORDS, SAMPLE_TOKENS_MAX);
    let seed = seed_for(seed, Purpose::Sample);
    let mut words = wanted;
    let Some(mut sample_tokens) = count(&plain(seed, words)).await? else {
        return Ok((TokensPerWord::default(), PromptBasis::Estimated));
    };
    for _ in 0..CORRECTIONS_MAX {
        let nearer = (words as f64 * wanted as f64 / sample_tokens.max(1) as f64).round().max(1.0) as u64;
        if nearer == words {
            break;
        }
        let Some(tokens) = count(&plain(seed, nearer)).await? else { break };
        (words, sample_tokens) = (nearer, tokens);
    }
    Ok((TokensPerWord::counted(sample_tokens, words), PromptBasis::Counted { sample_tokens }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sample_is_corrected_until_it_has_the_tokens_that_were_wanted() {
        let three_a_word = async |text: &str| Ok(Some(3 * text.split(' ').count() as u64));
        let (ratio, basis) = calibrate(1, 300, three_a_word).await.expect("counted");
        assert_eq!((ratio, basis), (TokensPerWord(3.0), PromptBasis::Counted { sample_tokens: 300 }));
        assert_eq!((ratio.words(300), ratio.words(4)), (100, 1));
    }

    #[tokio::test]
    async fn a_tokenizer_that_adds_a_token_at_the_start_is_met_at_the_wanted_length() {
        let one_more = async |text: &str| Ok(Some(1 + text.split(' ').count() as u64));
        let (ratio, basis) = calibrate(1, 100, one_more).await.expect("counted");
        assert_eq!(basis, PromptBasis::Counted { sample_tokens: 100 });
        assert_eq!(ratio.words(100), 99);
    }

    #[test]
    fn it_can_run_on_any_thread() {
        fn is_send(_: impl Send) {}
        is_send(calibrate(1, 300, async |_: &str| Ok(None)));
    }

    #[tokio::test]
    async fn without_a_tokenizer_a_word_is_a_token_and_the_basis_says_estimated() {
        let (ratio, basis) = calibrate(1, 300, async |_: &str| Ok(None)).await.expect("no error");
        assert_eq!((ratio.words(300), basis), (300, PromptBasis::Estimated));
    }
}
