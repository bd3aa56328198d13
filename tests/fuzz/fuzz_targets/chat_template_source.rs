//! A template comes from a stranger with the model's file: any text is parsed or refused, and rendered or not, in bounded
//! time. One gap is known and left: lists put into one another by a long loop overflow the stack when they are dropped.

#![no_main]

use std::sync::LazyLock;

use engine::chat_template::ChatTemplate;
use libfuzzer_sys::fuzz_target;
use protocol::Message;
use serde_json::json;

static MESSAGES: LazyLock<Vec<Message>> = LazyLock::new(|| {
    let calls =
        json!([{ "type": "function", "function": { "name": "f", "arguments": "{\"a\":[1,{\"b\":null}]}" } }]);
    let messages = json!([
        { "role": "developer", "content": "be brief" },
        { "role": "user", "content": [{ "type": "text", "text": "hello" }, { "type": "text", "text": "🦀" }] },
        { "role": "assistant", "content": null, "tool_calls": calls },
        { "role": "tool", "content": "1.5", "tool_call_id": "x", "name": "f" },
    ]);
    serde_json::from_value(messages).expect("messages")
});

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source, Some("<s>"), None) else { return };
    let template = template.with_date(1_800_000_000);
    let _ = template.render(&MESSAGES, true, &serde_json::Map::new());
});
