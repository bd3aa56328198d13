//! Whatever a worker is sent, it refuses it with a message or makes engine parameters of it that are in range.

#![no_main]

use engine::sampling::SamplingParams;
use libfuzzer_sys::fuzz_target;
use protocol::{
    ApiError, ChatRequest, CompletionRequest, DetokenizeRequest, Generation, Prompt, TokenizeRequest,
    chat_digests, parse_json, prompt_digests,
};
use serde_json::Value;

const VOCAB_SIZE: usize = 100;

fuzz_target!(|body: &[u8]| {
    let _ = told(parse_json::<TokenizeRequest>(body));
    let _ = told(parse_json::<DetokenizeRequest>(body));
    let chat = told(parse_json::<ChatRequest>(body).and_then(|chat| chat.validate().map(|()| chat)));
    let completion =
        told(parse_json::<CompletionRequest>(body).and_then(|request| request.validate().map(|()| request)));
    if let Some(chat) = chat {
        assert!(!chat.messages.is_empty());
        chat_digests("salt", &chat.messages);
    }
    if let Some(completion) = completion {
        assert!((1..=Prompt::PROMPTS_MAX).contains(&completion.prompt.len()));
        prompt_digests("salt", &completion.prompt);
    }
    let generation = told(
        parse_json::<Generation>(body).and_then(|generation| generation.validate().map(|()| generation)),
    );
    let Some(generation) = generation else { return };
    assert_ne!(generation.max_output_tokens(), Some(0));
    if let Some(params) = told(SamplingParams::from_request(&generation, 1, None, VOCAB_SIZE)) {
        check(&params);
    }
    let stops = generation.stop.map(protocol::Stop::into_vec).unwrap_or_default();
    assert!(stops.len() <= Generation::STOP_MAX && stops.iter().all(|stop| !stop.is_empty()));
});

/// An error must be one that a client can read.
fn told<T>(parsed: Result<T, ApiError>) -> Option<T> {
    parsed
        .inspect_err(|error| {
            let json: Value = serde_json::from_str(&error.to_json()).expect("JSON");
            assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
            assert_eq!(error.code.http_status(), 400);
        })
        .ok()
}

fn check(params: &SamplingParams) {
    assert!((0.0..=2.0).contains(&params.temperature), "{params:?}");
    assert!(params.top_p > 0.0 && params.top_p <= 1.0, "{params:?}");
    assert!((0.0..=1.0).contains(&params.min_p), "{params:?}");
    assert!(params.repetition_penalty > 0.0 && params.repetition_penalty.is_finite(), "{params:?}");
    assert!(params.frequency_penalty.abs() <= 2.0 && params.presence_penalty.abs() <= 2.0, "{params:?}");
    assert!(params.logit_bias.is_sorted_by(|left, right| left.0 < right.0), "{params:?}");
    for (token, bias) in &params.logit_bias {
        assert!((*token as usize) < VOCAB_SIZE && bias.abs() <= 100.0, "{params:?}");
    }
}
