//! Any conversation is rendered in bounded time or refused, and a sound template is never to blame. The plain template
//! loses nothing of what was said.

#![no_main]

use std::sync::LazyLock;

use engine::chat_template::{CHATML, ChatTemplate, TemplateError};
use libfuzzer_sys::fuzz_target;
use protocol::{ChatRequest, parse_json};

/// In the ways of published templates: tools and calls, thinking, dates, roles in turns.
const SOURCES: [&str; 4] = [
    include_str!("../../../crates/engine/tests/fixtures/tokenizer/chat_templates/alternating.jinja"),
    include_str!("../../../crates/engine/tests/fixtures/tokenizer/chat_templates/dated.jinja"),
    include_str!("../../../crates/engine/tests/fixtures/tokenizer/chat_templates/thinking.jinja"),
    include_str!("../../../crates/engine/tests/fixtures/tokenizer/chat_templates/tools.jinja"),
];

static PLAIN: LazyLock<ChatTemplate> = LazyLock::new(|| template(CHATML));
static ELABORATE: LazyLock<[ChatTemplate; 4]> = LazyLock::new(|| SOURCES.map(template));

fuzz_target!(|body: &[u8]| {
    let Ok(chat) = parse_json::<ChatRequest>(body) else { return };
    if chat.validate().is_err() {
        return;
    }
    let kwargs = chat.chat_template_kwargs.clone().unwrap_or_default();
    match PLAIN.render(&chat.messages, true, &kwargs) {
        Ok(text) => {
            chat.messages.iter().for_each(|message| assert!(text.contains(&message.text()), "{text}"));
            assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
        }
        Err(error) => assert!(matches!(error, TemplateError::Reserved(_)), "{error}"),
    }
    for template in &*ELABORATE {
        if let Err(error) =
            template.render(&chat.messages, chat.add_generation_prompt.unwrap_or(true), &kwargs)
        {
            assert!(error.is_client_fault(), "{error}");
        }
    }
});

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, Some("<s>"), Some("</s>")).expect("valid").with_date(1_800_000_000)
}
