//! From bytes to a typed request, with the path of the field at fault.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{ApiError, ErrorCode};

/// Parses a JSON body. A syntax error blames no field; a wrong type or a missing field names its path in `param`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Parsing looks only at the strings that it keeps, so two parsers of one body could disagree about the rest.
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("the body is not valid UTF-8: {error}"))
    })?;
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidRequest, message);
    let not_json = |error: &serde_json::Error| invalid(format!("the body is not valid JSON: {error}"));
    // Derived parsing takes a list for an object, too.
    let is_object = text.trim_start().starts_with('{');
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize(&mut deserializer) {
        Err(error) if !error.inner().is_data() => Err(not_json(error.inner())),
        _ if !is_object => Err(invalid("the body must be a JSON object".into())),
        Err(error) => Err(blame(&error)),
        Ok(value) => deserializer.end().map(|()| value).map_err(|error| not_json(&error)),
    }
}

/// Some of the fields of a body that was parsed before, with the errors that [`parse_json`] would have given.
pub fn parse_fields<'a, T: Deserialize<'a>>(fields: &'a Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(fields).map_err(|error| blame(&error))
}

/// Says what is wrong and where, the field with it where it is known.
fn blame(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = Some(error.path().to_string()).filter(|path| path != ".");
    let text = without_position(&error.inner().to_string());
    match (path, field_in(&text).map(str::to_owned)) {
        (None, Some(field)) => ApiError::invalid(field, text),
        (Some(path), Some(field)) => ApiError::invalid(format!("{path}.{field}"), text),
        (Some(path), None) => ApiError::invalid(&path, format!("`{path}`: {text}")),
        (None, None) => ApiError::new(ErrorCode::InvalidRequest, text),
    }
}

/// `serde_json` appends ` at line L column C`, which says nothing to the sender of a one-line body.
fn without_position(text: &str) -> String {
    text.rfind(" at line ").map_or(text, |end| &text[..end]).to_owned()
}

/// The field that is not there, there twice, or there without being known.
fn field_in(text: &str) -> Option<&str> {
    let start = ["missing field `", "duplicate field `", "unknown field `"];
    start.iter().find_map(|start| Some(text.strip_prefix(start)?.split_once('`')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatRequest, Delivery, Generation};

    fn param_of(body: &str) -> Option<String> {
        parse_json::<ChatRequest>(body.as_bytes())
            .err()
            .or_else(|| parse_json::<Generation>(body.as_bytes()).err())
            .expect("the body is wrong")
            .param
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        assert_eq!(param_of(r#"{"model":"m"}"#).as_deref(), Some("messages"));
        assert_eq!(
            param_of(r#"{"model":"m","messages":[{"content":"x"}]}"#).as_deref(),
            Some("messages[0].role")
        );
        assert_eq!(
            param_of(r#"{"model":"m","messages":[{"role":"user","content":7}]}"#).as_deref(),
            Some("messages[0].content")
        );
        assert_eq!(
            param_of(r#"{"model":"m","messages":[],"temperature":"hot"}"#).as_deref(),
            Some("temperature")
        );
        assert_eq!(param_of(r#"{"model":"m","messages":[],"max_tokens":-1}"#).as_deref(), Some("max_tokens"));
        assert_eq!(param_of("{").as_deref(), None);
        assert_eq!(param_of("[]").as_deref(), None);
        assert_eq!(param_of(r#"{"model":"m","messages":[],"user":"a","user":"b"}"#).as_deref(), Some("user"));
        let twice = r#"{"model":"m","messages":[{"role":"user","role":"user"}]}"#;
        assert_eq!(param_of(twice).as_deref(), Some("messages[0].role"));
        assert_eq!(param_of(r#"{"model":"m","messages":[]} x"#).as_deref(), None);
    }

    #[test]
    fn what_is_wrong_with_a_field_is_said_of_the_field() {
        let said = |body: &str| parse_json::<Strict>(body.as_bytes()).expect_err("wrong").message;
        assert_eq!(said(r#"{"a":1,"a":2}"#), "duplicate field `a`");
        assert_eq!(said(r#"{"b":1}"#), "unknown field `b`, expected `a`");
        assert_eq!(said("7"), "the body must be a JSON object");
        assert_eq!(said("[1"), "the body is not valid JSON: EOF while parsing a list at line 1 column 2");
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[expect(dead_code, reason = "only parsed")]
        a: u32,
    }

    #[test]
    fn a_list_is_no_object() {
        let error = parse_json::<Strict>(b" [1]").expect_err("a list");
        assert_eq!((error.message.as_str(), error.param), ("the body must be a JSON object", None));
    }

    #[test]
    fn what_changes_no_answer_is_judged_alike_by_itself_and_with_the_rest() {
        for fields in [
            r#""priority":"x""#,
            r#""priority":99"#,
            r#""priority":1.0"#,
            r#""priority":3000000000"#,
            r#""user":5"#,
            r#""stream":1"#,
            r#""stream_options":{}"#,
            r#""stream":true,"stream_options":7"#,
            r#""stream":true,"stream_options":[true]"#,
            r#""stream":true,"stream_options":{"include_usage":1}"#,
            r#""stream":true,"stream_options":{"x":1},"priority":-10,"user":"u""#,
            r#""stream":null,"stream_options":null,"priority":null,"user":null"#,
        ] {
            let body = format!(r#"{{"model":"m",{fields}}}"#);
            let whole =
                parse_json::<Generation>(body.as_bytes()).and_then(|generation| generation.validate());
            let fields = parse_json::<Map<String, Value>>(body.as_bytes()).expect("an object");
            let part = parse_fields::<Delivery>(&fields).and_then(|delivery| delivery.validate());
            assert_eq!(part, whole, "{body}");
        }
    }
}
