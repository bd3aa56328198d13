//! Made-up prompts: words that several of them share, words that start no other prompt, more words.

use std::sync::Arc;

use crate::asking::WARMUP_INDEX_START;
use crate::error::Error;
use crate::prompts::text::{ID_WORDS, WORD_BYTES, Writer};
use crate::prompts::zipf::Ranks;
use crate::prompts::{AnswerLengths, Material, Question, TokensPerWord};
use crate::random::{Purpose, below, draw, seed_for};
use crate::scenario::{Length, Prompts, Scenario};
use crate::trace::{BLOCK_TOKENS, TraceRequest};

const OPENING: &[u8] = b"[{\"role\":\"user\",\"content\":";
const CLOSING: &[u8] = b"\"}]";

/// Makes such prompts.
#[derive(Debug)]
pub(super) struct Synthetic {
    seed: u64,
    words: TokensPerWord,
    tokens: Length,
    answers: AnswerLengths,
    prefixes: Prefixes,
    ranks: Option<Ranks>,
    trace: Arc<[TraceRequest]>,
}

/// What prompts start with, ready for the words that follow.
#[derive(Debug)]
struct Prefixes {
    tokens: u32,
    words: u64,
    rendered: Vec<Box<[u8]>>,
}

impl Synthetic {
    /// The longest prompt, in tokens.
    pub(super) const TOKENS_MAX: u32 = 1_000_000;

    pub(super) fn new(
        scenario: &Scenario,
        material: Material,
        answers: AnswerLengths,
    ) -> Result<Self, Error> {
        let Prompts::Synthetic { tokens, shared_prefix_tokens, shared_prefixes, repeats } = scenario.prompts
        else {
            return Err(Error::Broken("synthetic prompts were made from a scenario of others".into()));
        };
        let words = material.tokens_per_word;
        Ok(Self {
            seed: scenario.seed,
            words,
            tokens,
            answers,
            prefixes: Prefixes::new(scenario.seed, words, shared_prefix_tokens, shared_prefixes),
            ranks: repeats.map(Ranks::new).transpose()?,
            // A prompt that comes again must be the same prompt, so its lengths cannot be those of a moment.
            trace: if repeats.is_some() { Arc::default() } else { material.trace },
        })
    }

    pub(super) fn ask(&self, index: u64) -> Question {
        let id = self.id(index);
        let traced = self.traced(index);
        let max_tokens = traced.and_then(|request| request.max_tokens);
        let max_tokens = max_tokens.unwrap_or_else(|| self.answers.of(id, 0)).max(1);
        let tokens = traced.and_then(|request| request.prompt_tokens);
        let tokens =
            tokens.unwrap_or_else(|| self.tokens.sample(seed_for(self.seed, Purpose::PromptTokens), id));
        let (messages_json, prompt_tokens) = match traced {
            Some(request) if !request.blocks.is_empty() => self.in_blocks(id, tokens, &request.blocks),
            _ => self.in_words(id, tokens),
        };
        Question { messages_json: messages_json.into(), max_tokens, prompt_tokens, more_turns: false }
    }

    /// Requests with the same one ask the same.
    fn id(&self, index: u64) -> u64 {
        match &self.ranks {
            Some(ranks) => {
                let rank = ranks.rank(draw(seed_for(self.seed, Purpose::Rank), index));
                rank | (index & WARMUP_INDEX_START)
            }
            None => index,
        }
    }

    fn traced(&self, index: u64) -> Option<&TraceRequest> {
        let len = self.trace.len() as u64;
        (len > 0).then(|| &self.trace[((index % WARMUP_INDEX_START) % len) as usize])
    }

    fn in_words(&self, id: u64, tokens: u32) -> (Vec<u8>, u32) {
        let tokens = tokens.clamp(self.prefixes.tokens.saturating_add(ID_WORDS as u32), Self::TOKENS_MAX);
        let own = self.words.words(tokens).saturating_sub(self.prefixes.words).max(ID_WORDS);
        let prefix = self.prefixes.of(self.seed, id);
        let mut out = Vec::with_capacity(prefix.len() + (own as usize + 2) * WORD_BYTES + CLOSING.len());
        out.extend_from_slice(prefix);
        let start = out.len();
        Writer::new(&mut out).own(seed_for(self.seed, Purpose::Words), id, own);
        if self.prefixes.words == 0 {
            // The quote that opens the text takes the place of the first word's space.
            out[start] = b'"';
        }
        out.extend_from_slice(CLOSING);
        (out, tokens)
    }

    /// Equal blocks are equal text. What goes beyond the blocks is the prompt's own.
    fn in_blocks(&self, id: u64, tokens: u32, blocks: &[u64]) -> (Vec<u8>, u32) {
        let tokens = tokens.clamp(1, Self::TOKENS_MAX);
        let mut left = self.words.words(tokens).max(1);
        let block_words = self.words.words(BLOCK_TOKENS).max(1);
        let mut out = Vec::with_capacity(OPENING.len() + (left as usize + 2) * WORD_BYTES);
        out.extend_from_slice(OPENING);
        let start = out.len();
        let warmup = id & WARMUP_INDEX_START;
        let seed = draw(seed_for(self.seed, Purpose::Block), warmup);
        let mut writer = Writer::new(&mut out);
        for block in blocks {
            let words = left.min(block_words);
            writer.own(seed, *block, words);
            left -= words;
        }
        writer.own(seed_for(self.seed, Purpose::Words), id, left);
        out[start] = b'"';
        out.extend_from_slice(CLOSING);
        (out, tokens)
    }
}

impl Prefixes {
    fn new(seed: u64, words: TokensPerWord, tokens: u32, prefixes: u32) -> Self {
        let words = words.words(tokens);
        if words == 0 {
            return Self { tokens, words, rendered: vec![OPENING.into()] };
        }
        let rendered = (0..u64::from(prefixes.max(1))).map(|prefix| {
            let mut out = OPENING.to_vec();
            Writer::new(&mut out).own(seed_for(seed, Purpose::Prefix), prefix, words);
            out[OPENING.len()] = b'"';
            out.into_boxed_slice()
        });
        Self { tokens, words, rendered: rendered.collect() }
    }

    fn of(&self, seed: u64, id: u64) -> &[u8] {
        let choice = draw(seed_for(seed, Purpose::PrefixChoice), id);
        &self.rendered[below(choice, self.rendered.len() as u64) as usize]
    }
}
