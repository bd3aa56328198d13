//! From a body to a call, parsed once; and from a call to what a worker gets, touched only where it must be.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_server::Body;
use protocol::{
    ApiError, Delivery, ErrorCode, Message, PrefixDigest, Prompt, chat_digests, headers, prompt_digests,
};
use routing::StickyKey;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{CacheDirective, Call, Endpoint, Trail};
use crate::layers::authenticate::Tenant;

/// What is known before the body.
pub(crate) struct Parts {
    pub(crate) endpoint: Endpoint,
    pub(crate) headers: HeaderMap,
    pub(crate) tenant: Tenant,
    pub(crate) request_id: Arc<str>,
    pub(crate) trail: Arc<Trail>,
}

/// Checks as much as routing needs, and what the cache does not ask about; the rest is the worker's to check.
pub(crate) fn parse(parts: Parts, body: Body) -> Result<Call, ApiError> {
    let fields: Map<String, Value> = protocol::parse_json(&body)?;
    let generates = parts.endpoint.generates();
    let model = match fields.get("model") {
        Some(Value::String(model)) => model.as_str(),
        None | Some(Value::Null) if !generates => "",
        None | Some(Value::Null) => return Err(ApiError::invalid("model", "missing field `model`")),
        Some(_) => return Err(ApiError::invalid("model", "`model` must be a string")),
    };
    let delivery: Delivery = if generates { protocol::parse_fields(&fields)? } else { Delivery::default() };
    delivery.validate()?;
    if let Some(priority) = delivery.priority.filter(|priority| *priority < parts.tenant.priority_min) {
        let least = parts.tenant.priority_min;
        let message =
            format!("`priority` is {priority}, but this key may ask for {least} and above; lower goes first");
        return Err(ApiError::invalid("priority", message));
    }
    Ok(Call {
        endpoint: parts.endpoint,
        request_id: parts.request_id,
        body,
        model: Arc::from(model),
        stream: delivery.stream == Some(true),
        include_usage: delivery.stream_options.and_then(|options| options.include_usage) == Some(true),
        directive: directive_of(&parts.headers),
        sticky: sticky_of(&parts.headers, &fields),
        wanted_version: version_of(&parts.headers)?,
        is_copy: false,
        version: None,
        step: None,
        pool: None,
        tenant: parts.tenant,
        trail: parts.trail,
        json: Arc::new(Value::Object(fields)),
    })
}

/// What a worker is sent, and what is known of its prompt.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) body: Bytes,
    pub(crate) digests: Vec<PrefixDigest>,
}

impl Outgoing {
    pub(crate) fn of(call: &Call) -> Self {
        match &*call.json {
            Value::Object(fields) if call.endpoint.generates() => Self {
                body: for_worker(&call.body, fields, call.stream, &call.tenant.salt),
                digests: digests_of(call.endpoint, fields, &call.tenant.salt),
            },
            _ => Self { body: (*call.body).clone(), digests: Vec::new() },
        }
    }
}

/// The client's bytes with our two fields put in front: the tenant's salt, and the wish for token counts. Only a body
/// that already has one of them is written anew.
fn for_worker(body: &Bytes, fields: &Map<String, Value>, stream: bool, salt: &str) -> Bytes {
    if fields.contains_key("cache_salt") || (stream && fields.contains_key("stream_options")) {
        let mut fields = fields.clone();
        fields.remove("cache_salt");
        if !salt.is_empty() {
            fields.insert("cache_salt".into(), salt.into());
        }
        if stream {
            fields.entry("stream_options").or_insert(Value::Null)["include_usage"] = true.into();
        }
        return Value::Object(fields).to_string().into();
    }
    let mut front = String::from("{");
    if !salt.is_empty() {
        front.push_str(&format!("\"cache_salt\":\"{salt}\","));
    }
    if stream {
        front.push_str("\"stream_options\":{\"include_usage\":true},");
    }
    let rest = body.iter().position(|byte| *byte == b'{').map_or(&body[..], |at| &body[at + 1..]);
    if front.len() == 1 { body.clone() } else { [front.as_bytes(), rest].concat().into() }
}

fn digests_of(endpoint: Endpoint, fields: &Map<String, Value>, salt: &str) -> Vec<PrefixDigest> {
    match endpoint {
        Endpoint::Chat => {
            let messages = fields.get("messages").and_then(|value| Vec::<Message>::deserialize(value).ok());
            messages.map_or_else(Vec::new, |messages| chat_digests(salt, &messages))
        }
        Endpoint::Completions => {
            let prompt = fields.get("prompt").and_then(|value| Prompt::deserialize(value).ok());
            prompt.map_or_else(Vec::new, |prompt| prompt_digests(salt, &prompt))
        }
        Endpoint::Tokenize | Endpoint::Detokenize => Vec::new(),
    }
}

fn directive_of(headers: &HeaderMap) -> CacheDirective {
    // Lines of one name are one list.
    let has = |name: &str, word: &str| {
        let mut items = headers
            .get_all(name)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|list| list.split(','));
        items.any(|item| item.trim().eq_ignore_ascii_case(word))
    };
    if has(header::CACHE_CONTROL.as_str(), "no-store") {
        CacheDirective::NoStore
    } else if has(headers::CACHE, "force") {
        CacheDirective::Force
    } else {
        CacheDirective::Default
    }
}

fn version_of(headers: &HeaderMap) -> Result<Option<Arc<str>>, ApiError> {
    let Some(wanted) = headers.get(headers::VERSION) else { return Ok(None) };
    let name = wanted.to_str().map_err(|_| {
        ApiError::new(ErrorCode::InvalidRequest, "`x-tenk-version` must be a version's name in ASCII")
    })?;
    Ok(Some(Arc::from(name)))
}

fn sticky_of(headers: &HeaderMap, fields: &Map<String, Value>) -> StickyKey {
    let session = headers.get(headers::SESSION).and_then(|session| session.to_str().ok());
    let user = fields.get("user").and_then(Value::as_str);
    let text_of = |role: &[&str]| {
        let messages = fields.get("messages").and_then(Value::as_array)?;
        let message =
            messages.iter().find(|message| role.contains(&message["role"].as_str().unwrap_or("")))?;
        as_text(&message["content"])
    };
    let prompt = || fields.get("prompt").and_then(as_text);
    let (system, first) = (text_of(&["system", "developer"]), text_of(&["user"]).or_else(prompt));
    StickyKey::from_parts(session, user, system.as_deref(), first.as_deref())
}

/// A text as it is, and anything else, such as content in parts or a prompt in token ids, as JSON.
fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Null => None,
        other => Some(Cow::Owned(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &str, salt: &str) -> Result<Call, ApiError> {
        let parts = Parts {
            endpoint: Endpoint::Chat,
            headers: HeaderMap::new(),
            tenant: Tenant { name: Arc::from("t"), salt: Arc::from(salt), ..Tenant::nobody() },
            request_id: Arc::from("r"),
            trail: Arc::new(Trail::new(std::time::Instant::now())),
        };
        parse(parts, Bytes::copy_from_slice(body.as_bytes()).into())
    }

    fn sent(body: &str, salt: &str) -> Value {
        let outgoing = Outgoing::of(&call(body, salt).expect("parses"));
        serde_json::from_slice(&outgoing.body).expect("still JSON")
    }

    #[test]
    fn bytes_pass_through_untouched_where_nothing_has_to_be_added() {
        let body = r#" {"model":"m", "messages":[ ], "x":1.50}"#;
        assert_eq!(Outgoing::of(&call(body, "").expect("parses")).body, body.as_bytes());
    }

    #[test]
    fn the_salt_is_the_gateways_whatever_the_client_says() {
        for body in [
            r#"{"model":"m"}"#,
            r#"{"cache_salt":"mine","model":"m"}"#,
            r#"{"cache\u005fsalt":"mine","model":"m"}"#,
            r#"{"cache_salt":"mine","model":"m","cache_salt":"mine"}"#,
        ] {
            assert_eq!(sent(body, "ours")["cache_salt"], "ours");
            let outgoing = Outgoing::of(&call(body, "ours").expect("parses"));
            assert!(!outgoing.body.windows(4).any(|bytes| bytes == b"mine"), "{body}");
            assert_eq!(sent(body, "").get("cache_salt"), None);
        }
    }

    #[test]
    fn streams_are_always_asked_for_token_counts() {
        for (body, wanted) in [
            (r#"{"model":"m","stream":true}"#, false),
            (r#"{"model":"m","stream":true,"cache_salt":"mine"}"#, false),
            (r#"{"model":"m","stream":true,"stream_options":null}"#, false),
            (r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"x":1}}"#, false),
            (r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#, true),
        ] {
            assert_eq!(sent(body, "")["stream_options"]["include_usage"], true);
            assert_eq!(call(body, "").expect("parses").include_usage, wanted);
        }
        assert_eq!(sent(r#"{"model":"m"}"#, "").get("stream_options"), None);
    }

    #[test]
    fn lines_of_one_header_are_one_list() {
        let directive = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            directive_of(&headers)
        };
        assert_eq!(directive(&[]), CacheDirective::Default);
        let two =
            [("cache-control", "max-age=0"), ("x-tenk-cache", "force"), ("cache-control", "x, No-Store")];
        assert_eq!(directive(&two), CacheDirective::NoStore);
        assert_eq!(directive(&[("x-tenk-cache", "x"), ("x-tenk-cache", "force")]), CacheDirective::Force);
    }

    #[test]
    fn conversations_are_told_apart_whatever_form_their_content_has() {
        let key = |content: &str| {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#);
            call(&body, "").expect("parses").sticky
        };
        let parts = |text: &str| key(&format!(r#"[{{"type":"text","text":"{text}"}}]"#));
        assert_eq!(parts("a"), parts("a"));
        assert_ne!(parts("a"), parts("b"));
        assert_ne!(key("\"a\""), key("\"b\""));
        let prompt =
            |prompt: &str| call(&format!(r#"{{"model":"m","prompt":{prompt}}}"#), "").expect("parses").sticky;
        assert_ne!(prompt("[1,2]"), prompt("[1,3]"));
    }

    #[test]
    fn only_a_key_that_may_do_so_goes_before_others() {
        let asked = |priority_min, priority: &str| {
            let tenant = Tenant { priority_min, ..Tenant::nobody() };
            let parts = Parts {
                endpoint: Endpoint::Chat,
                headers: HeaderMap::new(),
                tenant,
                request_id: Arc::from("r"),
                trail: Arc::new(Trail::new(std::time::Instant::now())),
            };
            let body = Bytes::from(format!(r#"{{"model":"m","priority":{priority}}}"#));
            parse(parts, body.into()).map(drop)
        };
        asked(0, "0").expect("everyone's");
        asked(0, "5").expect("later than others");
        asked(-5, "-5").expect("allowed");
        let error = asked(-5, "-6").expect_err("not allowed");
        assert_eq!(error.param.as_deref(), Some("priority"));
        assert!(error.message.contains("-6") && error.message.contains("-5"), "{}", error.message);
        assert!(asked(0, "-9223372036854775808").is_err());
    }

    #[test]
    fn what_routing_needs_is_checked() {
        let param = |body| call(body, "").expect_err("wrong").param;
        assert_eq!(param(r#"{"messages":[]}"#).as_deref(), Some("model"));
        assert_eq!(param(r#"{"model":7}"#).as_deref(), Some("model"));
        assert_eq!(param(r#"{"model":"m","stream":"yes"}"#).as_deref(), Some("stream"));
        assert_eq!(param("[1]"), None);
        assert_eq!(param("{"), None);
    }
}
