use serde_json::json;

use super::*;

fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 259, "max_position_embeddings": 256,
    })
}

/// [`llama`] with some keys otherwise.
fn from_json(changes: Value) -> Result<ModelConfig, EngineError> {
    let mut config = llama();
    for (key, value) in changes.as_object().expect("keys") {
        config[key] = value.clone();
    }
    ModelConfig::from_json(&config)
}

/// The same shape in GGUF's words, with more keys under `llama.`.
fn from_gguf(changes: &[(&str, GgufValue)]) -> Result<ModelConfig, EngineError> {
    let count = GgufValue::U32;
    let mut metadata: HashMap<String, GgufValue> = [
        ("general.architecture", GgufValue::String("llama".into())),
        ("llama.embedding_length", count(64)),
        ("llama.feed_forward_length", count(128)),
        ("llama.block_count", count(2)),
        ("llama.attention.head_count", count(4)),
        ("llama.context_length", count(256)),
        ("llama.vocab_size", count(259)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    metadata.extend(changes.iter().map(|(key, value)| (format!("llama.{key}"), value.clone())));
    ModelConfig::from_gguf(&metadata)
}

#[test]
fn what_metadata_leaves_out_has_the_familys_default() {
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        num_layers: 2,
        hidden_size: 64,
        intermediate_size: 128,
        num_heads: 4,
        num_kv_heads: 4,
        head_dim: 16,
        vocab_size: 259,
        context_len: 256,
        rope_theta: 10_000.0,
        rope_scaling: None,
        rms_norm_eps: 1e-6,
        tied_embeddings: None,
    };
    assert_eq!(from_json(json!({})).expect("sound"), expected);
    let nulls = json!({ "head_dim": null, "rope_scaling": null, "num_key_value_heads": null, "sliding_window": null });
    assert_eq!(from_json(nulls).expect("sound"), expected);
    assert_eq!(from_gguf(&[]).expect("sound"), ModelConfig { rms_norm_eps: 1e-5, ..expected });
}

#[test]
fn a_mistral_whose_attention_is_a_window_has_the_window_as_its_context() {
    let context_len = |architecture: &str, window: Value| {
        let config =
            json!({ "model_type": architecture, "sliding_window": window, "use_sliding_window": false });
        from_json(config).expect("sound").context_len
    };
    assert_eq!(context_len("mistral", json!(128)), 128);
    assert_eq!(context_len("mistral", json!(4096)), 256);
    assert_eq!(context_len("mistral", json!(null)), 256);
    assert_eq!(context_len("qwen2", json!(128)), 256, "a window that is not used");
    let window = |window| from_gguf(&[("attention.sliding_window", GgufValue::U32(window))]).expect("sound");
    assert_eq!((window(128).context_len, window(0).context_len), (128, 256));
}

#[test]
fn rotary_settings_are_read_where_old_and_new_configs_have_them() {
    let scaling = json!({
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
        "original_max_position_embeddings": 64,
    });
    let llama3 = Some(RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context_len: 64.0,
    });
    let old = from_json(json!({ "rope_theta": 5e5, "rope_scaling": scaling })).expect("sound");
    let new = from_json(json!({ "rope_parameters": scaling })).expect("sound");
    assert_eq!((old.rope_theta, old.rope_scaling), (5e5, llama3));
    assert_eq!(old, new);
    let plain = from_json(json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 1e6 } }));
    assert_eq!(plain.map(|config| (config.rope_theta, config.rope_scaling)).expect("sound"), (1e6, None));

    let linear = Some(RopeScaling::Linear { factor: 2.0 });
    let old = from_json(json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } })).expect("sound");
    let kind = ("rope.scaling.type", GgufValue::String("linear".into()));
    let gguf = from_gguf(&[kind, ("rope.scaling.factor", GgufValue::F32(2.0))]).expect("sound");
    assert_eq!((old.rope_scaling, gguf.rope_scaling), (linear, linear));
}

#[test]
fn counts_in_gguf_may_be_integers_of_any_width() {
    for two in [
        GgufValue::U8(2),
        GgufValue::I8(2),
        GgufValue::U16(2),
        GgufValue::I16(2),
        GgufValue::U32(2),
        GgufValue::I32(2),
        GgufValue::U64(2),
        GgufValue::I64(2),
    ] {
        assert_eq!(from_gguf(&[("attention.head_count_kv", two)]).expect("sound").num_kv_heads, 2);
    }
}

#[test]
fn gguf_metadata_that_cannot_be_computed_is_refused_by_its_key() {
    let text = |text: &str| GgufValue::String(text.into());
    for (key, value, part) in [
        ("attention.head_count_kv", GgufValue::I32(-1), "`llama.attention.head_count_kv` is I32(-1)"),
        ("attention.head_count_kv", GgufValue::Bool(true), "must be a whole number"),
        ("attention.head_count_kv", GgufValue::Array(vec![GgufValue::U32(2)]), "must be a whole number"),
        ("attention.head_count", GgufValue::U32(0), "0 heads"),
        ("attention.key_length", GgufValue::U32(0), "0 numbers in a head"),
        ("attention.value_length", GgufValue::U32(8), "`llama.attention.value_length` is 8"),
        ("rope.dimension_count", GgufValue::U32(8), "`llama.rope.dimension_count` is 8"),
        ("rope.freq_base", text("1e4"), "must be a number"),
        ("rope.freq_base", GgufValue::F32(f32::NAN), "rotary base"),
        ("rope.scaling.type", text("yarn"), "`yarn` is not implemented"),
        ("rope.scaling.type", text("linear"), "no `llama.rope.scaling.factor`"),
        ("expert_count", GgufValue::U32(8), "mixtures of experts"),
        ("context_length", GgufValue::U64(u64::MAX), "tokens of context"),
    ] {
        let error = from_gguf(&[(key, value)]).expect_err(key).to_string();
        assert!(error.contains(part), "`{part}` in: {error}");
    }
}
