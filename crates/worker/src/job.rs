//! From a request's fields to engine requests, prompts times answers, and to the frame of what comes of them.

use std::sync::Arc;

use engine::sampling::SamplingParams;
use engine::{LoadedModel, Request};
use protocol::{ApiError, Generation};
use uuid::Uuid;

use crate::app::unix_s;
use crate::format::Envelope;
use crate::format::respond::Delivery;

/// Everything that the answers of one client request share.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request_id: String,
    pub(crate) prompts: Vec<Vec<u32>>,
    pub(crate) n: u32,
    pub(crate) generation: Generation,
    /// Alternatives per generated token, if log-likelihoods are wanted.
    pub(crate) logprobs: Option<u8>,
    pub(crate) salt: String,
    /// The most tokens of an answer where the request does not say.
    pub(crate) max_tokens_unset: usize,
}

/// The most entries of `prompt_logprobs` in one response, over all prompts, answers and alternatives; some 20 MiB.
const PROMPT_LOGPROBS_MAX: usize = 1 << 18;

impl Job {
    /// What its answers repeat, under an id of this kind, and how they are wanted.
    pub(crate) fn framed(self, kind: &str, model: &LoadedModel) -> (Envelope, Delivery) {
        let Self { generation, prompts, request_id, n, .. } = self;
        let envelope = Envelope {
            id: format!("{kind}-{request_id}"),
            created: unix_s(),
            model: model.name().to_owned(),
            version: model.version().to_owned(),
            return_token_ids: generation.return_token_ids.unwrap_or(false),
            prompts,
            tokenizer: Arc::clone(model.tokenizer()),
        };
        let (stream, include_usage) = (generation.stream.unwrap_or(false), generation.include_usage());
        (envelope, Delivery { stream, include_usage, n })
    }

    /// One engine request an answer: for each prompt, `n` of them. Blames `prompt_param` for prompts that do not fit.
    pub(crate) fn requests(
        &self,
        model: &LoadedModel,
        max_model_len: usize,
        prompt_param: &str,
    ) -> Result<Vec<Request>, ApiError> {
        let vocab_size = model.vocab_size();
        let seed = self.generation.seed.map_or_else(|| Uuid::new_v4().as_u64_pair().0, i64::cast_unsigned);
        let sampling = SamplingParams::from_request(&self.generation, seed, self.logprobs, vocab_size)?;
        let stop = self.generation.stop.clone().map(protocol::Stop::into_vec).unwrap_or_default();
        let mut requests = Vec::with_capacity(self.prompts.len() * self.n as usize);
        self.check_prompt_logprobs()?;
        for prompt in &self.prompts {
            check_ids(prompt, vocab_size, prompt_param)?;
            let max_tokens = self.max_tokens(prompt.len(), max_model_len, prompt_param)?;
            for answer in 0..self.n {
                requests.push(Request {
                    request_id: self.request_id.clone(),
                    prompt: prompt.clone(),
                    sampling: SamplingParams {
                        seed: seed.wrapping_add(u64::from(answer)),
                        ..sampling.clone()
                    },
                    max_tokens,
                    stop: stop.clone(),
                    ignore_eos: self.generation.ignore_eos.unwrap_or(false),
                    priority: self.generation.priority.unwrap_or(0),
                    salt: self.salt.clone(),
                    prompt_logprobs: self.generation.prompt_logprobs.map(|top| top as u8),
                });
            }
        }
        Ok(requests)
    }

    /// Each entry takes some 80 bytes of JSON, and every answer brings its own.
    fn check_prompt_logprobs(&self) -> Result<(), ApiError> {
        let Some(top) = self.generation.prompt_logprobs else { return Ok(()) };
        if self.generation.stream == Some(true) {
            let message = "`prompt_logprobs` are not sent in a stream; leave `stream` out";
            return Err(ApiError::invalid("prompt_logprobs", message));
        }
        let positions = self.prompts.iter().map(Vec::len).sum::<usize>() * self.n as usize;
        let entries = positions * (top as usize + 1);
        if entries <= PROMPT_LOGPROBS_MAX {
            return Ok(());
        }
        let message = format!(
            "{entries} entries of `prompt_logprobs` are asked for, but at most {PROMPT_LOGPROBS_MAX} are sent in one \
             answer; ask for fewer alternatives or send fewer prompts"
        );
        Err(ApiError::invalid("prompt_logprobs", message))
    }

    /// What was asked for, or all that the context has left.
    fn max_tokens(
        &self,
        prompt_len: usize,
        max_model_len: usize,
        prompt_param: &str,
    ) -> Result<usize, ApiError> {
        if prompt_len >= max_model_len {
            return Err(too_long(
                prompt_param,
                format!(
                    "the prompt has {prompt_len} tokens, but this model's context holds {max_model_len}, one of them \
                     for the answer; shorten the prompt"
                ),
            ));
        }
        let room = max_model_len - prompt_len;
        match self.generation.max_output_tokens() {
            None => Ok(room.min(self.max_tokens_unset)),
            Some(asked) if asked as usize <= room => Ok(asked as usize),
            Some(asked) => Err(too_long(
                if self.generation.max_completion_tokens.is_some() {
                    "max_completion_tokens"
                } else {
                    "max_tokens"
                },
                format!(
                    "the prompt has {prompt_len} tokens and {asked} more are asked for, but this model's context holds \
                     {max_model_len}; shorten the prompt or ask for at most {room}"
                ),
            )),
        }
    }
}

/// Refuses a text that is too long even if all of its tokens are of the longest kind, before the work of finding them.
pub(crate) fn check_bytes(text: &str, bytes_max: usize, param: &str) -> Result<(), ApiError> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    let message = format!(
        "the prompt has {} bytes, but this model's context holds {bytes_max} at the very most; shorten the prompt",
        text.len()
    );
    Err(too_long(param, message))
}

fn too_long(param: &str, message: String) -> ApiError {
    ApiError { detail: Some("context_length_exceeded"), ..ApiError::invalid(param, message) }
}

fn check_ids(prompt: &[u32], vocab_size: usize, param: &str) -> Result<(), ApiError> {
    if prompt.is_empty() {
        return Err(ApiError::invalid(param, "the prompt is empty; it must have at least one token"));
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => {
            Err(ApiError::invalid(param, format!("there is no token {id}; ids go up to {}", vocab_size - 1)))
        }
        None => Ok(()),
    }
}
