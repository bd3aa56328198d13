//! Requests and answers.

use serde_json::{Value, json};

/// A deterministic chat request.
pub(crate) fn ask(text: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": text }], "temperature": 0 })
}

/// The same, streamed.
pub(crate) fn streamed(request: Value) -> Value {
    with(request, "stream", true)
}

/// The same with one more member.
pub(crate) fn with(mut request: Value, name: &str, value: impl Into<Value>) -> Value {
    request[name] = value.into();
    request
}

/// A whole answer, spaced as no serializer would.
pub(crate) fn completion(text: &str) -> String {
    format!(
        r#"{{ "id":"chatcmpl-1",  "object":"chat.completion","created":1, "model":"m","extra":1.50,
 "choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"stop"}}],
 "usage":{{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}} }}"#
    )
}

/// The events of a streamed answer, but for the end mark: role, one a text, reason, token counts.
pub(crate) fn chunks(texts: &[&str]) -> Vec<String> {
    let chunk = |choices: Value| json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices });
    let choice = |delta: Value, reason: Value| {
        chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": reason }]))
    };
    let mut events = vec![choice(json!({ "role": "assistant", "content": "" }), Value::Null)];
    events.extend(texts.iter().map(|text| choice(json!({ "content": text }), Value::Null)));
    events.push(choice(json!({}), "stop".into()));
    let usage =
        json!({ "prompt_tokens": 3, "completion_tokens": texts.len(), "total_tokens": 3 + texts.len() });
    events.push(with(chunk(json!([])), "usage", usage));
    events.iter().map(Value::to_string).collect()
}

/// What a client reads from events.
pub(crate) fn texts(events: &[String]) -> String {
    let text = |event: &String| {
        let event: Value = serde_json::from_str(event).ok()?;
        event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    };
    events.iter().filter_map(text).collect()
}

/// An error as OpenAI has it.
pub(crate) fn error_json(message: &str) -> String {
    json!({ "error": { "message": message, "type": "invalid_request_error", "param": "n", "code": null } })
        .to_string()
}
