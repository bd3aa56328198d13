//! What a request asks of the sampler.

use protocol::{ApiError, Generation};

/// Below this a temperature means greedy: dividing by it would leave one token anyway, or overflow. vLLM draws the
/// same line.
const GREEDY_BELOW: f32 = 1e-5;

/// How to choose the next token. Ranges are those that [`Generation::validate`] checks; a value outside them
/// is read as the nearest one that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; below 1e-5 the likeliest token is taken (greedy).
    pub temperature: f32,
    /// Keep the fewest likeliest tokens that reach this probability together; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens of at least this probability relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the output; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the output.
    pub frequency_penalty: f32,
    /// Subtracted from the logits of tokens that are in the output.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens, before everything else. Each token at most once.
    pub logit_bias: Vec<(u32, f32)>,
    /// Together with the position, all the randomness there is. Give several answers to one request seeds of
    /// their own; consecutive ones are as good as any.
    pub seed: u64,
    /// Report the log-likelihood of the chosen token, with this many alternatives.
    pub logprobs: Option<u8>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            logprobs: None,
        }
    }
}

impl SamplingParams {
    /// Reads what a request sets and leaves the rest at the default. `request` has passed
    /// [`Generation::validate`]; `seed_if_absent` is used where it sets no seed.
    ///
    /// # Errors
    /// Blames `logit_bias` where it names a token outside a vocabulary of `vocab_size`, or one token twice.
    pub fn from_request(
        request: &Generation,
        seed_if_absent: u64,
        logprobs: Option<u8>,
        vocab_size: usize,
    ) -> Result<Self, ApiError> {
        let default = Self::default();
        Ok(Self {
            temperature: request.temperature.unwrap_or(default.temperature),
            top_p: request.top_p.unwrap_or(default.top_p),
            // -1 is the other way to say "all"; more than a u32 can hold is all as well.
            top_k: request.top_k.map_or(default.top_k, |top_k| u32::try_from(top_k).unwrap_or(0)),
            min_p: request.min_p.unwrap_or(default.min_p),
            repetition_penalty: request.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: request.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: request.presence_penalty.unwrap_or(default.presence_penalty),
            logit_bias: logit_bias(request, vocab_size)?,
            seed: request.seed.map_or(seed_if_absent, i64::cast_unsigned),
            logprobs,
        })
    }

    /// Whether the likeliest token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_BELOW || self.temperature.is_nan() || self.top_k == 1
    }

    /// Whether the choice depends on earlier tokens; where not, nobody has to keep a
    /// [`TokenHistory`](super::TokenHistory) up to date.
    pub fn uses_history(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

fn logit_bias(request: &Generation, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let mut biases = Vec::new();
    for (key, bias) in request.logit_bias.iter().flatten() {
        match key.parse::<u32>() {
            Ok(token) if (token as usize) < vocab_size => biases.push((token, *bias)),
            _ => {
                let shown: String = key.chars().take(20).collect();
                let message = format!(
                    "`logit_bias` names token `{shown}`, but this model's tokens are 0 to {}",
                    vocab_size.saturating_sub(1)
                );
                return Err(ApiError::invalid("logit_bias", message));
            }
        }
    }
    biases.sort_unstable_by_key(|(token, _)| *token);
    // "1" and "01" are two keys but one token.
    if let Some(pair) = biases.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("`logit_bias` names token {} twice; give each token one bias", pair[0].0);
        return Err(ApiError::invalid("logit_bias", message));
    }
    Ok(biases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(biases: &[(&str, f32)]) -> Generation {
        let logit_bias = biases.iter().map(|(token, bias)| ((*token).to_owned(), *bias)).collect();
        Generation { logit_bias: Some(logit_bias), ..Generation::default() }
    }

    #[test]
    fn an_empty_request_samples_at_temperature_one_with_the_servers_seed() {
        let params = SamplingParams::from_request(&Generation::default(), 9, None, 10).expect("valid");
        assert_eq!(params, SamplingParams { seed: 9, ..SamplingParams::default() });
        assert!(!params.is_greedy() && !params.uses_history());
        assert_eq!((params.temperature, params.top_p, params.top_k, params.min_p), (1.0, 1.0, 0, 0.0));
    }

    #[test]
    fn every_field_of_a_request_arrives() {
        let request = Generation {
            temperature: Some(0.5),
            top_p: Some(0.25),
            top_k: Some(7),
            min_p: Some(0.125),
            repetition_penalty: Some(1.5),
            frequency_penalty: Some(-1.0),
            presence_penalty: Some(2.0),
            seed: Some(-1),
            ..request(&[("3", -100.0), ("12", 1.0)])
        };
        let expected = SamplingParams {
            temperature: 0.5,
            top_p: 0.25,
            top_k: 7,
            min_p: 0.125,
            repetition_penalty: 1.5,
            frequency_penalty: -1.0,
            presence_penalty: 2.0,
            logit_bias: vec![(3, -100.0), (12, 1.0)],
            seed: u64::MAX,
            logprobs: Some(4),
        };
        assert_eq!(SamplingParams::from_request(&request, 9, Some(4), 13), Ok(expected));
    }

    #[test]
    fn a_top_k_of_minus_one_keeps_all() {
        let request = Generation { top_k: Some(-1), ..Generation::default() };
        assert_eq!(SamplingParams::from_request(&request, 0, None, 10).expect("valid").top_k, 0);
    }

    #[test]
    fn greedy_is_temperature_zero_or_a_top_k_of_one() {
        assert!(SamplingParams { temperature: 0.0, ..SamplingParams::default() }.is_greedy());
        assert!(SamplingParams { top_k: 1, ..SamplingParams::default() }.is_greedy());
        assert!(!SamplingParams { temperature: 0.01, ..SamplingParams::default() }.is_greedy());
    }

    #[test]
    fn a_bias_outside_the_vocabulary_or_given_twice_is_refused_with_its_param() {
        for biases in [&[("10", 1.0)][..], &[("-1", 1.0)], &[("x", 1.0)], &[("1", 1.0), ("01", 2.0)]] {
            let error = SamplingParams::from_request(&request(biases), 0, None, 10).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some("logit_bias"), "{biases:?}");
        }
        assert!(SamplingParams::from_request(&request(&[("9", 1.0)]), 0, None, 10).is_ok());
    }
}
