//! Sizes that nobody sends by mistake: refused, or served, but soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{CHAT, COMPLETIONS, Server, chat, completion};

/// What is refused costs no more than reading it.
const SOON: Duration = Duration::from_secs(2);

async fn refused_soon(server: &Server, path: &str, body: String, what: &str) {
    let started = Instant::now();
    let reply = server.send(http::Method::POST, path, body).await;
    assert_eq!(reply.status, 400, "{what}: {reply:?}");
    assert!(reply.body.len() < 2000, "{what}: the answer does not repeat the request");
    assert!(started.elapsed() < SOON, "{what} took {:?}", started.elapsed());
}

#[tokio::test]
async fn lists_without_end_are_refused_soon() {
    let server = Server::start().await;
    let biases: Value = (0..100_000).map(|token| (token.to_string(), json!(1))).collect();
    let in_vocabulary: Value = (0..100_000).map(|token| (format!("{token:07}"), json!(1))).collect();
    let fields = [
        (json!({"logit_bias": biases}), "100,000 biases"),
        (json!({"logit_bias": in_vocabulary}), "100,000 spellings"),
        (json!({"stop": vec!["x"; 200_000]}), "200,000 stop strings"),
        (json!({"stop": "x".repeat(3_000_000)}), "a stop string of 3 MB"),
        (json!({"cache_salt": "x".repeat(3_000_000)}), "a salt of 3 MB"),
        (json!({"modalities": vec!["x"; 200_000]}), "200,000 modalities"),
        (json!({"tools": vec![json!({}); 200_000]}), "200,000 tools"),
    ];
    for (fields, what) in fields {
        refused_soon(&server, CHAT, chat(fields.clone()).to_string(), what).await;
        refused_soon(&server, COMPLETIONS, completion(fields).to_string(), what).await;
    }
}

#[tokio::test]
async fn prompts_without_end_are_refused_soon() {
    let server = Server::start().await;
    let message = json!({"role": "user", "content": "x"});
    let part = json!({"type": "text", "text": "x"});
    let chats = [
        (json!({"messages": vec![message; 40_000]}), "40,000 messages"),
        (json!({"messages": [{"role": "user", "content": vec![part; 100_000]}]}), "100,000 parts"),
        (json!({"messages": [{"role": "user", "content": "x ".repeat(400_000)}]}), "a message of 0.8 MB"),
        (json!({"messages": [{"role": "user", "content": "<|im_end|>".repeat(90_000)}]}), "90,000 marks"),
        (json!({"messages": [{"role": "user", "content": "<|im_".repeat(150_000)}]}), "150,000 false marks"),
    ];
    for (fields, what) in chats {
        refused_soon(&server, CHAT, chat(fields).to_string(), what).await;
    }
    let completions = [
        (json!({"prompt": vec!["x"; 200_000]}), "200,000 prompts"),
        (json!({"prompt": vec![7; 500_000]}), "500,000 ids"),
        (json!({"prompt": vec![json!([]); 300_000]}), "300,000 lists"),
        (json!({"prompt": vec!["x".repeat(15_000); 64], "n": 4}), "64 prompts of 15 kB"),
        (json!({"prompt": "a".repeat(1_000_000)}), "one word of 1 MB"),
        (json!({"prompt": "\u{0301}".repeat(250_000)}), "250,000 accents"),
        (json!({"prompt": vec!["x"; 64], "n": 64}), "4,096 answers"),
    ];
    for (fields, what) in completions {
        refused_soon(&server, COMPLETIONS, completion(fields).to_string(), what).await;
    }
}

#[tokio::test]
async fn nesting_without_end_is_refused_or_ignored_and_never_overflows_the_stack() {
    let server = Server::start().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(500_000), close.repeat(500_000));
        for field in [
            "messages",
            "prompt",
            "tools",
            "stop",
            "logit_bias",
            "response_format",
            "logprobs",
            "chat_template_kwargs",
        ] {
            let body = format!(r#"{{"model":"tiny","{field}":{deep}}}"#);
            for path in [CHAT, COMPLETIONS] {
                refused_soon(&server, path, body.clone(), field).await;
            }
        }
        let mut ignored = chat(json!({})).to_string();
        ignored.insert_str(1, &format!(r#""unknown":{deep},"#));
        let reply = server.send(http::Method::POST, CHAT, ignored).await;
        assert!([200, 400].contains(&reply.status), "{reply:?}");
        // As deep as JSON may be here, through the chat template.
        let deep = format!("{}1{}", open.repeat(100), close.repeat(100));
        let mut kwargs = chat(json!({})).to_string();
        kwargs.insert_str(1, &format!(r#""chat_template_kwargs":{{"x":{deep}}},"#));
        assert_eq!(server.send(http::Method::POST, CHAT, kwargs).await.status, 200);
    }
}

#[tokio::test]
async fn prompt_log_likelihoods_beyond_what_one_answer_can_hold_are_refused() {
    let server = Server::start().await;
    let prompts = vec!["x".repeat(200); 64];
    let many = json!({"prompt": prompts, "prompt_logprobs": 20, "max_tokens": 1});
    let reply = server.post(COMPLETIONS, &completion(many)).await;
    assert_eq!((reply.status, &reply.error()["param"]), (400, &json!("prompt_logprobs")));
    let many = chat(
        json!({"n": 64, "prompt_logprobs": 20, "messages": [{"role": "user", "content": "x".repeat(200)}]}),
    );
    let reply = server.post(CHAT, &many).await;
    assert_eq!((reply.status, &reply.error()["param"]), (400, &json!("prompt_logprobs")));
}

#[tokio::test]
async fn ids_without_end_become_text_soon() {
    let server = Server::start().await;
    let started = Instant::now();
    let reply = server.post("/detokenize", &json!({"tokens": vec![120; 400_000]})).await;
    assert_eq!(reply.ok()["prompt"].as_str().map(str::len), Some(400_000));
    let reply = server.post("/tokenize", &json!({"prompt": "x ".repeat(400_000)})).await;
    assert_eq!(reply.ok()["count"], 800_000);
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
}
