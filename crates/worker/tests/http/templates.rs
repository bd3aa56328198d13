//! Chat templates that clients' words get into.

use serde_json::{Value, json};

use crate::support::{CHAT, Server, Setup, chat, load_with_template};

/// As models publish them: over tools, calls and their arguments.
const TOOLS: &str = "{% if style %}{{ style.name + '!' }}{% endif %}{% for message in messages %}\
    {{ message.role + ': ' + message.content }}\
    {% for call in message.tool_calls or [] %}{{ call.function.name }}\
    {% for name, value in call.function.arguments.items() %} {{ name }}={{ value }}{% endfor %}\
    {% endfor %};{% endfor %}";

async fn with_template(source: &str) -> Server {
    Server::with(Setup { model: load_with_template(source), ..Setup::default() }).await
}

/// The prompt as the model sees it.
async fn prompt(server: &Server, messages: Value) -> String {
    let tokens = server.post("/tokenize", &json!({"messages": messages})).await.ok()["tokens"].clone();
    let text = server.post("/detokenize", &json!({"tokens": tokens})).await.ok()["prompt"].clone();
    text.as_str().expect("text").to_owned()
}

#[tokio::test]
async fn tool_calls_and_their_results_reach_the_template() {
    let server = with_template(TOOLS).await;
    for arguments in [json!("{\"city\": \"Bern\"}"), json!({"city": "Bern"})] {
        let call =
            json!({"id": "a", "type": "function", "function": {"name": "weather", "arguments": arguments}});
        let messages = json!([
            {"role": "user", "content": "rain?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "no", "tool_call_id": "a"},
        ]);
        assert_eq!(prompt(&server, messages).await, "user: rain?;assistant: weather city=Bern;tool: no;");
    }
}

#[tokio::test]
async fn what_a_template_cannot_take_is_a_400_and_not_a_failure_of_ours() {
    let server = with_template(TOOLS).await;
    let call = json!({"function": {"name": "f", "arguments": "no JSON"}});
    for (fields, param) in [
        (json!({"messages": [{"role": "assistant", "content": "x", "tool_calls": [call]}]}), "messages"),
        (json!({"chat_template_kwargs": {"style": 5}}), "chat_template_kwargs"),
    ] {
        let reply = server.post(CHAT, &chat(fields)).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &json!(param)), "{reply:?}");
        assert!(reply.text().contains("template"), "{reply:?}");
    }
    server.chat(json!({"chat_template_kwargs": {"style": {"name": "brief"}}})).await;
}

#[tokio::test]
async fn a_conversation_that_takes_the_template_too_long_is_a_400() {
    let server = with_template(
        "{% for at in range(count or 1) %}{% for at in range(9999) %}{% endfor %}{% endfor %}x",
    )
    .await;
    let reply = server.post(CHAT, &chat(json!({"chat_template_kwargs": {"count": 9999}}))).await;
    assert_eq!((reply.status, &reply.error()["param"]), (400, &json!("chat_template_kwargs")), "{reply:?}");
    server.chat(json!({})).await;
}

#[tokio::test]
async fn a_template_that_fails_on_everything_is_a_failure_of_ours() {
    let server = with_template("{{ messages[0].content.nothing.at_all }}").await;
    let reply = server.post(CHAT, &chat(json!({}))).await;
    assert_eq!((reply.status, &reply.error()["code"]), (500, &json!("internal")));
}

#[tokio::test]
async fn a_template_knows_the_date() {
    let server = with_template("{{ strftime_now('%d %B %Y') }}").await;
    assert_eq!(prompt(&server, json!([{"role": "user", "content": "x"}])).await, "15 January 2027");
}
