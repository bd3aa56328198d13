//! What is generated: how much, how often, from what, until when.

use serde_json::{Value, json};

use crate::support::{CONTEXT, END_OF_TURN, Server, letters, text_of};

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("text")
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("text")
}

#[tokio::test]
async fn a_whole_chat_answer_has_openais_fields_and_counts_its_tokens() {
    let server = Server::start().await;
    let answer = server.chat(json!({})).await;
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().expect("an id").starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().expect("a time") > 1_700_000_000);
    assert_eq!((&answer["model"], &answer["system_fingerprint"]), (&json!("tiny"), &json!("v1")));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("length")));
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(
        choice["message"].get("refusal").is_some() && choice.get("logprobs").is_some(),
        "present when null"
    );
    // A token a byte, and one for each of the template's two kinds of marks.
    let prompt = "user\nhello there\nassistant\n".len() + "\n".len() - 1 + 3;
    let details = json!({"cached_tokens": 0});
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": 8, "total_tokens": prompt + 8,
        "prompt_tokens_details": details});
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn a_whole_completion_has_openais_fields() {
    let server = Server::start().await;
    let answer = server.complete(json!({})).await;
    assert_eq!(answer["object"], "text_completion");
    assert!(answer["id"].as_str().expect("an id").starts_with("cmpl-"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("length")));
    assert!(choice.get("logprobs").is_some(), "present when null");
    assert_eq!(answer["usage"]["prompt_tokens"], "once upon".len());
}

#[tokio::test]
async fn the_callers_request_id_names_the_answer() {
    let server = Server::start().await;
    let named = |id: &str| {
        let body = crate::support::chat(json!({})).to_string();
        let mut request = server.build(http::Method::POST, crate::support::CHAT, body);
        request.headers_mut().insert("x-request-id", id.parse().expect("a header"));
        server.request(request)
    };
    let id_of = async |id: &str| {
        let reply = crate::support::Reply::read(named(id).await).await;
        assert_eq!(reply.header("x-tenk-model-version"), "v1");
        reply.ok()["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(id_of("abc-1").await, "chatcmpl-abc-1");
    assert_eq!(id_of("").await.len(), "chatcmpl-".len() + 32, "an empty one is none");
    assert_eq!(id_of(&"x".repeat(4000)).await.len(), "chatcmpl-".len() + 32, "nor is one without end");
}

#[tokio::test]
async fn a_seed_repeats_an_answer_and_its_absence_does_not() {
    let server = Server::start().await;
    let answer = async |fields: Value| content(&server.chat(fields).await).to_owned();
    let first = answer(json!({"seed": 7})).await;
    assert_eq!(answer(json!({"seed": 7})).await, first);
    assert_ne!(answer(json!({"seed": 8})).await, first);
    assert_eq!(answer(json!({"seed": -7})).await, answer(json!({"seed": -7})).await);
    assert_ne!(answer(json!({"max_tokens": 40})).await, answer(json!({"max_tokens": 40})).await);
    let greedy = json!({"temperature": 0});
    assert_eq!(answer(greedy.clone()).await, answer(greedy).await);
}

#[tokio::test]
async fn several_answers_differ_and_the_first_is_the_one_that_comes_alone() {
    let server = Server::start().await;
    let alone = server.chat(json!({"seed": 3})).await;
    let several = server.chat(json!({"seed": 3, "n": 3})).await;
    let choices = several["choices"].as_array().expect("choices");
    assert_eq!(choices.iter().map(|choice| &choice["index"]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(choices[0]["message"], alone["choices"][0]["message"]);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    assert_ne!(choices[1]["message"], choices[2]["message"]);
    assert_eq!(several["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"], "a prompt counts once");
    assert_eq!(several["usage"]["completion_tokens"], 24);
}

#[tokio::test]
async fn several_prompts_are_answered_as_each_is_alone_in_whichever_form_they_come() {
    let server = Server::start().await;
    let ids = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let alone = [
        server.complete(json!({"seed": 1, "prompt": "one"})).await,
        server.complete(json!({"seed": 1, "prompt": ids("three")})).await,
    ];
    for prompts in [json!(["one", "three"]), json!([ids("one"), ids("three")])] {
        let both = server.complete(json!({"seed": 1, "n": 2, "prompt": prompts})).await;
        let choices = both["choices"].as_array().expect("choices");
        assert_eq!(choices.iter().map(|choice| &choice["index"]).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(choices[0]["text"], text(&alone[0]));
        assert_eq!(choices[2]["text"], text(&alone[1]));
        assert_eq!(both["usage"]["prompt_tokens"], "one".len() + "three".len());
        assert_eq!(both["usage"]["completion_tokens"], 32);
    }
}

#[tokio::test]
async fn content_in_parts_is_its_texts_joined_by_line_breaks() {
    let server = Server::start().await;
    let answer = async |content: Value| {
        let messages = json!([{"role": "system", "content": "s"}, {"role": "user", "content": content}]);
        server.chat(json!({"seed": 1, "messages": messages})).await["choices"].clone()
    };
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(answer(parts).await, answer(json!("a\nb")).await);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let server = Server::start().await;
    let fields = |stop: Value| json!({"seed": 5, "max_tokens": 40, "logit_bias": letters(), "stop": stop});
    let free = text(&server.complete(fields(Value::Null)).await).to_owned();
    assert_eq!(free.len(), 40);
    let stop = &free[20..23];
    let before = &free[..free.find(stop).expect("it is in there")];
    for stop in [json!(stop), json!(["never there", stop])] {
        let whole = server.complete(fields(stop.clone())).await;
        assert_eq!(text(&whole), before);
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            whole["usage"]["completion_tokens"],
            before.len() + 3,
            "it ends with the token that completes it"
        );
        let events = server.completion_events(fields(stop)).await;
        assert_eq!(text_of(&events, 0), before);
        assert_eq!(events.last().expect("events")["choices"][0]["finish_reason"], "stop");
    }
    let half = format!("{}!", &free[38..]);
    let held = server.completion_events(fields(json!(half))).await;
    assert_eq!(
        text_of(&held, 0),
        free,
        "what was held back for a stop string that did not come is sent at the end"
    );
}

#[tokio::test]
async fn the_models_own_end_is_obeyed_unless_it_is_to_be_ignored() {
    let server = Server::start().await;
    let fields = |ignore| {
        let bias = json!({END_OF_TURN.to_string(): 100});
        json!({"logit_bias": bias, "ignore_eos": ignore, "max_tokens": 5, "temperature": 0})
    };
    let ended = server.chat(fields(false)).await;
    assert_eq!((content(&ended), &ended["choices"][0]["finish_reason"]), ("", &json!("stop")));
    assert_eq!(ended["usage"]["completion_tokens"], 1);
    let ignored = server.chat(fields(true)).await;
    assert_eq!((content(&ignored), &ignored["choices"][0]["finish_reason"]), ("", &json!("length")));
    assert_eq!(ignored["usage"]["completion_tokens"], 5);
    let events = server.chat_events(fields(false)).await;
    assert_eq!(events.len(), 2, "an empty answer is a role and a reason");
}

#[tokio::test]
async fn an_answer_without_a_limit_fills_the_context_in_chat_and_has_sixteen_tokens_in_completions() {
    let server = Server::start().await;
    let usage = async |answer: Value| {
        let count = |field: &str| answer["usage"][field].as_u64().expect("a count") as usize;
        (count("prompt_tokens"), count("completion_tokens"))
    };
    let (prompt, generated) = usage(server.chat(json!({"max_tokens": null})).await).await;
    assert_eq!(prompt + generated, CONTEXT);
    let (_, generated) = usage(server.complete(json!({"max_tokens": null})).await).await;
    assert_eq!(generated, 16);
    let nearly_full = "x".repeat(CONTEXT - 3);
    let answer = server.complete(json!({"max_tokens": null, "prompt": nearly_full})).await;
    assert_eq!(usage(answer).await, (CONTEXT - 3, 3), "a default gives way where a wish would not");
    let (_, generated) = usage(server.chat(json!({"max_tokens": 9, "max_completion_tokens": 4})).await).await;
    assert_eq!(generated, 4, "the newer name wins");
}

#[tokio::test]
async fn an_echo_puts_the_prompt_before_the_answer() {
    let server = Server::start().await;
    for prompt in [json!("once"), json!([111, 110, 99, 101])] {
        let fields = json!({"prompt": [prompt.clone(), prompt.clone()], "n": 2, "seed": 1});
        let fields = if prompt.is_string() {
            fields
        } else {
            crate::support::merged(fields, json!({"prompt": [prompt.clone(), prompt]}))
        };
        let plain = server.complete(fields.clone()).await;
        let echoed = server.complete(crate::support::merged(fields.clone(), json!({"echo": true}))).await;
        let events = server.completion_events(crate::support::merged(fields, json!({"echo": true}))).await;
        for index in 0..4 {
            let expected = format!("once{}", plain["choices"][index]["text"].as_str().expect("text"));
            assert_eq!(echoed["choices"][index]["text"], expected);
            assert_eq!(text_of(&events, index as u64), expected);
        }
    }
}

#[tokio::test]
async fn token_ids_come_when_asked_for_and_spell_the_text() {
    let server = Server::start().await;
    let fields = json!({"seed": 2, "return_token_ids": true, "logit_bias": letters()});
    let spelled = |ids: &Value| -> String {
        let ids: Vec<u8> = serde_json::from_value(ids.clone()).expect("ids of bytes");
        String::from_utf8(ids).expect("letters")
    };
    let chat = server.chat(fields.clone()).await;
    assert_eq!(spelled(&chat["choices"][0]["token_ids"]), content(&chat));
    let prompt = chat["prompt_token_ids"].as_array().expect("ids");
    assert_eq!(chat["usage"]["prompt_tokens"], prompt.len());
    let whole = server.complete(fields.clone()).await;
    assert_eq!(spelled(&whole["choices"][0]["token_ids"]), text(&whole));
    assert_eq!(spelled(&whole["choices"][0]["prompt_token_ids"]), "once upon");
    for events in [server.chat_events(fields.clone()).await, server.completion_events(fields).await] {
        let ids: Vec<Value> = events
            .iter()
            .flat_map(|event| event["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default())
            .collect();
        assert_eq!(spelled(&json!(ids)), text_of(&events, 0));
    }
    assert!(server.chat(json!({})).await.get("prompt_token_ids").is_none());
}

#[tokio::test]
async fn a_prompt_is_found_in_the_cache_again_but_not_by_another_tenant() {
    let server = Server::start().await;
    let cached = async |salt: Value| {
        let prompt = "the same long beginning for everyone ".repeat(4);
        let answer = server.complete(json!({"prompt": prompt, "cache_salt": salt})).await;
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count")
    };
    assert_eq!(cached(json!("a")).await, 0);
    assert!(cached(json!("a")).await >= 128);
    assert_eq!(cached(json!("b")).await, 0, "another salt");
    assert_eq!(cached(Value::Null).await, 0, "no salt");
    assert!(cached(Value::Null).await >= 128);
    assert!(cached(json!("")).await >= 128, "an empty salt is none");
}
