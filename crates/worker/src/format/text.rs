//! `text_completion`, whole and in chunks.

use engine::{Ended, TokenEvent, TokenScore};
use protocol::{Completion, CompletionChoice, CompletionLogprobs, Usage};

use super::{Collected, Envelope, Format, json};

/// Text answers.
pub(crate) struct TextFormat {
    pub(crate) envelope: Envelope,
    pub(crate) logprobs: bool,
    pub(crate) n: u32,
    /// The prompts' texts, to be put before the answers.
    pub(crate) echo: Option<Vec<String>>,
}

impl TextFormat {
    fn completion(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> String {
        let Envelope { id, created, model, version, .. } = &self.envelope;
        json(&Completion {
            id: id.clone(),
            object: "text_completion".into(),
            created: *created,
            model: model.clone(),
            system_fingerprint: Some(version.clone()),
            choices,
            usage,
        })
    }

    fn choice(index: u32, text: String) -> CompletionChoice {
        CompletionChoice {
            index,
            text,
            logprobs: None,
            finish_reason: None,
            prompt_logprobs: None,
            token_ids: None,
            prompt_token_ids: None,
        }
    }

    fn echoed(&self, index: u32) -> Option<&str> {
        self.echo.as_ref()?.get((index / self.n) as usize).map(String::as_str)
    }

    /// Offsets count characters from the answer's start. The token itself is among its alternatives even if it is not
    /// one of the likeliest, as OpenAI has it.
    fn logprobs<'a>(
        &self,
        scores: impl IntoIterator<Item = &'a TokenScore>,
        offset: &mut u32,
    ) -> Option<CompletionLogprobs> {
        if !self.logprobs {
            return None;
        }
        let mut columns = CompletionLogprobs::default();
        for score in scores {
            let text = self.envelope.token_text(score.token);
            columns.text_offset.push(*offset);
            *offset += text.chars().count() as u32;
            columns.token_logprobs.push(Some(score.logprob));
            let top = score.top.iter().map(|(token, logprob)| (self.envelope.token_text(*token), *logprob));
            columns.top_logprobs.push(Some(top.chain([(text.clone(), score.logprob)]).collect()));
            columns.tokens.push(text);
        }
        Some(columns)
    }
}

impl Format for TextFormat {
    fn open(&self, index: u32) -> Option<String> {
        let text = self.echoed(index)?.to_owned();
        Some(self.completion(vec![Self::choice(index, text)], None))
    }

    fn token(&self, index: u32, event: &TokenEvent, offset: &mut u32) -> Option<String> {
        let token_ids = self.envelope.return_token_ids.then(|| vec![event.token]);
        if event.text.is_empty() && token_ids.is_none() && !self.logprobs {
            return None;
        }
        let logprobs = self.logprobs(&event.score, offset);
        let choice = CompletionChoice { logprobs, token_ids, ..Self::choice(index, event.text.clone()) };
        Some(self.completion(vec![choice], None))
    }

    fn end(&self, index: u32, ended: &Ended) -> String {
        let choice =
            CompletionChoice { finish_reason: Some(ended.reason), ..Self::choice(index, ended.text.clone()) };
        self.completion(vec![choice], None)
    }

    fn usage(&self, usage: Usage) -> String {
        self.completion(Vec::new(), Some(usage))
    }

    fn whole(&self, answers: Vec<Collected>, usage: Usage) -> String {
        let return_token_ids = self.envelope.return_token_ids;
        let choices = answers
            .into_iter()
            .map(|answer| CompletionChoice {
                index: answer.index,
                logprobs: self.logprobs(&answer.scores, &mut 0),
                finish_reason: answer.ended.map(|ended| ended.reason),
                prompt_logprobs: answer.prompt_scores.map(|scores| self.envelope.prompt_logprobs(&scores)),
                token_ids: return_token_ids.then_some(answer.tokens),
                prompt_token_ids: return_token_ids
                    .then(|| self.envelope.prompts.get((answer.index / self.n) as usize).cloned())
                    .flatten(),
                text: self.echoed(answer.index).unwrap_or_default().to_owned() + &answer.text,
            })
            .collect();
        self.completion(choices, Some(usage))
    }
}
