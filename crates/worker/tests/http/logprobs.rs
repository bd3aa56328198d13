//! Log-likelihoods: of answers in both endpoints' forms, and of prompts.

use serde_json::{Value, json};

use crate::support::Server;

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

#[tokio::test]
async fn chat_scores_each_token_with_as_many_alternatives_as_asked_for() {
    let server = Server::start().await;
    for top in [0, 1, 20] {
        let fields = json!({"seed": 1, "logprobs": true, "top_logprobs": top, "return_token_ids": true});
        let answer = server.chat(fields.clone()).await;
        let content = answer["choices"][0]["logprobs"]["content"].as_array().expect("scores");
        assert_eq!(content.len(), 8);
        let mut bytes = Vec::new();
        for score in content {
            assert!((-9999.0..=0.0).contains(&score["logprob"].as_f64().expect("a number")));
            let own: Vec<u8> = serde_json::from_value(score["bytes"].clone()).expect("bytes");
            assert_eq!(score["token"], String::from_utf8_lossy(&own).as_ref());
            bytes.extend(own);
            let alternatives = score["top_logprobs"].as_array().expect("alternatives");
            assert_eq!(alternatives.len(), top);
            let likelihoods = alternatives.iter().map(|top| top["logprob"].as_f64().expect("a number"));
            assert!(likelihoods.is_sorted_by(|left, right| left >= right), "likeliest first");
        }
        let ids: Vec<u32> = serde_json::from_value(answer["choices"][0]["token_ids"].clone()).expect("ids");
        let ids: Vec<u32> = ids.into_iter().filter(|id| *id < 256).collect();
        let plain: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
        assert!(plain.len() >= ids.len(), "specials are spelled out");
        let events = server.chat_events(fields).await;
        let streamed: Vec<&Value> = events
            .iter()
            .flat_map(|event| event["choices"][0]["logprobs"]["content"].as_array().into_iter().flatten())
            .collect();
        assert_eq!(streamed, content.iter().collect::<Vec<_>>(), "the same in a stream");
    }
    let off = server.chat(json!({"logprobs": false})).await;
    assert!(off["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn completions_score_in_columns_whose_offsets_go_on_through_a_stream() {
    let server = Server::start().await;
    let fields = json!({"seed": 1, "logprobs": 3, "logit_bias": crate::support::letters()});
    let answer = server.complete(fields.clone()).await;
    let columns = &answer["choices"][0]["logprobs"];
    let tokens: Vec<String> = serde_json::from_value(columns["tokens"].clone()).expect("tokens");
    assert_eq!(tokens.concat(), answer["choices"][0]["text"].as_str().expect("text"));
    assert_eq!(numbers(&columns["text_offset"]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let likelihoods = numbers(&columns["token_logprobs"]);
    for (at, top) in columns["top_logprobs"].as_array().expect("maps").iter().enumerate() {
        let top = top.as_object().expect("a map");
        assert!((1..=4).contains(&top.len()), "three, and the token itself");
        assert_eq!(top[&tokens[at]].as_f64(), Some(likelihoods[at]), "the token itself is among them");
    }
    let events = server.completion_events(fields).await;
    let joined = |column: &str| -> Vec<Value> {
        let own = events.iter().map(|event| &event["choices"][0]["logprobs"][column]);
        own.flat_map(|values| values.as_array().into_iter().flatten().cloned()).collect()
    };
    for column in ["tokens", "text_offset", "token_logprobs", "top_logprobs"] {
        assert_eq!(json!(joined(column)), columns[column], "{column}");
    }
}

#[tokio::test]
async fn completions_with_no_alternatives_score_the_token_alone() {
    let server = Server::start().await;
    let answer = server.complete(json!({"logprobs": 0, "max_tokens": 3})).await;
    for top in answer["choices"][0]["logprobs"]["top_logprobs"].as_array().expect("maps") {
        assert_eq!(top.as_object().expect("a map").len(), 1);
    }
}

#[tokio::test]
async fn a_prompts_tokens_are_scored_but_the_first_which_nothing_predicts() {
    let server = Server::start().await;
    // Twice: the second time the prompt is in the cache, and must be computed all the same.
    for _ in 0..2 {
        let prompt = "a prompt that is longer than a block of the cache";
        let answer = server.complete(json!({"prompt": prompt, "prompt_logprobs": 2, "n": 2})).await;
        for choice in answer["choices"].as_array().expect("choices") {
            let scores = choice["prompt_logprobs"].as_array().expect("scores");
            assert_eq!(scores.len(), prompt.len());
            assert!(scores[0].is_null());
            for (byte, score) in prompt.bytes().zip(scores).skip(1) {
                let own = &score[byte.to_string()];
                assert_eq!(own["decoded_token"], char::from(byte).to_string());
                assert!((1..=259).contains(&own["rank"].as_u64().expect("a rank")));
                let ranks = score.as_object().expect("a map").values().map(|entry| entry["rank"].as_u64());
                let mut ranks: Vec<_> = ranks.collect();
                ranks.sort_unstable();
                assert_eq!(ranks[..2], [Some(1), Some(2)]);
            }
        }
    }
    let chat = server.chat(json!({"prompt_logprobs": 0})).await;
    assert_eq!(
        chat["prompt_logprobs"].as_array().map(Vec::len),
        chat["usage"]["prompt_tokens"].as_u64().map(|count| count as usize)
    );
    let one = server.complete(json!({"prompt": "x", "prompt_logprobs": 0})).await;
    assert_eq!(one["choices"][0]["prompt_logprobs"], json!([null]));
}
