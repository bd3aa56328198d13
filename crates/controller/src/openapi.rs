//! The description of the API, for machines.

use serde_json::{Value, json};

/// OpenAPI 3.1.
pub(crate) fn document() -> Value {
    let json_of = |schema: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    let answer = |what: &str, schema: &str| json!({"description": what, "content": json_of(schema)});
    let error = answer("What was wrong, and what to do.", "Error");
    let model = json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let list = |what: &str, schema: &str| {
        let items = json!({"$ref": format!("#/components/schemas/{schema}")});
        json!({"description": what, "content": {"application/json": {"schema": {"type": "array", "items": items}}}})
    };
    let command = |name: &str, what: &str| {
        let operation = json!({
            "operationId": name, "summary": what, "parameters": model,
            "responses": {"200": answer("How it stands now.", "Status"), "default": error},
        });
        (format!("/v1/rollouts/{{model}}/{name}"), json!({"post": operation}))
    };
    let mut paths = serde_json::Map::from_iter([
        command("promote", "Goes to the next step, whatever the evidence says."),
        command("promote-fully", "Gives the new version all users at once."),
        command("abort", "Gives the stable version all users back at once."),
        command("pause", "Moves no more users until it is resumed."),
        command("resume", "Goes on."),
    ]);
    paths.insert(
        "/v1/rollouts".into(),
        json!({
            "get": {"operationId": "list", "summary": "All models.", "responses": {"200": list("By name.", "Status")}},
            "post": {
                "operationId": "start", "summary": "Begins a rollout.",
                "requestBody": {"required": true, "content": json_of("Spec")},
                "responses": {"201": answer("It has begun.", "Status"), "default": error},
            },
        }),
    );
    paths.insert(
        "/v1/rollouts/{model}".into(),
        json!({"get": {
            "operationId": "status", "summary": "How a model's rollout stands.", "parameters": model,
            "responses": {"200": answer("Evidence, verdict, and what is waited for.", "Status"), "default": error},
        }}),
    );
    paths.insert(
        "/v1/rollouts/{model}/history".into(),
        json!({"get": {
            "operationId": "history", "summary": "Every decision, oldest first.", "parameters": model,
            "responses": {"200": list("The log.", "Record"), "default": error},
        }}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {"title": "tenk controller", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    })
}

fn schemas() -> Value {
    let object = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let (text, number, whole) =
        (json!({"type": "string"}), json!({"type": "number"}), json!({"type": "integer"}));
    let step = object(
        &["percent"],
        json!({"percent": number, "users_min": whole, "time_min_s": whole, "time_max_s": whole}),
    );
    let strategy = |kind: &str, required: &[&str], mut properties: Value| {
        properties["kind"] = json!({"const": kind});
        object(&[required, &["kind"]].concat(), properties)
    };
    let timed = json!({"percent": number, "duration_s": whole});
    let quality = object(&[], json!({"margin_nats": number, "samples_per_s": number, "tokens_max": whole}));
    let judge = object(
        &[],
        json!({
            "false_alarm": number, "margin": number, "tolerance": number, "error_margin": number,
            "answer_margin": number, "error_guard": number, "quality": quality,
        }),
    );
    let spec = object(
        &["model", "to"],
        json!({
            "model": text, "to": text, "judge": judge, "drain_s": whole,
            "strategy": {"oneOf": [
                strategy("canary", &["steps"], json!({"steps": {"type": "array", "items": step}})),
                strategy("blue_green", &["keep_s"], json!({"keep_s": whole})),
                strategy("shadow", &["percent", "duration_s"], timed.clone()),
                strategy("ab", &["percent", "duration_s"], timed),
            ]},
            "warm": object(&[], json!({"prompts_min": whole, "settled_within": number, "timeout_s": whole})),
            "capacity": object(&[], json!({"usage_max": number})),
        }),
    );
    let free = json!({"type": "object"});
    json!({
        "Spec": spec,
        "Status": object(
            &["model", "stable", "percent", "reason", "warm_prompts", "at_ms"],
            json!({
                "model": text, "stable": text, "percent": number, "rollout": free, "reason": text,
                "assessment": free, "warm_prompts": whole, "at_ms": whole,
            }),
        ),
        "Record": object(
            &["seq", "epoch", "at_ms", "action", "reason"],
            json!({
                "seq": whole, "epoch": whole, "at_ms": whole, "action": text, "model": text, "reason": text,
                "stable": text, "rollout": free, "assessment": free,
            }),
        ),
        "Error": object(&["error"], json!({"error": object(&["message"], json!({"message": text}))})),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rollout::{JudgeSpec, QualitySpec, Spec};

    use super::*;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
    }

    #[test]
    fn what_is_described_is_what_is_read_and_said() {
        let document = document();
        let described =
            |path: &str| keys(document.pointer(&format!("/components/schemas/{path}/properties")).unwrap());
        let judge = JudgeSpec { quality: Some(QualitySpec::default()), ..JudgeSpec::default() };
        let spec = serde_json::to_value(Spec { judge, ..Spec::new("m", "2") }).unwrap();
        assert_eq!(described("Spec"), keys(&spec));
        assert_eq!(described("Spec/properties/judge"), keys(&spec["judge"]));
        assert_eq!(described("Spec/properties/judge/properties/quality"), keys(&spec["judge"]["quality"]));
        assert_eq!(described("Spec/properties/warm"), keys(&spec["warm"]));
        let step = "Spec/properties/strategy/oneOf/0/properties/steps/items";
        assert_eq!(described(step), keys(&spec["strategy"]["steps"][0]));
        let status = serde_json::to_value(crate::Status::default()).unwrap();
        assert!(described("Status").is_superset(&keys(&status)));
    }
}
