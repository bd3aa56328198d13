//! Whatever a worker answers, a client gets JSON or a well-framed stream of it, which ends with its mark or with an
//! error; or it hears that the worker failed. Asked again, it gets what was kept, in either form.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use fuzz::front::{Front, Got};
use fuzz::json::members;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|answer: &[u8]| {
    static QUESTIONS: AtomicU64 = AtomicU64::new(0);
    let front = Front::get();
    let answer = answer.to_vec();
    front.worker_says(answer.clone(), answer);
    for path in ["/v1/chat/completions", "/v1/completions"] {
        for first in [false, true] {
            let seed = QUESTIONS.fetch_add(1, Ordering::Relaxed);
            for stream in [first, !first] {
                let request = json!({ "model": "tiny", "seed": seed, "stream": stream });
                check(&front.post(path, "no-cache", request.to_string().as_bytes()));
            }
        }
    }
});

fn check(got: &Got) {
    if got.content_type.starts_with("text/event-stream") {
        assert_eq!(got.status, 200, "{got:?}");
        check_stream(std::str::from_utf8(&got.body).expect("UTF-8"));
        return;
    }
    assert!(matches!(got.status, 200 | 502), "{got:?}");
    std::str::from_utf8(&got.body).expect("UTF-8");
    let body = members(&got.body);
    assert!(got.status == 200 || body.contains_key("error"), "{got:?}");
}

/// One `data:` line an event, one blank line after it: what the simplest of readers understands.
fn check_stream(stream: &str) {
    assert!(!stream.contains('\r'), "{stream:?}");
    let events = stream.strip_suffix("\n\n").expect("ends with an event").split("\n\n");
    let payloads = events.map(|event| event.strip_prefix("data: ").expect("one line of data"));
    let payloads: Vec<&str> =
        payloads.inspect(|payload| assert!(!payload.contains('\n'), "{payload:?}")).collect();
    let (last, before) = payloads.split_last().expect("an event");
    before
        .iter()
        .for_each(|payload| assert!(!members(payload.as_bytes()).contains_key("error"), "{payload}"));
    assert!(*last == "[DONE]" || members(last.as_bytes()).contains_key("error"), "{last}");
}
