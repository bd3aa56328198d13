//! From engine events to OpenAI's JSON: one form an endpoint, whole or in chunks.

pub(crate) mod chat;
pub(crate) mod respond;
pub(crate) mod text;

use std::collections::BTreeMap;

use engine::tokenizer::Tokenizer;
use engine::{Ended, TokenEvent, TokenScore};
use protocol::{PromptLogprob, PromptLogprobs, PromptTokensDetails, Usage};

/// An endpoint's way to write answers.
pub(crate) trait Format: Send + Sync + 'static {
    /// The chunk that opens an answer.
    fn open(&self, index: u32) -> Option<String>;
    /// The chunk for some text, tokens and their scores. `offset` counts the characters of the answer's tokens so far.
    fn token(&self, index: u32, event: &TokenEvent, offset: &mut u32) -> Option<String>;
    /// The chunk that ends an answer.
    fn end(&self, index: u32, ended: &Ended) -> String;
    /// The chunk that carries token counts.
    fn usage(&self, usage: Usage) -> String;
    /// All answers in one body.
    fn whole(&self, answers: Vec<Collected>, usage: Usage) -> String;
}

/// One finished answer.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) index: u32,
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) scores: Vec<TokenScore>,
    pub(crate) prompt_scores: Option<Vec<TokenScore>>,
    pub(crate) ended: Option<Ended>,
}

/// What every chunk of one response repeats.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) return_token_ids: bool,
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) tokenizer: std::sync::Arc<Tokenizer>,
}

impl Envelope {
    /// A token as text, with U+FFFD for parts of characters.
    fn token_text(&self, token: u32) -> String {
        self.tokenizer.token_text(token).map(std::borrow::Cow::into_owned).unwrap_or_default()
    }

    /// vLLM's form of the prompt's log-likelihoods: a map a position, the first null.
    fn prompt_logprobs(&self, scores: &[TokenScore]) -> PromptLogprobs {
        let entry = |token: u32, logprob: f32, rank: u32| {
            (token, PromptLogprob { logprob, rank, decoded_token: self.token_text(token) })
        };
        let maps = scores.iter().map(|score| {
            let top = score.top.iter().zip(1..).map(|((token, logprob), rank)| entry(*token, *logprob, rank));
            let map: BTreeMap<u32, PromptLogprob> =
                top.chain([entry(score.token, score.logprob, score.rank)]).collect();
            Some(map)
        });
        std::iter::once(None).chain(maps).collect()
    }
}

/// Adds up what each answer used; a prompt counts once however many answers it has.
pub(crate) fn usage_of<'a>(ended: impl IntoIterator<Item = &'a Ended>, n: u32) -> Usage {
    let (mut prompt, mut cached, mut completion) = (0, 0, 0);
    for (index, ended) in ended.into_iter().enumerate() {
        if (index as u32).is_multiple_of(n) {
            prompt += ended.prompt_tokens as u32;
            cached += ended.cached_tokens as u32;
        }
        completion += ended.completion_tokens as u32;
    }
    Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt + completion,
        prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: cached }),
    }
}

/// JSON of our own types cannot fail to be written.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
