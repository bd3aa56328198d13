//! A conversation to the one text that the model continues.
//!
//! Models publish a Jinja template that was written for Python's jinja2 as the `transformers` library sets it up;
//! [`ChatTemplate`] renders it to the same text. What that takes beyond Jinja itself: Python's string and list
//! methods, `raise_exception`, `strftime_now`, a `tojson` that spaces like Python's, and `{% generation %}` blocks.
//!
//! A template is the model's, its input the client's, so an error says whose fault it was
//! ([`TemplateError::is_client_fault`]), and rendering ends after a bounded number of steps.

mod date;
mod python_json;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use protocol::{Content, Message, ToolCall};

use crate::tokenizer::Tokenizer;

/// The template's instructions that one rendering may take; a conversation of 1,000 turns takes some 100,000.
pub const FUEL_MAX: u64 = 5_000_000;

/// Used for a model that brings no template: the format that most chat models can follow.
pub const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const NAME: &str = "chat_template";

/// The most spaces a level of `tojson`; templates ask for 2 or 4.
const INDENT_MAX: usize = 16;

/// What the request's own fields say, and the tokenizer; `chat_template_kwargs` may not say it otherwise.
const RESERVED: [&str; 5] = ["messages", "add_generation_prompt", "bos_token", "eos_token", "documents"];

/// What keeps a conversation from becoming a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template rejected the conversation in its own words.
    #[error("{0}")]
    Raised(String),
    /// An extra argument has a name that isn't the client's to give.
    #[error("`chat_template_kwargs` may not set `{0}`; use the request's own fields")]
    Reserved(String),
    /// The conversation takes more work than a rendering may.
    #[error("the chat template took more than {FUEL_MAX} steps; send fewer or shorter messages")]
    OutOfFuel,
    /// The template isn't valid.
    #[error("the chat template cannot be parsed: {0}")]
    Syntax(String),
    /// The template failed on this conversation, but does not on a plain one.
    #[error("the chat template cannot take what was sent: {0}")]
    Unfit(String),
    /// The template fails on a plain conversation, too.
    #[error("the chat template failed: {0}")]
    Broken(String),
    /// The file that should hold the template doesn't.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl TemplateError {
    /// Whether another conversation would do, so that the client should hear the message (400, not 500).
    pub fn is_client_fault(&self) -> bool {
        matches!(self, Self::Raised(_) | Self::Reserved(_) | Self::OutOfFuel | Self::Unfit(_))
    }
}

/// A model's chat template, ready to render. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// As the model has it; absent where [`CHATML`] stands in.
    source: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Parses `source`; `bos` and `eos` become its `bos_token` and `eos_token`.
    ///
    /// `strftime_now` stays undefined, and templates that ask for it use their built-in date, unless
    /// [`Self::with_date`] or [`Self::with_clock`] sets one.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(error.to_string()))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL_MAX));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(format_like_python);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        Ok(Self {
            environment,
            source: Some(source.to_owned()),
            bos: bos.map(str::to_owned),
            eos: eos.map(str::to_owned),
        })
    }

    /// The template in a GGUF file's metadata, else [`CHATML`].
    pub fn from_gguf(
        metadata: &HashMap<String, gguf_file::Value>,
        tokenizer: &Tokenizer,
    ) -> Result<Self, TemplateError> {
        match metadata.get("tokenizer.chat_template") {
            Some(gguf_file::Value::String(source)) => Self::for_tokenizer(source, tokenizer),
            _ => Self::chatml(tokenizer),
        }
    }

    /// The template in a directory of Hugging Face files, else [`CHATML`]: `chat_template.jinja`, or
    /// `tokenizer_config.json`'s `chat_template`, where that of name `default` is taken from a list.
    pub fn from_dir(dir: &Path, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        if let Some(source) = read(&dir.join("chat_template.jinja"))? {
            return Self::for_tokenizer(&source, tokenizer);
        }
        let path = dir.join("tokenizer_config.json");
        let config: serde_json::Value = match read(&path)? {
            None => serde_json::Value::Null,
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| TemplateError::File { path: path.clone(), reason: error.to_string() })?,
        };
        let source = match &config["chat_template"] {
            serde_json::Value::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default");
                default.and_then(|entry| entry["template"].as_str()).ok_or_else(|| TemplateError::File {
                    path,
                    reason: "none of its chat templates is named `default`".to_owned(),
                })?
            }
            serde_json::Value::String(source) => source,
            _ => return Self::chatml(tokenizer),
        };
        Self::for_tokenizer(source, tokenizer)
    }

    fn for_tokenizer(source: &str, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        Self::new(source, text(tokenizer.bos()).as_deref(), text(tokenizer.eos()).as_deref())
    }

    fn chatml(tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        Ok(Self { source: None, ..Self::for_tokenizer(CHATML, tokenizer)? })
    }

    /// The template's text as the model brings it; None where it brings none, and [`CHATML`] stands in.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// Defines `strftime_now`, which gives the date and time of `unix_s` (seconds since 1970, UTC) in every rendering.
    #[must_use]
    pub fn with_date(self, unix_s: i64) -> Self {
        self.with_clock(move || unix_s)
    }

    /// Defines `strftime_now`, which gives the date and time that `clock` (seconds since 1970, UTC) says when it is
    /// called. The clock is passed in, since only a process's rim reads one.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.environment.add_function("strftime_now", move |format: &str| {
            date::strftime(clock(), format).map_err(|directive| {
                Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{directive}"))
            })
        });
        self
    }

    /// The prompt for a conversation, with the start of an answer at its end if `add_generation_prompt`.
    ///
    /// Templates see each message with its content as one text ([`Message::text`]), `developer` as `system`, and the
    /// arguments of tool calls parsed where they are JSON. `kwargs` are further variables (`enable_thinking`,
    /// `tools`, …). The prompt has its special tokens written out: encode it with `parse_special` and without
    /// `add_special`.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        kwargs: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let is_reserved = |name: &&String| {
            RESERVED.contains(&name.as_str()) || self.environment.globals().any(|(known, _)| known == *name)
        };
        if let Some(name) = kwargs.keys().find(is_reserved) {
            return Err(TemplateError::Reserved(name.clone()));
        }
        self.fill_in(messages, add_generation_prompt, kwargs).map_err(|error| match error {
            TemplateError::Broken(reason) if self.takes_plain_text() => TemplateError::Unfit(reason),
            error => error,
        })
    }

    /// Whether the template is sound as far as can be told, so that what it fails on is what was sent.
    fn takes_plain_text(&self) -> bool {
        let content = Some(Content::Text("Hello".to_owned()));
        let message =
            Message { role: "user".to_owned(), content, name: None, tool_calls: None, tool_call_id: None };
        let filled = self.fill_in(&[message], true, &serde_json::Map::new());
        matches!(filled, Ok(_) | Err(TemplateError::Raised(_)))
    }

    fn fill_in(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        kwargs: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        // As transformers does, so that a template may ask `tools is not none`.
        let absent = ["tools", "documents"].map(|name| (name, Value::from(())));
        let mut context: BTreeMap<&str, Value> = absent.into_iter().collect();
        context.extend(kwargs.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        context.insert("messages", messages.iter().map(seen_by_template).collect());
        context.insert("add_generation_prompt", add_generation_prompt.into());
        for (name, token) in [("bos_token", &self.bos), ("eos_token", &self.eos)] {
            if let Some(token) = token {
                context.insert(name, token.as_str().into());
            }
        }
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        template.render(context).map_err(|error| failure(&error))
    }
}

fn read(path: &Path) -> Result<Option<String>, TemplateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(None),
        Err(error) => Err(TemplateError::File { path: path.to_owned(), reason: error.to_string() }),
    }
}

/// The text that a template passed to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
}

fn failure(error: &Error) -> TemplateError {
    let mut cause = Some(error as &(dyn std::error::Error + 'static));
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        if current.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::OutOfFuel;
        }
        cause = current.source();
    }
    TemplateError::Broken(error.to_string())
}

fn seen_by_template(message: &Message) -> Value {
    let role = if message.role == "developer" { "system" } else { &message.role };
    let mut fields: BTreeMap<&str, Value> =
        BTreeMap::from([("role", Value::from(role)), ("content", message.text().into())]);
    let name = message.name.as_ref().map(|name| ("name", Value::from(name.as_str())));
    let call_id = message.tool_call_id.as_ref().map(|id| ("tool_call_id", Value::from(id.as_str())));
    let calls =
        message.tool_calls.as_deref().map(|calls| ("tool_calls", Value::from(Serde(parsed_calls(calls)))));
    fields.extend([name, call_id, calls].into_iter().flatten());
    Value::from_pairs(fields)
}

/// OpenAI sends a call's arguments as JSON in a string; templates expect what it says.
fn parsed_calls(calls: &[ToolCall]) -> serde_json::Value {
    let mut calls = serde_json::json!(calls);
    for call in calls.as_array_mut().into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        if let Some(parsed) = parsed.filter(serde_json::Value::is_object) {
            *arguments = parsed;
        }
    }
    calls
}

fn format_like_python(
    out: &mut minijinja::Output<'_>,
    state: &mut minijinja::State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_none() {
        return out.write_str("None").map_err(Error::from);
    }
    match bool::try_from(value.clone()) {
        Ok(true) if value.kind() == ValueKind::Bool => out.write_str("True").map_err(Error::from),
        Ok(false) if value.kind() == ValueKind::Bool => out.write_str("False").map_err(Error::from),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// transformers' `tojson`: no HTML escapes, and spaces after commas and colons.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let ascii = options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        let message = format!("tojson indents by at most {INDENT_MAX}");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    python_json::to_string(value, indent, ascii.unwrap_or(false))
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "tojson failed").with_source(error))
}

/// `{% generation %}` marks an answer for training and prints nothing; a condition that holds does as much.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(length);
        out.push_str(before);
        let word = tag.trim_matches(['{', '}', '%', '-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests;
