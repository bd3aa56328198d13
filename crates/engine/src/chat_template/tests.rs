use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};

use candle_core::quantized::gguf_file::{Content, Value as GgufValue};
use protocol::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CHATML, ChatTemplate, TemplateError, date};
use crate::tokenizer::Tokenizer;

const SMOLLM2: &[u8] = include_bytes!("../../tests/fixtures/tokenizer/smollm2-vocab.gguf");

static METADATA: LazyLock<HashMap<String, GgufValue>> =
    LazyLock::new(|| Content::read(&mut Cursor::new(SMOLLM2)).unwrap().metadata);
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_gguf(&METADATA).unwrap());

fn fixture(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer/chat_templates");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn messages(value: Value) -> Vec<Message> {
    serde_json::from_value(value).unwrap()
}

fn user(text: &str) -> Vec<Message> {
    messages(json!([{"role": "user", "content": text}]))
}

fn render(source: &str, kwargs: Value) -> Result<String, TemplateError> {
    let Value::Object(kwargs) = kwargs else { panic!("an object") };
    ChatTemplate::new(source, None, None)?.render(&user("Hi"), true, &kwargs)
}

#[derive(Deserialize)]
struct Case {
    template: String,
    bos: String,
    eos: String,
    date: Option<i64>,
    add_generation_prompt: bool,
    kwargs: Map<String, Value>,
    messages: Vec<Message>,
    expected: Option<String>,
    raises: Option<String>,
}

#[test]
fn prompts_are_those_of_pythons_jinja2() {
    let cases: Vec<Case> = serde_json::from_str(&fixture("cases.json")).unwrap();
    assert!(cases.len() > 20);
    for (index, case) in cases.iter().enumerate() {
        let label = format!("case {index}, {}", case.template);
        let mut template = if case.template == "smollm2" {
            ChatTemplate::from_gguf(&METADATA, &TOKENIZER).unwrap()
        } else {
            let source = fixture(&format!("{}.jinja", case.template));
            ChatTemplate::new(&source, Some(&case.bos), Some(&case.eos)).unwrap()
        };
        if let Some(unix_s) = case.date {
            template = template.with_date(unix_s);
        }
        let prompt = template.render(&case.messages, case.add_generation_prompt, &case.kwargs);
        match (&case.expected, &case.raises) {
            (Some(expected), _) => assert_eq!(&prompt.unwrap(), expected, "{label}"),
            (None, raises) => {
                let error = prompt.unwrap_err();
                assert!(error.is_client_fault(), "{label}: {error}");
                assert_eq!(Some(error.to_string()), *raises, "{label}");
            }
        }
    }
}

#[test]
fn a_prompt_encodes_to_the_models_control_tokens() {
    let template = ChatTemplate::from_gguf(&METADATA, &TOKENIZER).unwrap();
    let conversation =
        messages(json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]));
    let prompt = template.render(&conversation, true, &Map::new()).unwrap();
    let ids = TOKENIZER.encode(&prompt, false, true).unwrap();
    assert_eq!(
        ids.iter().filter(|id| TOKENIZER.is_special(**id)).copied().collect::<Vec<_>>(),
        [1, 2, 1, 2, 1]
    );
}

#[test]
fn a_broken_template_is_not_the_clients_fault() {
    let syntax = ChatTemplate::new("{% if %}", None, None).unwrap_err();
    assert!(matches!(syntax, TemplateError::Syntax(_)) && !syntax.is_client_fault());
    for source in
        ["{{ messages[0].nothing.at_all }}", "{{ unknown_function() }}", "{{ 'a' | unknown_filter }}"]
    {
        match render(source, json!({})) {
            Err(error @ TemplateError::Broken(_)) => assert!(!error.is_client_fault()),
            Err(TemplateError::Syntax(_)) => {}
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn what_a_sound_template_cannot_take_is_the_clients_fault() {
    let call = json!({"function": {"name": "f", "arguments": "no JSON"}});
    let called =
        messages(json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]));
    let each_argument =
        "{% for call in messages[-1].tool_calls %}{{ call.function.arguments.items() }}{% endfor %}";
    let tools = fixture("tools.jinja");
    let kwargs = |value: Value| value.as_object().cloned().unwrap();
    for (source, messages, kwargs) in [
        (tools.as_str(), user("Hi"), kwargs(json!({"tools": 5}))),
        ("{{ 'a' + mode }}{{ messages[0].content }}", user("Hi"), kwargs(json!({"mode": 1}))),
        (each_argument, called, Map::new()),
    ] {
        let template = ChatTemplate::new(source, None, None).unwrap();
        let error = template.render(&messages, true, &kwargs).unwrap_err();
        // The second fails on plain messages, too: without `mode` there is nothing to add.
        let fails_always = source.contains("mode");
        assert_eq!(matches!(error, TemplateError::Unfit(_)), !fails_always, "{source}: {error:?}");
        assert_eq!(error.is_client_fault(), !fails_always, "{source}: {error}");
    }
}

#[test]
fn a_date_is_that_of_the_rendering() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let source = "{{ strftime_now('%d %b %Y') }}";
    let template = ChatTemplate::new(source, None, None).unwrap().with_clock(|| NOW.load(Ordering::Relaxed));
    let date = || template.render(&user("Hi"), true, &Map::new()).unwrap();
    assert_eq!(date(), "01 Jan 1970");
    NOW.store(86_400, Ordering::Relaxed);
    assert_eq!(date(), "02 Jan 1970");
}

#[test]
fn a_raised_exception_is_found_below_other_errors() {
    let source = "{% macro check() %}{{ raise_exception('not ' ~ messages[0].content) }}{% endmacro %}\
        {% for message in messages %}{{ check() }}{% endfor %}";
    let error = render(source, json!({})).unwrap_err();
    assert!(matches!(&error, TemplateError::Raised(text) if text == "not Hi"), "{error:?}");
}

#[test]
fn names_that_the_request_decides_cannot_be_set_by_kwargs() {
    for name in ["messages", "add_generation_prompt", "bos_token", "raise_exception", "namespace"] {
        let error = render(CHATML, json!({name: "x"})).unwrap_err();
        assert!(matches!(&error, TemplateError::Reserved(refused) if refused == name), "{error}");
        assert!(error.is_client_fault());
    }
}

#[test]
fn an_endless_rendering_is_cut_short() {
    let source = "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}{% endfor %}{% endfor %}";
    assert!(matches!(render(source, json!({})), Err(TemplateError::OutOfFuel)));
}

#[test]
fn an_indent_is_bounded_however_deep_it_goes() {
    let nested = "{{ deep | tojson(indent=16) }}";
    let deep = (0..100).fold(json!(0), |inner, _| json!([inner]));
    let text = render(nested, json!({ "deep": deep })).expect("renders");
    assert!(text.contains(&format!("\n{}0\n", " ".repeat(1600))), "{text}");
    for source in ["{{ messages | tojson(indent=70000) }}", "{{ messages | tojson(indent=9999999999) }}"] {
        let error = render(source, json!({})).expect_err("refused").to_string();
        assert!(error.contains("tojson indents by at most 16"), "{error}");
    }
}

#[test]
fn a_thousand_turns_stay_within_the_fuel() {
    let turns = (0..2000).map(|turn| {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        json!({"role": role, "content": "<think>a</think> b"})
    });
    let conversation = messages(turns.collect());
    for name in ["thinking.jinja", "tools.jinja", "alternating.jinja", "dated.jinja"] {
        let template = ChatTemplate::new(&fixture(name), Some("<s>"), Some("</s>")).unwrap();
        template.render(&conversation, true, &Map::new()).unwrap();
    }
}

#[test]
fn without_a_template_a_model_is_asked_in_chatml() {
    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let mut metadata = METADATA.clone();
    metadata.remove("tokenizer.chat_template");
    let template = ChatTemplate::from_gguf(&metadata, &TOKENIZER).unwrap();
    assert_eq!(template.render(&user("Hi"), true, &Map::new()).unwrap(), prompt);
    let empty = tempfile::tempdir().unwrap();
    let template = ChatTemplate::from_dir(empty.path(), &TOKENIZER).unwrap();
    assert_eq!(template.render(&user("Hi"), true, &Map::new()).unwrap(), prompt);
}

#[test]
fn a_directorys_template_is_found_in_each_of_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let prompt = || {
        let template = ChatTemplate::from_dir(dir.path(), &TOKENIZER)?;
        template.render(&user("Hi"), false, &Map::new())
    };
    let config =
        |value: Value| fs::write(dir.path().join("tokenizer_config.json"), value.to_string()).unwrap();
    config(json!({"chat_template": "{{ bos_token }}text"}));
    assert_eq!(prompt().unwrap(), "<|im_start|>text");
    config(
        json!({"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default", "template": "listed"}]}),
    );
    assert_eq!(prompt().unwrap(), "listed");
    config(json!({"chat_template": [{"name": "rag", "template": "rag"}]}));
    assert!(prompt().unwrap_err().to_string().contains("`default`"));
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(prompt().unwrap(), "file");
}

#[test]
fn dates_are_those_of_the_gregorian_calendar() {
    let all = "%Y %y %m %d %e %j %H %I %M %S %p %B %b %A %a %F %T %%";
    // Checked with Python's `datetime.fromtimestamp(s, timezone.utc).strftime`.
    let known = [
        (0, "1970 70 01 01  1 001 00 12 00 00 AM January Jan Thursday Thu 1970-01-01 00:00:00 %"),
        (951_782_400, "2000 00 02 29 29 060 00 12 00 00 AM February Feb Tuesday Tue 2000-02-29 00:00:00 %"),
        (1_735_689_599, "2024 24 12 31 31 366 23 11 59 59 PM December Dec Tuesday Tue 2024-12-31 23:59:59 %"),
        (-1, "1969 69 12 31 31 365 23 11 59 59 PM December Dec Wednesday Wed 1969-12-31 23:59:59 %"),
        (4_107_542_400, "2100 00 03 01  1 060 00 12 00 00 AM March Mar Monday Mon 2100-03-01 00:00:00 %"),
    ];
    for (unix_s, expected) in known {
        assert_eq!(date::strftime(unix_s, all).unwrap(), expected);
    }
    assert_eq!(date::strftime(0, "%Q"), Err("Q".to_owned()));
}
