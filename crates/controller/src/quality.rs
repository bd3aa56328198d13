//! How likely each version finds the other's answer.

use serde_json::{Value, json};

use crate::probe::{Prober, with_length};

/// An answer of one version, and how to show it to another.
struct Answered {
    text: String,
    prompt_tokens: usize,
    tokens: usize,
}

/// How much less likely a version's answer to a prompt is than the other's, by the mean of both versions' views, in
/// nats a token. Blocks.
pub(crate) fn loss_nats(
    prober: &Prober,
    [stable, canary]: [&str; 2],
    body: &Value,
    tokens_max: u32,
) -> Result<f64, String> {
    let of_stable = answer(prober, stable, body, tokens_max)?;
    let of_canary = answer(prober, canary, body, tokens_max)?;
    if of_stable.text == of_canary.text {
        return Ok(0.0);
    }
    let view = |version: &str, own: &Answered, other: &Answered| {
        let scores = |text: &str| scores(prober, version, body, text, own.prompt_tokens);
        difference(&scores(&own.text)?, &scores(&other.text)?, own.tokens)
            .ok_or_else(|| format!("{version} scores no token of an answer"))
    };
    Ok((view(stable, &of_stable, &of_canary)? + view(canary, &of_canary, &of_stable)?) / 2.0)
}

/// The mean of the scores of a version's own answer less that of another's. What a template puts behind an answer is no
/// part of it: as many scores as there are behind its own, which has so many tokens. The other's are counted as this
/// version cuts them.
fn difference(own: &[Option<f64>], other: &[Option<f64>], own_tokens: usize) -> Option<f64> {
    let behind = own.len().checked_sub(own_tokens)?;
    let mean = |scores: &[Option<f64>]| {
        let values: Vec<f64> =
            scores[..scores.len().checked_sub(behind)?].iter().copied().flatten().collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    Some(mean(own)? - mean(other)?)
}

fn answer(prober: &Prober, version: &str, body: &Value, tokens_max: u32) -> Result<Answered, String> {
    let answer = prober.ask(version, &with_length(body, tokens_max))?;
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
    let count = |name: &str| answer["usage"][name].as_u64().unwrap_or(0) as usize;
    let (prompt_tokens, tokens) = (count("prompt_tokens"), count("completion_tokens"));
    if text.is_empty() || tokens == 0 || prompt_tokens == 0 {
        return Err(format!("{version} gives an empty answer"));
    }
    Ok(Answered { text: text.to_owned(), prompt_tokens, tokens })
}

/// The log-likelihood of each token behind the prompt, in nats, as a version sees it with this answer there.
fn scores(
    prober: &Prober,
    version: &str,
    body: &Value,
    text: &str,
    prompt_tokens: usize,
) -> Result<Vec<Option<f64>>, String> {
    let mut shown = with_length(body, 1);
    shown["prompt_logprobs"] = 0.into();
    if let Some(messages) = shown.get_mut("messages").and_then(Value::as_array_mut) {
        messages.push(json!({"role": "assistant", "content": text}));
    } else if let Some(prompt) = shown.get_mut("prompt") {
        *prompt = format!("{}{text}", prompt.as_str().unwrap_or_default()).into();
    }
    let scored = prober.ask(version, &shown)?;
    let of_choice = &scored["choices"][0]["prompt_logprobs"];
    let scores = scored["prompt_logprobs"].as_array().or(of_choice.as_array());
    let scores = scores.ok_or_else(|| format!("{version} gives no prompt_logprobs"))?;
    Ok(scores.iter().skip(prompt_tokens).map(logprob).collect())
}

/// Of the token itself: the only entry where no others were asked for.
fn logprob(entry: &Value) -> Option<f64> {
    entry.as_object()?.values().next()?["logprob"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_asked_for_the_likeliest_tokens_in_one_piece() {
        let body = json!({"model": "m", "prompt": "p", "stream": true, "stream_options": {}, "n": 3, "max_tokens": 9});
        let expected =
            json!({"model": "m", "prompt": "p", "stream": false, "temperature": 0, "max_tokens": 2});
        assert_eq!(with_length(&body, 2), expected);
    }

    #[test]
    fn answers_are_counted_as_the_version_that_scores_them_cuts_them() {
        let scores = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        // Two tokens of its own, then two of the template; of the other's answer it makes three.
        let (own, other) = (scores(&[-1.0, -3.0, -9.0, -9.0]), scores(&[-2.0, -4.0, -6.0, -9.0, -9.0]));
        assert_eq!(difference(&own, &other, 2), Some(2.0));
        assert_eq!(difference(&own, &own, 2), Some(0.0));
        assert_eq!(difference(&own, &other, 5), None, "fewer scores than tokens");
        assert_eq!(difference(&own, &scores(&[-9.0, -9.0]), 2), None, "nothing of the other's answer");
    }

    #[test]
    fn a_tokens_own_likelihood_is_the_only_one_of_its_entry() {
        assert_eq!(logprob(&json!({"17": {"logprob": -0.5, "rank": 1}})), Some(-0.5));
        assert_eq!(logprob(&Value::Null), None);
    }
}
