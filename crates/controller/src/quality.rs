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
        Ok::<_, String>(likelihood(prober, version, body, own)? - likelihood(prober, version, body, other)?)
    };
    Ok((view(stable, &of_stable, &of_canary)? + view(canary, &of_canary, &of_stable)?) / 2.0)
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

/// The mean log-likelihood of an answer's tokens, in nats, as a version sees it behind the prompt.
fn likelihood(prober: &Prober, version: &str, body: &Value, answered: &Answered) -> Result<f64, String> {
    let mut shown = with_length(body, 1);
    shown["prompt_logprobs"] = 0.into();
    if let Some(messages) = shown.get_mut("messages").and_then(Value::as_array_mut) {
        messages.push(json!({"role": "assistant", "content": answered.text}));
    } else if let Some(prompt) = shown.get_mut("prompt") {
        *prompt = format!("{}{}", prompt.as_str().unwrap_or_default(), answered.text).into();
    }
    let scored = prober.ask(version, &shown)?;
    let of_choice = &scored["choices"][0]["prompt_logprobs"];
    let scores = scored["prompt_logprobs"].as_array().or(of_choice.as_array());
    let scores = scores.ok_or_else(|| format!("{version} gives no prompt_logprobs"))?;
    // What a template puts behind the answer is no part of it.
    let of_answer = scores.iter().skip(answered.prompt_tokens).take(answered.tokens);
    let values: Vec<f64> = of_answer.filter_map(logprob).collect();
    if values.is_empty() {
        return Err(format!("{version} scores no token of the answer"));
    }
    Ok(values.iter().sum::<f64>() / values.len() as f64)
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
    fn a_tokens_own_likelihood_is_the_only_one_of_its_entry() {
        assert_eq!(logprob(&json!({"17": {"logprob": -0.5, "rank": 1}})), Some(-0.5));
        assert_eq!(logprob(&Value::Null), None);
    }
}
