//! Request bodies, put together from parts that were rendered before the run.

use std::io::Write;

use bytes::Bytes;
use serde::Serialize;

use crate::asking::Asked;
use crate::scenario::Answers;

/// What all requests of a run have in common.
#[derive(Debug)]
pub(super) struct BodyTemplate {
    /// `{"model":"…","messages":`
    head: Vec<u8>,
    /// From `,"stream":` to the end, for whole answers and for streamed ones.
    tails: [Vec<u8>; 2],
}

#[derive(Serialize)]
struct Tail {
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<protocol::StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    // Extensions are sent only when wanted: a strict server refuses fields that it does not know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    return_token_ids: bool,
}

impl BodyTemplate {
    pub(super) fn new(model: &str, answers: &Answers) -> Self {
        let tail = |stream: bool| {
            let tail = Tail {
                stream,
                stream_options: stream.then_some(protocol::StreamOptions { include_usage: Some(true) }),
                temperature: answers.temperature,
                ignore_eos: answers.ignore_eos,
                return_token_ids: answers.return_token_ids,
            };
            let mut json = serde_json::to_vec(&tail).unwrap_or_default();
            // The object's opening brace becomes the comma after what stands before it.
            if let Some(first) = json.first_mut() {
                *first = b',';
            }
            json
        };
        let model = serde_json::Value::from(model);
        Self { head: format!("{{\"model\":{model},\"messages\":").into(), tails: [tail(false), tail(true)] }
    }

    pub(super) fn render(&self, asked: &Asked) -> Bytes {
        const MAX_TOKENS_BYTES: usize = ",\"max_tokens\":4294967295".len();
        let tail = &self.tails[usize::from(asked.stream)];
        let length = self.head.len() + asked.messages_json.len() + MAX_TOKENS_BYTES + tail.len();
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(&self.head);
        body.extend_from_slice(&asked.messages_json);
        // Writing to a vector cannot fail.
        let _ = write!(body, ",\"max_tokens\":{}", asked.max_tokens);
        body.extend_from_slice(tail);
        body.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_the_json_that_its_parts_say() {
        let answers = Answers { temperature: Some(0.5), ignore_eos: true, ..Answers::default() };
        let template = BodyTemplate::new("a \"model\"", &answers);
        let asked = |stream| Asked {
            messages_json: Bytes::from_static(b"[{\"role\":\"user\",\"content\":\"hi\"}]"),
            max_tokens: u32::MAX,
            stream,
            prompt_tokens: 1,
            more_turns: false,
        };
        let json_of = |stream| -> serde_json::Value {
            serde_json::from_slice(&template.render(&asked(stream))).expect("json")
        };
        let mut expected = json!({"model": "a \"model\"", "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": u32::MAX, "stream": false, "temperature": 0.5, "ignore_eos": true});
        assert_eq!(json_of(false), expected);
        expected["stream"] = json!(true);
        expected["stream_options"] = json!({"include_usage": true});
        assert_eq!(json_of(true), expected);
    }
}
