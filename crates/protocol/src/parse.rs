//! From bytes to a typed request, with the path of the field at fault.

use serde::de::DeserializeOwned;

use crate::{ApiError, ErrorCode};

/// Parses a JSON body. A syntax error blames no field; a wrong type or a missing field names its path in `param`.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Parsing looks only at the strings that it keeps, so two parsers of one body could disagree about the rest.
    let text = std::str::from_utf8(body).map_err(|error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("the body is not valid UTF-8: {error}"))
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return ApiError::new(ErrorCode::InvalidRequest, format!("the body is not valid JSON: {inner}"));
        }
        let text = without_position(&inner.to_string());
        match (missing_field(&text).map(str::to_owned), path.as_str()) {
            (Some(field), ".") => ApiError::invalid(field, text),
            (Some(field), path) => ApiError::invalid(format!("{path}.{field}"), text),
            (None, ".") => {
                ApiError::new(ErrorCode::InvalidRequest, format!("the body must be an object: {text}"))
            }
            (None, path) => ApiError::invalid(path, format!("`{path}`: {text}")),
        }
    })?;
    deserializer.end().map_err(|error| {
        ApiError::new(ErrorCode::InvalidRequest, format!("the body is not valid JSON: {error}"))
    })?;
    Ok(value)
}

/// `serde_json` appends ` at line L column C`, which says nothing to the sender of a one-line body.
fn without_position(text: &str) -> String {
    text.rfind(" at line ").map_or(text, |end| &text[..end]).to_owned()
}

fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatRequest, Generation};

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
        assert_eq!(param_of(r#"{"model":"m","messages":[]} x"#).as_deref(), None);
    }
}
