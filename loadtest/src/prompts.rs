//! What is asked. Pure: request `index` asks the same in every run with the same scenario, seed and target.
//!
//! A prompt is made of common words, and a given tokenizer, or a target that offers `/tokenize`, says how many tokens such
//! words have; see
//! [`Material::calibrate`]. Prompts are rendered as JSON in one pass, and what they share is rendered once.
//!
//! Warm-up requests, from [`crate::asking::WARMUP_INDEX_START`] on, ask what no measured one asks. The prefixes that prompts share, and
//! the prompts of a file, are the same in both.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::asking::{Asked, Asking};
use crate::error::Error;
use crate::scenario::{Answers, Arrivals, Length, Prompts as Wanted, Scenario};
use crate::trace::{self, TraceRequest};

mod calibrate;
mod conversation;
mod file;
mod share_gpt;
mod synthetic;
#[cfg(test)]
mod tests;
mod text;
mod zipf;

pub use calibrate::TokensPerWord;
pub use file::PromptFile;
pub(crate) use text::ID_WORDS;
pub(crate) use zipf::Ranks;

use crate::random::{Purpose, draw, seed_for, unit};
use conversation::Conversations;

/// How the length of prompts is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PromptBasis {
    /// The target's `/tokenize` counted a sample prompt; the chat template's tokens come on top.
    Counted {
        /// Tokens of the sample.
        sample_tokens: u64,
    },
    /// The scenario's own tokenizer counted it, whatever the target would have said.
    Tokenizer {
        /// Tokens of the sample.
        sample_tokens: u64,
    },
    /// The target offers no `/tokenize`, and no tokenizer was given: one token a word is assumed.
    Estimated,
    /// Prompts are the user's own.
    File {
        /// How many there are.
        prompts: usize,
    },
}

impl PromptBasis {
    /// The same, counted by a tokenizer that was given instead of by the target.
    pub(crate) const fn by_given_tokenizer(self) -> Self {
        match self {
            Self::Counted { sample_tokens } => Self::Tokenizer { sample_tokens },
            other => other,
        }
    }
}

/// What prompts are made from beside the scenario.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// How long a word is in tokens.
    pub tokens_per_word: TokensPerWord,
    /// The file that the scenario names.
    pub file: Option<PromptFile>,
    /// The requests of the trace that the scenario names. Their lengths and blocks win over the scenario's lengths,
    /// but for conversations, files and prompts that come again, which take only its times.
    pub trace: Arc<[TraceRequest]>,
}

impl Material {
    /// Reads the files that the scenario names; this blocks.
    ///
    /// # Errors
    /// When one cannot be read, or has a line that is wrong.
    pub fn read(scenario: &Scenario) -> Result<Self, Error> {
        let file = match &scenario.prompts {
            Wanted::File { path } => Some(PromptFile::read(path)?),
            _ => None,
        };
        let trace = match &scenario.arrivals {
            Arrivals::Trace { path, .. } => trace::read(path)?.into(),
            _ => Arc::default(),
        };
        Ok(Self { tokens_per_word: TokensPerWord::default(), file, trace })
    }

    /// Learns how long words are in tokens, from prompts of the scenario's median length. `count` counts a text's tokens,
    /// or says `None` where it cannot.
    ///
    /// # Errors
    /// When `count` fails.
    pub async fn calibrate(
        &mut self,
        scenario: &Scenario,
        count: impl AsyncFn(&str) -> Result<Option<u64>, Error>,
    ) -> Result<PromptBasis, Error> {
        let tokens = match &scenario.prompts {
            Wanted::Synthetic { tokens, .. } | Wanted::Conversation { tokens, .. } => tokens.median(),
            Wanted::File { .. } => {
                return Ok(PromptBasis::File { prompts: self.file.as_ref().map_or(0, PromptFile::len) });
            }
        };
        let (tokens_per_word, basis) = calibrate::calibrate(scenario.seed, tokens as u64, count).await?;
        self.tokens_per_word = tokens_per_word;
        Ok(basis)
    }
}

/// Makes the requests of a scenario.
#[derive(Debug)]
pub struct Asker {
    source: Source,
    streamed: f64,
    stream_seed: u64,
}

#[derive(Debug)]
enum Source {
    Synthetic(synthetic::Synthetic),
    Conversations(Conversations),
    File { file: PromptFile, answers: AnswerLengths },
}

impl Asker {
    /// One for a scenario that was validated.
    ///
    /// # Errors
    /// When the scenario names a file of prompts and `material` has none.
    pub fn new(scenario: &Scenario, material: Material) -> Result<Self, Error> {
        let answers = AnswerLengths::new(scenario.seed, &scenario.answers);
        let source = match &scenario.prompts {
            Wanted::Synthetic { .. } => {
                Source::Synthetic(synthetic::Synthetic::new(scenario, material, answers)?)
            }
            Wanted::Conversation { tokens, turns, system_tokens } => {
                let words = material.tokens_per_word;
                let system = conversation::System { tokens: *system_tokens };
                Source::Conversations(Conversations::new(
                    scenario.seed,
                    words,
                    *tokens,
                    *turns,
                    system,
                    answers,
                ))
            }
            Wanted::File { path } => {
                let file = material.file.ok_or_else(|| {
                    Error::Broken(format!("the prompts of {} were not read", path.display()))
                })?;
                Source::File { file, answers }
            }
        };
        let stream_seed = seed_for(scenario.seed, Purpose::Stream);
        Ok(Self { source, streamed: scenario.answers.streamed, stream_seed })
    }

    fn streams(&self, index: u64, turn: u32) -> bool {
        unit(draw(draw(self.stream_seed, u64::from(turn)), index)) < self.streamed
    }
}

impl Asking for Asker {
    fn request(&self, index: u64, turn: u32, history: &[String]) -> Asked {
        let text = match &self.source {
            Source::Synthetic(synthetic) => synthetic.ask(index),
            Source::Conversations(conversations) => conversations.ask(index, turn, history),
            Source::File { file, answers } => file.ask(index, turn, history, answers),
        };
        Asked {
            messages_json: text.messages_json,
            max_tokens: text.max_tokens,
            stream: self.streams(index, turn),
            prompt_tokens: text.prompt_tokens,
            more_turns: text.more_turns,
        }
    }
}

/// A request without the way in which its answer is to come.
#[derive(Clone, Debug)]
struct Question {
    messages_json: Bytes,
    max_tokens: u32,
    prompt_tokens: u32,
    more_turns: bool,
}

/// The most tokens of each answer.
#[derive(Clone, Copy, Debug)]
struct AnswerLengths {
    tokens: Length,
    seed: u64,
}

impl AnswerLengths {
    const fn new(seed: u64, answers: &Answers) -> Self {
        Self { tokens: answers.max_tokens, seed: seed_for(seed, Purpose::MaxTokens) }
    }

    fn of(&self, id: u64, turn: u32) -> u32 {
        self.tokens.sample(draw(self.seed, u64::from(turn)), id).max(1)
    }
}
