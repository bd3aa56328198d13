//! A server of OpenAI's API that is not ours, behind the gateway.

use serde_json::{Value, json};
use tests::{Launch, PythonServer, Stream};

const CHAT: &str = "/v1/chat/completions";

fn question(options: Value) -> Value {
    let mut asked =
        json!({"model": "foreign", "messages": [{"role": "user", "content": "hello"}], "temperature": 0});
    if let (Some(asked), Value::Object(options)) = (asked.as_object_mut(), options) {
        asked.extend(options);
    }
    asked
}

#[tokio::test]
async fn a_foreign_server_serves_behind_the_gateway_and_its_answers_are_never_kept() {
    let mut server = PythonServer::start("foreign_server.py").await.expect("the server");
    let gateway = Launch::gateway_of([server.url()]).start().await.expect("a gateway");
    gateway.ready().await.expect("ready");
    let api = gateway.api();

    let models = api.get("/v1/models").await.expect("answered");
    assert_eq!(models.json()["data"][0]["id"], "foreign", "{}", models.text());

    // Its version is unknown and may change under us, so each question is asked anew, whatever the client wishes.
    let forced = api.clone().with_header("x-tenk-cache", "force").expect("a header");
    for (count, api) in [(1, &api), (2, &api), (3, &forced), (4, &forced)] {
        let reply = api.post(CHAT, &question(json!({}))).await.expect("answered");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.content(), format!("answer {count} to hello"));
        assert_eq!(reply.header("x-tenk-cache"), "bypass");
        // Bytes pass through, even what we do not know.
        assert_eq!(reply.json()["something_of_its_own"], true);
    }

    let mut stream = api.stream(CHAT, &question(json!({"stream": true}))).await.expect("answered");
    assert_eq!((stream.status, stream.header("x-tenk-cache")), (200, "bypass"));
    let events = stream.rest().await.expect("an end");
    assert!(Stream::is_complete(&events), "{events:?}");
    assert_eq!(Stream::content(&events), "answer 5 in pieces");

    let refused = api.post(CHAT, &question(json!({"temperature": 5}))).await.expect("answered");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error", "{}", refused.text());

    server.kill9().await.expect("killed");
    let reply = api.post(CHAT, &question(json!({}))).await.expect("answered");
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert!(!reply.text().contains("127.0.0.1"), "an address is shown: {}", reply.text());
}
