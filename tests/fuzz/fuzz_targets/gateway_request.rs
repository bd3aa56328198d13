//! Whatever a client sends, it hears 200 or why not; and the worker hears JSON that says the same, but for the wish for
//! token counts, and for the cache salt, which is the gateway's alone.

#![no_main]

use fuzz::front::Front;
use fuzz::json::{object, same};
use libfuzzer_sys::fuzz_target;
use protocol::{Generation, parse_json};
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    let front = Front::get();
    front.worker_says(r#"{"choices":[]}"#, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let got = front.post(path, "no-store", body);
        match &got.asked {
            Some(asked) => {
                assert_eq!(got.status, 200, "{got:?}");
                says_the_same(body, asked);
            }
            None => {
                assert!((400..500).contains(&got.status), "{got:?}");
                let error = &object(&got.body)["error"];
                assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{got:?}");
            }
        }
    }
});

fn says_the_same(sent: &[u8], asked: &[u8]) {
    if parse_json::<Generation>(sent).is_ok() {
        parse_json::<Generation>(asked).expect("a worker reads what it could read before");
    }
    let (mut sent, mut asked) = (object(sent), object(asked));
    sent.remove("cache_salt");
    let salt = asked.remove("cache_salt").expect("a salt");
    assert!(salt.as_str().is_some_and(|salt| salt.len() == 32), "{salt}");

    let options = sent.get("stream_options").unwrap_or(&Value::Null);
    if sent.get("stream") == Some(&Value::Bool(true)) && (options.is_object() || options.is_null()) {
        let mut options = options.clone();
        options["include_usage"] = true.into();
        sent.insert("stream_options".into(), options);
    }
    assert!(same(&sent.into(), &asked.into()));
}
