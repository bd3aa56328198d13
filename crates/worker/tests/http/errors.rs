//! What is refused, with which status, and which field is blamed.

use http::{Method, header};
use serde_json::{Value, json};
use worker::Config;

use crate::support::{CHAT, COMPLETIONS, CONTEXT, Server, Setup, chat, completion, merged, post_bytes};

/// Fields over a good request's, and the param that must be blamed.
fn wrong_in_both() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"model": 7}), "model"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 1e39}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.01}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 1.5}), "top_k"),
        (json!({"min_p": 1.1}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"frequency_penalty": 2.5}), "frequency_penalty"),
        (json!({"presence_penalty": -2.5}), "presence_penalty"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": CONTEXT}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_completion_tokens": 4_294_967_295_u32}), "max_completion_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 65}), "n"),
        (json!({"seed": "x"}), "seed"),
        (json!({"seed": 18_446_744_073_709_551_615_u64}), "seed"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"stream": true, "stream_options": [true]}), "stream_options"),
        (json!({"stop": 1}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": ["a", ""]}), "stop"),
        (json!({"stop": vec!["a"; 17]}), "stop"),
        (json!({"stop": "é".repeat(257)}), "stop"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"logit_bias": {"1": 1, "01": 2}}), "logit_bias"),
        (json!({"logit_bias": {"259": 1}}), "logit_bias"),
        (json!({"logit_bias": []}), "logit_bias"),
        (json!({"prompt_logprobs": 21}), "prompt_logprobs"),
        (json!({"prompt_logprobs": -1}), "prompt_logprobs"),
        (json!({"prompt_logprobs": 0, "stream": true}), "prompt_logprobs"),
        (json!({"ignore_eos": "no"}), "ignore_eos"),
        (json!({"priority": 1e12}), "priority"),
        (json!({"priority": -11}), "priority"),
        (json!({"priority": 11}), "priority"),
        (json!({"cache_salt": 7}), "cache_salt"),
        (json!({"cache_salt": "s".repeat(257)}), "cache_salt"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"tools": "x"}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"functions": []}), "functions"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "response_format"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"guided_json": {}}), "guided_json"),
        (json!({"guided_regex": "a+"}), "guided_regex"),
        (json!({"guided_choice": ["a"]}), "guided_choice"),
        (json!({"guided_grammar": "root ::= a"}), "guided_grammar"),
        (json!({"structured_outputs": {"choice": ["a"]}}), "structured_outputs"),
        (json!({"function_call": {"name": "f"}}), "function_call"),
        (json!({"min_tokens": 5}), "min_tokens"),
        (json!({"min_tokens": "5"}), "min_tokens"),
        (json!({"stop_token_ids": [7]}), "stop_token_ids"),
        (json!({"bad_words": ["x"]}), "bad_words"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
    ]
}

fn wrong_in_chat() -> Vec<(Value, &'static str)> {
    let said = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    let called = |calls: Value| json!({"messages": [{"role": "assistant", "tool_calls": calls}]});
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    vec![
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "robot", "content": "x"}]}),
            "messages[1].role",
        ),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [["user", "hi"]]}), "messages[0]"),
        (said(json!(7)), "messages[0].content"),
        (said(json!([["text", "hi"]])), "messages[0].content"),
        (said(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (
            said(
                json!([{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]),
            ),
            "messages[0].content[1].type",
        ),
        (said(json!([{"type": "input_audio", "input_audio": {}}])), "messages[0].content[0].type"),
        (said(json!("x".repeat(CONTEXT))), "messages"),
        (json!({"logprobs": 5}), "logprobs"),
        (json!({"top_logprobs": 5}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": {"tools": 5}}), "chat_template_kwargs.tools"),
        (json!({"chat_template_kwargs": {"tools": [{"type": "function"}]}}), "chat_template_kwargs.tools"),
        (called(json!("f")), "messages[0].tool_calls"),
        (called(json!([7])), "messages[0].tool_calls[0]"),
        (called(json!([{"name": "f"}])), "messages[0].tool_calls[0].function"),
        (called(json!([{"function": {"arguments": "{}"}}])), "messages[0].tool_calls[0].function.name"),
        (
            called(json!([{"function": {"name": "f", "arguments": [1]}}])),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            called(json!([call.clone(), {"type": "custom", "function": {"name": "f"}}])),
            "messages[0].tool_calls[1].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_calls": [call]}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x", "tool_call_id": 7}]}),
            "messages[0].tool_call_id",
        ),
    ]
}

fn wrong_in_completions() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [""]}), "prompt"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": {"text": "x"}}), "prompt"),
        (json!({"prompt": ["x", 1]}), "prompt"),
        (json!({"prompt": [1, -1]}), "prompt"),
        (json!({"prompt": [1, 259]}), "prompt"),
        (json!({"prompt": vec!["x"; 65]}), "prompt"),
        (json!({"prompt": "x".repeat(CONTEXT)}), "prompt"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"logprobs": 1, "echo": true}), "echo"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"best_of": 2}), "best_of"),
    ]
}

#[tokio::test]
async fn a_wrong_field_is_a_400_that_names_it() {
    let server = Server::start().await;
    let both = wrong_in_both();
    let chats =
        both.iter().cloned().chain(wrong_in_chat()).map(|(fields, param)| (CHAT, chat(fields), param));
    let completions = both
        .iter()
        .cloned()
        .chain(wrong_in_completions())
        .map(|(fields, param)| (COMPLETIONS, completion(fields), param));
    for (path, body, param) in chats.chain(completions) {
        let shown: String = body.to_string().chars().take(300).collect();
        let reply = server.post(path, &body).await;
        assert_eq!(reply.status, 400, "{path} {shown}: {reply:?}");
        let error = reply.error();
        assert_eq!(error["param"], param, "{path} {shown}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().expect("text").len() > 10);
    }
}

#[tokio::test]
async fn a_missing_field_is_named_and_an_unknown_one_is_ignored() {
    let server = Server::start().await;
    for (path, body, param) in [
        (CHAT, json!({"messages": []}), "model"),
        (CHAT, json!({"model": "tiny"}), "messages"),
        (COMPLETIONS, json!({"model": "tiny"}), "prompt"),
        (COMPLETIONS, json!({}), "model"),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &json!(param)));
    }
    for body in ["[\"tiny\", []]", " [[\"user\", \"hi\"]]", "7", "null"] {
        let reply = server.send(Method::POST, CHAT, body).await;
        assert_eq!(
            (reply.status, &reply.error()["message"]),
            (400, &json!("the body must be a JSON object"))
        );
    }
    let unknown =
        json!({"store": true, "metadata": {"a": [1, {"b": null}]}, "user": "u", "n": null, "stop": null});
    assert_eq!(server.post(CHAT, &chat(unknown.clone())).await.status, 200);
    assert_eq!(server.post(COMPLETIONS, &completion(unknown)).await.status, 200);
    let harmless = json!({"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"],
        "function_call": "auto", "min_tokens": 0, "stop_token_ids": [], "bad_words": [], "guided_json": null,
        "priority": -10, "chat_template_kwargs": {"tools": []}});
    assert_eq!(server.post(CHAT, &chat(harmless)).await.status, 200);
}

#[tokio::test]
async fn a_context_overflow_names_both_numbers() {
    let server = Server::start().await;
    for (body, numbers) in [
        (completion(json!({"prompt": "x".repeat(300)})), ["300", "256"]),
        (completion(json!({"prompt": "x".repeat(250), "max_tokens": 7})), ["250", "256"]),
        (completion(json!({"prompt": "x".repeat(256), "max_tokens": 1})), ["256", "256"]),
        (completion(json!({"prompt": ["x".to_owned(), "x".repeat(300)]})), ["300", "256"]),
    ] {
        let error = server.post(COMPLETIONS, &body).await.error();
        assert_eq!(error["code"], "context_length_exceeded");
        let message = error["message"].as_str().expect("text");
        assert!(numbers.iter().all(|number| message.contains(number)), "{message}");
    }
    // The longest token has 13 bytes, so more than 256 times as many are too long whatever they are.
    let vast = "x".repeat(13 * CONTEXT + 1);
    for (path, body) in [
        (COMPLETIONS, completion(json!({"prompt": ["x", vast.as_str()]}))),
        (CHAT, chat(json!({"messages": [{"role": "user", "content": vast}]}))),
    ] {
        let error = server.post(path, &body).await.error();
        assert_eq!(error["code"], "context_length_exceeded");
        assert!(error["message"].as_str().expect("text").contains("bytes"), "no token was counted: {error}");
    }
    let fits = completion(json!({"prompt": "x".repeat(255), "max_tokens": 1}));
    assert_eq!(
        server.post(COMPLETIONS, &fits).await.status,
        200,
        "the last token of the context can be used"
    );
}

#[tokio::test]
async fn an_unknown_model_is_a_404_in_openais_words() {
    let server = Server::start().await;
    for (path, body) in [
        (CHAT, chat(json!({"model": "gpt-4"}))),
        (COMPLETIONS, completion(json!({"model": "gpt-4"}))),
        ("/tokenize", json!({"model": "gpt-4", "prompt": "x"})),
        ("/detokenize", json!({"model": "gpt-4", "tokens": [1]})),
    ] {
        let reply = server.post(path, &body).await;
        let error = reply.error();
        assert_eq!(
            (reply.status, &error["code"], &error["param"]),
            (404, &json!("model_not_found"), &json!("model"))
        );
    }
    assert_eq!(server.get("/v1/models/gpt-4").await.error()["code"], "model_not_found");
    let endless = chat(json!({"model": "x".repeat(100_000)}));
    assert!(server.post(CHAT, &endless).await.body.len() < 1000, "a name is not repeated at any length");
}

#[tokio::test]
async fn an_unknown_path_is_a_404_and_a_wrong_method_a_405_that_names_the_right_one() {
    let server = Server::start().await;
    for path in ["/", "/v1", "/v1/embeddings", "/v1/chat/completions/", "/internal", "/%00", "/../etc/passwd"]
    {
        let reply = server.get(path).await;
        assert_eq!((reply.status, &reply.error()["code"]), (404, &json!("not_found")), "{path}");
    }
    for (method, path, allowed) in [
        (Method::GET, CHAT, "POST"),
        (Method::DELETE, COMPLETIONS, "POST"),
        (Method::POST, "/v1/models", "GET,HEAD"),
        (Method::POST, "/metrics", "GET,HEAD"),
    ] {
        let reply = server.send(method, path, "").await;
        assert_eq!((reply.status, &reply.error()["code"]), (405, &json!("method_not_allowed")));
        assert_eq!(reply.header(header::ALLOW), allowed);
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_a_400_that_blames_no_field() {
    let server = Server::start().await;
    let cut = chat(json!({"prompt": "x", "tokens": [1]})).to_string();
    let trailing = format!("{cut}}}");
    let not_utf8 = [
        &cut.as_bytes()[..cut.find("hello").expect("there")],
        b"\xff\xfe",
        &cut.as_bytes()[cut.find("hello").expect("there")..],
    ]
    .concat();
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b"\"x\"",
        trailing.as_bytes(),
        b"{\"model\":\"tiny\",}",
        b"\xef\xbb\xbf{}",
        &cut.as_bytes()[..cut.len() - 1],
        &not_utf8,
        br#"{"model":"\ud800"}"#,
    ];
    for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
        for body in bodies {
            let reply = server.send(Method::POST, path, body.to_vec()).await;
            assert_eq!(reply.status, 400, "{path} {:?}", String::from_utf8_lossy(body));
            assert!(
                reply.error()["param"].is_null(),
                "{path} {:?}: {reply:?}",
                String::from_utf8_lossy(body)
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_harms_nobody() {
    let server = Server::start().await;
    let whole = post_bytes(CHAT, &chat(json!({})));
    for end in [whole.len() - 1, whole.len() - 50, 30, 0] {
        let reply = server.raw(&whole[..end]).await;
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 400"), "{reply}");
    }
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        &[b'x'; 1 << 20],
    ] {
        let reply = server.raw(bytes).await;
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    }
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert!(!server.raw(chunked.as_bytes()).await.starts_with("HTTP/1.1 5"));
    assert_eq!(server.post(CHAT, &chat(json!({}))).await.status, 200);
    server.until(|load| load.num_requests_running == 0).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413_that_the_client_gets_to_read() {
    let config = Config { body_bytes_max: 4096, ..Setup::default().config };
    let server = Server::with(Setup { config, ..Setup::default() }).await;
    for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
        for size in [4096, 15_000] {
            let reply = server.post(path, &chat(json!({"padding": "x".repeat(size)}))).await;
            assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("payload_too_large")));
            assert!(reply.text().contains("4096"));
        }
    }
    let endless = server.raw(&post_bytes(CHAT, &json!({"padding": "x".repeat(4 << 20)}))).await;
    assert!(endless.is_empty() || endless.starts_with("HTTP/1.1 413"), "{endless}");
    let exact = completion(json!({}));
    let padding = "x".repeat(4096 - merged(exact.clone(), json!({"padding": ""})).to_string().len());
    assert_eq!(server.post(COMPLETIONS, &merged(exact, json!({"padding": padding}))).await.status, 200);
}

#[tokio::test]
async fn with_a_key_only_its_bearer_gets_beyond_the_health_checks() {
    let key = "a-key-of-16-characters";
    let config = Config { api_key: Some(key.into()), ..Setup::default().config };
    let server = Server::with(Setup { config, ..Setup::default() }).await;
    let get = async |path: &str, authorization: Option<&str>| {
        let mut request = server.build(Method::GET, path, "");
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        server.request(request).await.status().as_u16()
    };
    for path in ["/v1/models", "/v1/models/tiny", "/internal/load", "/metrics"] {
        let shorter = format!("Bearer {}", &key[1..]);
        let longer = format!("Bearer {key}x");
        for wrong in [
            None,
            Some(""),
            Some("Bearer "),
            Some("Bearer"),
            Some(key),
            Some(&shorter),
            Some(&longer),
            Some("Basic x"),
        ] {
            assert_eq!(get(path, wrong).await, 401, "{path} {wrong:?}");
        }
        assert_eq!(get(path, Some(&format!("Bearer {key}"))).await, 200, "{path}");
    }
    for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
        let reply = server.post(path, &chat(json!({}))).await;
        assert_eq!((reply.status, &reply.error()["code"]), (401, &json!("invalid_api_key")));
        assert!(!reply.text().contains(key));
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(get(path, None).await, 200, "probes have no key");
    }
}

#[test]
fn settings_that_are_not_safe_or_cannot_work_are_refused() {
    let open = Config { listen: ([0, 0, 0, 0], 0).into(), ..Config::default() };
    let keyed = |key: &str| Config { api_key: Some(key.into()), ..open.clone() };
    assert!(Config::default().validate().is_ok());
    assert!(keyed("0123456789abcdef").validate().is_ok());
    let refused = |config: Config, field: &str| {
        let error = config.validate().expect_err("refused").to_string();
        assert!(error.contains(field), "{error}");
    };
    refused(open.clone(), "worker.api_key");
    for key in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé", "0123456789abcdef\n"] {
        refused(keyed(key), "worker.api_key");
        refused(Config { api_key: Some(key.into()), ..Config::default() }, "worker.api_key");
    }
    let default = Config::default;
    refused(Config { body_bytes_max: 100, ..default() }, "worker.body_bytes_max");
    refused(Config { connections_max: 0, ..default() }, "worker.connections_max");
    refused(Config { idle_timeout_s: 0, ..default() }, "worker.idle_timeout_s");
    refused(Config { drain_timeout_s: 3601, ..default() }, "worker.drain_timeout_s");
    refused(Config { hot_prefixes_max: 1 << 20, ..default() }, "worker.hot_prefixes_max");
    refused(Config { tokenizations_max: 0, ..default() }, "worker.tokenizations_max");
}
