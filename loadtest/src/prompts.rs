//! What is asked: synthetic prompts of about so many tokens, or the lines of a file. Pure; request `index` has the
//! same prompt in every run with the same seed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::words::WORDS;

/// Where prompts come from.
#[derive(Debug)]
pub enum Prompts {
    /// Made up.
    Synthetic(Synthetic),
    /// Taken in turn, from the first again after the last.
    File(Vec<FilePrompt>),
}

/// How the length of prompts is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PromptBasis {
    /// The target's `/tokenize` counted a sample prompt; the chat template's tokens come on top.
    Counted {
        /// Tokens of the sample.
        sample_tokens: u64,
    },
    /// The target offers no `/tokenize`: one token a word is assumed.
    Estimated,
    /// Prompts are the user's own.
    File {
        /// How many there are.
        prompts: usize,
    },
}

/// The messages of one request, ready to be serialized, and the cap that came with them.
#[derive(Debug)]
pub struct PromptRequest<'a> {
    /// OpenAI's `messages`.
    pub messages: Messages<'a>,
    /// A cap of this prompt's own.
    pub max_tokens: Option<u32>,
}

/// OpenAI's `messages`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Messages<'a> {
    /// One turn of the user.
    User([UserMessage; 1]),
    /// As they stand in the file.
    Raw(&'a RawValue),
}

/// One turn of the user.
#[derive(Debug, Serialize)]
#[serde(tag = "role", rename = "user")]
pub struct UserMessage {
    /// The text.
    pub content: String,
}

impl UserMessage {
    const fn new(content: String) -> Self {
        Self { content }
    }
}

impl Prompts {
    /// Warm-up requests take their prompts from here on, so that they warm no cache for measured ones. A file's
    /// prompts, which are given, are the same in both.
    pub const WARMUP_INDEX_START: u64 = 1 << 63;

    /// What request `index` asks.
    pub fn request(&self, index: u64) -> PromptRequest<'_> {
        match self {
            Self::Synthetic(synthetic) => PromptRequest {
                messages: Messages::User([UserMessage::new(synthetic.text(index))]),
                max_tokens: None,
            },
            Self::File(prompts) => {
                let prompt = &prompts[((index % Self::WARMUP_INDEX_START) % prompts.len() as u64) as usize];
                PromptRequest { messages: Messages::Raw(&prompt.messages), max_tokens: prompt.max_tokens }
            }
        }
    }
}

/// Made-up prompts: words that all of them share, then words that start no other prompt, then more words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    seed: u64,
    shared_words: u64,
    own_words: u64,
}

impl Synthetic {
    /// Eight words of 256 spell the 64 bits by which prompts differ.
    pub const UNIQUE_WORDS: u64 = 8;

    /// Prompts of `words` words of which the first `shared_words` are common to all. At least
    /// [`Self::UNIQUE_WORDS`] are each prompt's own.
    pub const fn new(seed: u64, words: u64, shared_words: u64) -> Self {
        let own_words = words.saturating_sub(shared_words);
        let own_words = if own_words < Self::UNIQUE_WORDS { Self::UNIQUE_WORDS } else { own_words };
        Self { seed, shared_words, own_words }
    }

    /// The same prompts made longer or shorter: `tokens` were counted where `wanted` were meant.
    pub fn scaled(&self, wanted: u64, tokens: u64) -> Self {
        let scale = |words: u64| (words as f64 * wanted as f64 / tokens.max(1) as f64).round() as u64;
        let shared_words = scale(self.shared_words);
        Self::new(self.seed, scale(self.shared_words + self.own_words), shared_words)
    }

    /// The prompt of request `index`; no two of them start alike after the shared words.
    pub fn text(&self, index: u64) -> String {
        let mut text = String::with_capacity(6 * (self.shared_words + self.own_words) as usize);
        let mut shared = WordStream::new(self.seed);
        for _ in 0..self.shared_words {
            shared.push_word(&mut text);
        }
        // Both steps are one-to-one on 64 bits, so different indexes spell different words.
        let id = mix(self.seed.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA)));
        for byte in id.to_le_bytes() {
            push(&mut text, byte);
        }
        let mut own = WordStream::new(id);
        for _ in Self::UNIQUE_WORDS..self.own_words {
            own.push_word(&mut text);
        }
        text
    }
}

/// SplitMix64's increment and finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct WordStream(u64);

impl WordStream {
    const fn new(seed: u64) -> Self {
        Self(!seed)
    }

    fn push_word(&mut self, text: &mut String) {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        push(text, mix(self.0).to_le_bytes()[0]);
    }
}

fn push(text: &mut String, word: u8) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(WORDS[usize::from(word)]);
}

/// One line of a file of prompts.
#[derive(Debug)]
pub struct FilePrompt {
    messages: Box<RawValue>,
    max_tokens: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    prompt: Option<String>,
    messages: Option<Box<RawValue>>,
    max_tokens: Option<u32>,
}

/// The largest file of prompts.
pub const PROMPT_FILE_BYTES_MAX: u64 = 256 << 20;

/// Parses a file of prompts: each line `{"prompt": "…"}` or `{"messages": […]}`, with `max_tokens` if the prompt has
/// a cap of its own. Empty lines are skipped; `path` is for errors.
pub fn parse_prompts(path: &Path, text: &str) -> Result<Vec<FilePrompt>, Error> {
    let mut prompts = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let prompt = parse_line(line).map_err(|reason| Error::PromptLine {
            path: path.to_owned(),
            line: index + 1,
            reason,
        })?;
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        let reason = "the file holds no prompt; at least one line was expected".to_owned();
        return Err(Error::PromptLine { path: path.to_owned(), line: 1, reason });
    }
    Ok(prompts)
}

fn parse_line(line: &str) -> Result<FilePrompt, String> {
    let line: FileLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let messages = match (line.prompt, line.messages) {
        (Some(prompt), None) => {
            serde_json::value::to_raw_value(&[UserMessage::new(prompt)]).map_err(|error| error.to_string())?
        }
        (None, Some(messages)) if messages.get().starts_with('[') => messages,
        (None, Some(_)) => return Err("`messages` must be a list".into()),
        _ => return Err("either `prompt` or `messages` was expected".into()),
    };
    Ok(FilePrompt { messages, max_tokens: line.max_tokens })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn start(text: &str, skip: usize) -> Vec<&str> {
        text.split(' ').skip(skip).take(8).collect()
    }

    #[test]
    fn the_vocabulary_has_no_word_twice() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), 256);
        assert!(WORDS.iter().all(|word| !word.is_empty() && !word.contains(' ')));
    }

    proptest! {
        #[test]
        fn no_two_prompts_start_alike(seed: u64, one: u64, other: u64) {
            prop_assume!(one != other);
            let synthetic = Synthetic::new(seed, 20, 0);
            let (one, other) = (synthetic.text(one), synthetic.text(other));
            prop_assert_ne!(start(&one, 0), start(&other, 0));
        }

        #[test]
        fn prompts_share_exactly_the_words_they_are_told_to(seed: u64, index: u64, shared in 1_u64..30) {
            let synthetic = Synthetic::new(seed, 40, shared);
            let (one, other) = (synthetic.text(index), synthetic.text(index.wrapping_add(1)));
            let shared = shared as usize;
            let prefix = |text: &str| text.split(' ').take(shared).map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(prefix(&one), prefix(&other));
            prop_assert_ne!(start(&one, shared), start(&other, shared));
            prop_assert_eq!(one.split(' ').count(), 40);
        }
    }

    #[test]
    fn a_prompt_depends_on_seed_and_index_alone() {
        let synthetic = Synthetic::new(7, 64, 16);
        assert_eq!(synthetic.text(3), Synthetic::new(7, 64, 16).text(3));
        assert_ne!(synthetic.text(3), Synthetic::new(8, 64, 16).text(3));
    }

    #[test]
    fn lengths_are_scaled_by_what_a_tokenizer_counted() {
        assert_eq!(Synthetic::new(1, 100, 40).scaled(100, 200), Synthetic::new(1, 50, 20));
        assert_eq!(Synthetic::new(1, 100, 40).scaled(100, 100), Synthetic::new(1, 100, 40));
    }

    #[test]
    fn a_files_prompts_are_taken_in_turn() {
        let text = "{\"prompt\": \"hi\"}\n\n{\"messages\": [{\"role\": \"system\", \"content\": \"x\"}], \"max_tokens\": 3}\n";
        let prompts = Prompts::File(parse_prompts(Path::new("p.jsonl"), text).expect("two prompts"));
        let json = |index| serde_json::to_value(prompts.request(index).messages).expect("json");
        assert_eq!(json(0), serde_json::json!([{"role": "user", "content": "hi"}]));
        assert_eq!(json(1), serde_json::json!([{"role": "system", "content": "x"}]));
        assert_eq!(json(2), json(0));
        assert_eq!(json(Prompts::WARMUP_INDEX_START), json(0));
        assert_eq!((prompts.request(0).max_tokens, prompts.request(1).max_tokens), (None, Some(3)));
    }

    #[test]
    fn a_bad_line_is_refused_by_its_number() {
        let refused =
            |text: &str| parse_prompts(Path::new("p.jsonl"), text).expect_err("refused").to_string();
        assert!(refused("{\"prompt\": \"hi\"}\n{\"prompt\": 3}").starts_with("p.jsonl: line 2: "));
        assert!(refused("{\"messages\": \"hi\"}").contains("must be a list"));
        assert!(refused("{}").contains("either `prompt` or `messages`"));
        assert!(refused("{\"promt\": \"hi\"}").contains("unknown field `promt`"));
        assert!(refused("\n").contains("no prompt"));
    }
}
