use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key(body: &Value) -> CacheKey {
    CacheKey::new(&KeyParts { model_version: "v1", tenant: "acme", endpoint: Endpoint::Chat, body })
}

fn key_of(text: &str) -> CacheKey {
    key(&serde_json::from_str(text).expect("valid JSON"))
}

/// A JSON value with its own way of being written: order of members, white space, form of numbers.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Sixty-fourths, for they survive being written and read whatever the parser's last digit.
        (-100_000_i32..100_000).prop_map(|parts| Value::from(f64::from(parts) / 64.0)),
        (-1000_i32..1000).prop_map(|whole| Value::from(f64::from(whole))),
        "[ -~é\u{0}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-e]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Map<String, Value>> {
    let fields = prop::collection::btree_map(
        "(temperature|top_p|seed|n|stop|prompt|tools|[a-c]{1,2})",
        any_value(),
        0..6,
    );
    let messages =
        prop::collection::vec(prop::collection::btree_map("(role|content|name)", any_value(), 0..3), 0..3);
    (fields, messages).prop_map(|(fields, messages)| {
        let mut request: Map<String, Value> = fields.into_iter().collect();
        request.insert("messages".to_owned(), json!(messages));
        request
    })
}

/// Writes a value with its members turned around, white space between, and nulls where they mean nothing.
fn write_otherwise(value: &Value, nulls: bool, text: &mut String) {
    match value {
        Value::Object(members) => {
            text.push_str("{ ");
            let mut first = true;
            for (name, value) in members.iter().rev() {
                if !std::mem::take(&mut first) {
                    text.push_str(" ,\n");
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push_str("\t: ");
                if name == "messages" && nulls {
                    text.push('[');
                    for (at, message) in value.as_array().expect("a list").iter().enumerate() {
                        if at > 0 {
                            text.push(',');
                        }
                        write_otherwise(message, true, text);
                    }
                    text.push(']');
                } else {
                    write_otherwise(value, false, text);
                }
            }
            if nulls {
                text.push_str(if first { "\"zzz\":null" } else { ",\"zzz\":null" });
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { " , " } else { "" });
                write_otherwise(item, false, text);
            }
            text.push(']');
        }
        Value::Number(number) if number.is_i64() && number.as_i64().is_some_and(|n| n.abs() < 1 << 50) => {
            text.push_str(&format!("{number}.0"));
        }
        other => text.push_str(&other.to_string()),
    }
}

/// Equality as the key understands it.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (exact_integer(left), exact_integer(right)) {
            (None, None) => left.as_f64() == right.as_f64(),
            (left, right) => left == right,
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        (left, right) => left == right,
    }
}

proptest! {
    #[test]
    fn order_white_space_nulls_and_the_writing_of_numbers_do_not_change_the_key(request in any_request()) {
        let request = Value::Object(request);
        let mut otherwise = String::new();
        write_otherwise(&request, true, &mut otherwise);
        prop_assert_eq!(key(&request), key_of(&otherwise), "{}", otherwise);
    }

    #[test]
    fn any_field_that_changes_the_answer_changes_the_key(
        request in any_request(), name in "[a-z_]{1,12}", old in any_value(), new in any_value(),
    ) {
        prop_assume!(!LEFT_OUT.contains(&name.as_str()) && name != "messages");
        let with = |value: &Value| {
            let mut request = request.clone();
            request.insert(name.clone(), value.clone());
            key(&Value::Object(request))
        };
        prop_assert_eq!(with(&old) == with(&new), same(&old, &new));
    }

    #[test]
    fn fields_that_do_not_change_the_answer_do_not_change_the_key(
        request in any_request(), which in prop::sample::select(LEFT_OUT), value in any_value(),
    ) {
        let before = key(&Value::Object(request.clone()));
        let mut request = request;
        request.insert(which.to_owned(), value);
        prop_assert_eq!(before, key(&Value::Object(request)));
    }

    #[test]
    fn tenants_versions_and_endpoints_never_share(
        left in ("[ab]{0,3}", "[ab]{0,3}", any::<bool>()), right in ("[ab]{0,3}", "[ab]{0,3}", any::<bool>()),
    ) {
        let body = json!({"prompt": "x"});
        let key = |(model_version, tenant, chat): &(String, String, bool)| {
            let endpoint = if *chat { Endpoint::Chat } else { Endpoint::Completion };
            CacheKey::new(&KeyParts { model_version, tenant, endpoint, body: &body })
        };
        prop_assert_eq!(key(&left) == key(&right), left == right);
    }
}

#[test]
fn numbers_are_told_apart_by_value_not_by_writing() {
    let same = |left: &str, right: &str| {
        key_of(&format!(r#"{{"x":{left}}}"#)) == key_of(&format!(r#"{{"x":{right}}}"#))
    };
    assert!(
        same("1", "1.0") && same("1", "1e0") && same("100", "1E2") && same("0", "-0.0") && same("-3", "-3.0")
    );
    assert!(same("9007199254740992", "9007199254740992.0"));
    assert!(!same("1", "\"1\"") && !same("0", "false") && !same("0.1", "0.2") && !same("1", "-1"));
    assert!(!same("9007199254740992", "9007199254740993"));
    assert!(!same("18446744073709551615", "18446744073709551616"));
    // 2^63 prints as 9.223372036854776e18, which is another integer's name.
    assert!(!same("9223372036854775808.0", "9223372036854776000"));
}

/// With arbitrary precision, which another crate could switch on for the whole build, numbers would be texts and the
/// argument that they are never merged would need another look.
#[test]
fn the_json_library_holds_numbers_as_machine_numbers() {
    assert!(serde_json::from_str::<Value>("1e400").is_err());
}

#[test]
fn deep_nulls_and_message_order_are_kept() {
    assert_ne!(
        key_of(r#"{"chat_template_kwargs":{"x":null}}"#),
        key_of(r#"{"chat_template_kwargs":{}}"#),
        "a template can tell them apart"
    );
    assert_ne!(
        key_of(r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#),
        key_of(r#"{"messages":[{"role":"user","content":"b"},{"role":"user","content":"a"}]}"#)
    );
    assert_eq!(
        key_of(r#"{"messages":[{"role":"assistant","content":null}]}"#),
        key_of(r#"{"messages":[{"role":"assistant"}]}"#)
    );
}

#[test]
fn a_key_is_pinned_so_that_gateways_of_one_version_agree() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0});
    assert_eq!(key(&body).to_string(), "a030ccbea1881bae5e67ce37905a983c398fbc398fdf503d110945122edf3f4b");
}

#[test]
fn only_greedy_or_seeded_requests_are_deterministic() {
    for body in [
        json!({"temperature": 0}),
        json!({"temperature": 0.0}),
        json!({"seed": 7}),
        json!({"seed": -7, "temperature": 1}),
    ] {
        assert!(is_deterministic(&body), "{body}");
    }
    for body in [
        json!({}),
        json!({"temperature": null}),
        json!({"temperature": 0.7}),
        json!({"temperature": "0"}),
        json!({"seed": null}),
        json!({"seed": 1.5}),
        json!({"seed": "7"}),
        json!([0]),
    ] {
        assert!(!is_deterministic(&body), "{body}");
    }
}
