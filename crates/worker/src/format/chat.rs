//! `chat.completion` and `chat.completion.chunk`.

use engine::{Ended, TokenEvent, TokenScore};
use protocol::{
    AssistantMessage, ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatLogprobs, Delta,
    TokenLogprob, TopLogprob, Usage,
};

use super::{Collected, Envelope, Format, json};

/// Chat answers.
pub(crate) struct ChatFormat {
    pub(crate) envelope: Envelope,
    pub(crate) logprobs: bool,
}

impl ChatFormat {
    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> String {
        let Envelope { id, created, model, version, .. } = &self.envelope;
        json(&ChatChunk {
            id: id.clone(),
            object: "chat.completion.chunk".into(),
            created: *created,
            model: model.clone(),
            system_fingerprint: Some(version.clone()),
            choices,
            usage,
        })
    }

    fn scored(&self, score: &TokenScore) -> TokenLogprob {
        let bytes = |token| self.envelope.tokenizer.token_bytes(token).map(<[u8]>::to_vec);
        TokenLogprob {
            token: self.envelope.token_text(score.token),
            logprob: score.logprob,
            bytes: bytes(score.token),
            top_logprobs: score
                .top
                .iter()
                .map(|(token, logprob)| TopLogprob {
                    token: self.envelope.token_text(*token),
                    logprob: *logprob,
                    bytes: bytes(*token),
                })
                .collect(),
        }
    }

    fn logprobs<'a>(&self, scores: impl IntoIterator<Item = &'a TokenScore>) -> Option<ChatLogprobs> {
        self.logprobs
            .then(|| ChatLogprobs { content: scores.into_iter().map(|score| self.scored(score)).collect() })
    }
}

impl Format for ChatFormat {
    fn open(&self, index: u32) -> Option<String> {
        let delta = Delta { role: Some("assistant".into()), content: Some(String::new()) };
        let choice = ChatChunkChoice { index, delta, logprobs: None, finish_reason: None, token_ids: None };
        Some(self.chunk(vec![choice], None))
    }

    fn token(&self, index: u32, event: &TokenEvent, _offset: &mut u32) -> Option<String> {
        let token_ids = self.envelope.return_token_ids.then(|| vec![event.token]);
        if event.text.is_empty() && token_ids.is_none() && !self.logprobs {
            return None;
        }
        let delta = Delta { role: None, content: Some(event.text.clone()) };
        let logprobs = self.logprobs(&event.score);
        Some(
            self.chunk(
                vec![ChatChunkChoice { index, delta, logprobs, finish_reason: None, token_ids }],
                None,
            ),
        )
    }

    fn end(&self, index: u32, ended: &Ended) -> String {
        let content = (!ended.text.is_empty()).then(|| ended.text.clone());
        let delta = Delta { role: None, content };
        let finish_reason = Some(ended.reason);
        self.chunk(
            vec![ChatChunkChoice { index, delta, logprobs: None, finish_reason, token_ids: None }],
            None,
        )
    }

    fn usage(&self, usage: Usage) -> String {
        self.chunk(Vec::new(), Some(usage))
    }

    fn whole(&self, answers: Vec<Collected>, usage: Usage) -> String {
        let Envelope { id, created, model, version, return_token_ids, prompts, .. } = &self.envelope;
        let prompt_logprobs = answers
            .first()
            .and_then(|answer| answer.prompt_scores.as_deref())
            .map(|scores| self.envelope.prompt_logprobs(scores));
        let choices = answers
            .into_iter()
            .map(|answer| ChatChoice {
                index: answer.index,
                logprobs: self.logprobs(&answer.scores),
                message: AssistantMessage {
                    role: "assistant".into(),
                    content: Some(answer.text),
                    refusal: None,
                },
                finish_reason: answer.ended.map(|ended| ended.reason),
                token_ids: return_token_ids.then_some(answer.tokens),
            })
            .collect();
        json(&ChatCompletion {
            id: id.clone(),
            object: "chat.completion".into(),
            created: *created,
            model: model.clone(),
            system_fingerprint: Some(version.clone()),
            choices,
            usage: Some(usage),
            prompt_logprobs,
            prompt_token_ids: return_token_ids.then(|| prompts.first().cloned()).flatten(),
        })
    }
}
