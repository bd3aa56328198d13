//! What a model file that is broken, hostile or of an unknown kind says: one sentence, never a panic.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use engine::{Config, DeviceKind, EngineError, LoadOptions, LoadedModel};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiny_model::{Checkpoint, Family};

fn load(path: &Path) -> Result<LoadedModel, EngineError> {
    let config = Config { device: DeviceKind::Cpu, kv_cache_tokens: 128, ..Config::default() };
    LoadedModel::load(path, LoadOptions { name: "m".into(), version: "v".into(), config })
}

/// A folder in which the test leaves a broken model.
fn room() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn checkpoint(architecture: &'static str) -> Checkpoint {
    Checkpoint::random(&Family { architecture, ..Family::default() }).expect("a sound shape")
}

/// A sound llama in `num_files` files, for the test to break.
fn sound_folder(num_files: usize) -> TempDir {
    let room = room();
    checkpoint("llama").write_folder(room.path(), DType::F32, num_files).expect("writes");
    load(room.path()).expect("loads before it is broken");
    room
}

fn sound_gguf(room: &TempDir) -> PathBuf {
    let path = room.path().join("model.gguf");
    checkpoint("llama").write_gguf(&path, GgmlDType::F32).expect("writes");
    load(&path).expect("loads before it is broken");
    path
}

/// Loading `path` fails in one line that has all of `parts`.
#[track_caller]
fn refused(path: &Path, parts: &[&str]) {
    let error = load(path).expect_err("is broken").to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` in: {error}");
    }
}

fn rewrite_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("is there")).expect("is JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("writes");
}

fn shorten(path: &Path, bytes: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("shortens");
}

#[test]
fn an_unknown_architecture_is_refused_by_its_name_with_those_that_are_known() {
    let room = sound_folder(1);
    rewrite_json(&room.path().join("config.json"), |config| config["model_type"] = "gpt_neox".into());
    refused(room.path(), &["`gpt_neox` is not implemented", "llama, mistral, qwen2, qwen3"]);

    let mut gpt = checkpoint("llama");
    gpt.config["model_type"] = "gptneox".into();
    let path = room.path().join("gpt.gguf");
    gpt.write_gguf(&path, GgmlDType::F32).expect("writes");
    refused(&path, &["`gptneox` is not implemented", "llama, mistral, qwen2, qwen3"]);
}

#[test]
fn a_folder_without_its_parts_says_which_is_missing() {
    for (file, part) in [
        ("config.json", "cannot be loaded: the folder holds no config.json"),
        ("model.safetensors", "cannot be loaded: the folder holds no .safetensors; give a .gguf file"),
        ("tokenizer.json", "tokenizer.json"),
    ] {
        let room = sound_folder(1);
        fs::remove_file(room.path().join(file)).expect("is there");
        refused(room.path(), &[part]);
    }
    refused(Path::new("nowhere.gguf"), &["nowhere.gguf", "cannot be loaded"]);
}

#[test]
fn a_safetensors_file_of_another_length_is_refused_wherever_it_is_cut() {
    let room = sound_folder(1);
    let path = room.path().join("model.safetensors");
    let whole = fs::metadata(&path).expect("is there").len();
    for bytes in [whole + 1, whole - 1, whole / 2, 3000, 100, 9, 8, 7, 0] {
        shorten(&path, bytes);
        refused(room.path(), &["model.safetensors", "cut short"]);
    }
}

#[test]
fn a_safetensors_header_that_lies_is_refused() {
    let header = |length: u64, json: &str| [&length.to_le_bytes(), json.as_bytes()].concat();
    let own = |json: &str| header(json.len() as u64, json);
    let tensor = |shape: &str, offsets: &str| {
        own(&format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#))
    };
    for (bytes, part) in [
        (header(u64::MAX, "{}"), "not a safetensors file"),
        (header(100_000_001, "{}"), "not a safetensors file"),
        (header(3, "{}"), "cut short in its header"),
        (own("{"), "header is broken"),
        (own(&"[".repeat(10_000)), "header is broken"),
        (tensor("[4]", "[0,18446744073709551615]"), "header is broken"),
        (tensor("[4]", "[16,0]"), "header is broken"),
        (tensor("[4294967296,4294967296]", "[0,0]"), "header is broken"),
        (tensor("[1099511627776]", "[0,4398046511104]"), "cut short"),
    ] {
        let room = sound_folder(1);
        fs::write(room.path().join("model.safetensors"), bytes).expect("writes");
        refused(room.path(), &["model.safetensors", part]);
    }
}

#[test]
fn an_index_leads_to_files_of_its_own_folder_only() {
    let outside = sound_folder(1);
    let outside = outside.path().join("model.safetensors");
    let room = sound_folder(2);
    fs::create_dir(room.path().join("sub")).expect("is new");
    for file in ["x.safetensors", "sub/x.safetensors"] {
        fs::copy(&outside, room.path().join(file)).expect("copies");
    }
    let above =
        format!("../{}/x.safetensors", room.path().file_name().and_then(|name| name.to_str()).expect("text"));
    for name in
        [&above, outside.to_str().expect("text"), "sub/x.safetensors", "./x.safetensors", "..", "", "gone"]
    {
        let index = room.path().join("model.safetensors.index.json");
        rewrite_json(&index, |index| index["weight_map"]["lm_head.weight"] = name.into());
        let shown: String = name.chars().take(100).collect();
        refused(room.path(), &["index.json", &format!("`{shown}`, which is not in the folder")]);
    }
    fs::write(room.path().join("model.safetensors.index.json"), r#"{"weights":{}}"#).expect("writes");
    refused(room.path(), &["index.json", "missing field `weight_map`"]);
}

#[test]
fn a_tensor_that_is_in_two_files_is_refused_with_both_names() {
    let room = sound_folder(2);
    let [first, second] =
        [1, 2].map(|part| room.path().join(format!("model-0000{part}-of-00002.safetensors")));
    let tensors = candle_core::safetensors::load(&first, &Device::Cpu).expect("is sound");
    candle_core::safetensors::save(&tensors, &second).expect("writes");
    let twice = ["model-00001-of-00002.safetensors too", "model-00002-of-00002.safetensors cannot be loaded"];
    refused(room.path(), &twice);
    fs::remove_file(room.path().join("model.safetensors.index.json")).expect("is there");
    refused(room.path(), &twice);
}

#[test]
fn a_missing_or_misshapen_tensor_is_refused_by_the_name_that_the_file_gives_it() {
    let narrow = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("fits");
    for (architecture, name, gguf_name, shape) in [
        ("llama", "model.embed_tokens.weight", "token_embd.weight", vec![258, 64]),
        ("llama", "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", vec![64, 32]),
        ("qwen2", "model.layers.0.self_attn.v_proj.bias", "blk.0.attn_v.bias", vec![64]),
        ("qwen3", "model.layers.1.self_attn.q_norm.weight", "blk.1.attn_q_norm.weight", vec![64]),
        ("mistral", "lm_head.weight", "output.weight", vec![259, 32]),
    ] {
        let room = room();
        let path = room.path().join("model.gguf");
        let mut checkpoint = checkpoint(architecture);
        let right = checkpoint.tensors[name].dims().to_vec();
        checkpoint.tensors.insert(name.to_owned(), narrow(&shape));
        checkpoint.write_folder(room.path(), DType::F32, 1).expect("writes");
        checkpoint.write_gguf(&path, GgmlDType::F32).expect("writes");
        let what = format!("has shape {shape:?}, but the metadata asks for {right:?}");
        refused(room.path(), &[&format!("`{name}` {what}")]);
        refused(&path, &[&format!("`{gguf_name}` {what}")]);

        checkpoint.tensors.remove(name);
        checkpoint.write_folder(room.path(), DType::F32, 1).expect("writes");
        refused(room.path(), &[&format!("no tensor `{name}`")]);
        // A GGUF file without an output layer has tied embeddings.
        if name != "lm_head.weight" {
            checkpoint.write_gguf(&path, GgmlDType::F32).expect("writes");
            refused(&path, &[&format!("no tensor `{gguf_name}`")]);
        }
    }
}

#[test]
fn numbers_of_8_bits_are_refused_by_their_type() {
    let room = sound_folder(1);
    let mut tensors = checkpoint("llama").tensors;
    let name = "model.layers.0.mlp.up_proj.weight";
    let narrow = tensors[name].to_dtype(DType::U8).expect("converts");
    tensors.insert(name.to_owned(), narrow);
    let tensors = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, room.path().join("model.safetensors")).expect("writes");
    refused(room.path(), &[&format!("`{name}` is stored as U8"), "only F64, F32, F16 and BF16"]);
}

#[test]
fn a_gguf_file_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let room = room();
    let path = sound_gguf(&room);
    let mut bytes = fs::metadata(&path).expect("is there").len();
    while bytes > 0 {
        // Fine steps in the header, which is some 8 KiB, coarse ones in the tensors.
        bytes = bytes.saturating_sub(if bytes > 12_000 { 9973 } else { 61 });
        shorten(&path, bytes);
        refused(&path, &["model.gguf", if bytes < 4 { "not a GGUF file" } else { "cut short" }]);
    }
}

/// A GGUF header of the third version: its counts, then whatever is put behind them.
fn gguf(num_tensors: u64, num_entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    let counts = [num_tensors.to_le_bytes(), num_entries.to_le_bytes()].concat();
    [b"GGUF", 3_u32.to_le_bytes().as_slice(), &counts, &rest.concat()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn u32_entry(key: &str, value: u32) -> Vec<u8> {
    [string(key), 4_u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
}

/// The start of an entry that is a list of `kind`.
fn list_entry(kind: u32, length: u64) -> Vec<u8> {
    [string("list"), list(kind, length)].concat()
}

fn list(kind: u32, length: u64) -> Vec<u8> {
    [&9_u32.to_le_bytes(), &kind.to_le_bytes(), length.to_le_bytes().as_slice()].concat()
}

fn f32_tensor(name: &str, dims: &[u64], offset: u64) -> Vec<u8> {
    tensor(name, dims, 0, offset)
}

fn tensor(name: &str, dims: &[u64], dtype: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let num_dims = (dims.len() as u32).to_le_bytes();
    [string(name).as_slice(), &num_dims, &dims_bytes, &dtype.to_le_bytes(), &offset.to_le_bytes()].concat()
}

#[test]
fn a_gguf_header_that_lies_is_refused_before_memory_is_taken_for_it() {
    let huge = [1 << 40, 1 << 62, u64::MAX];
    let mut cases = vec![
        (b"FUGG".to_vec(), "not a GGUF file"),
        ([b"GGUF", 4_u32.to_le_bytes().as_slice()].concat(), "GGUF version is 4"),
        ([b"GGUF", 3_u32.to_be_bytes().as_slice()].concat(), "GGUF version is 50331648"),
        (gguf(0, 1, &[&string("key"), &13_u32.to_le_bytes()]), "a value of type 13"),
        (gguf(0, 1, &[&string(&"k".repeat(65_536))]), "a key of 65536 bytes"),
        (
            gguf(
                0,
                1,
                &[
                    &list_entry(9, 1),
                    &[&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat().repeat(100_000),
                ],
            ),
            "too deep",
        ),
        (gguf(0, 1, &[&string("general.alignment"), &list(0, 0)]), "`general.alignment`"),
        (gguf(0, 1, &[&u32_entry("general.alignment", 0)]), "`general.alignment`"),
        (gguf(0, 1, &[&u32_entry("general.alignment\0", 0)]), "`general.alignment`"),
        (gguf(0, 1, &[&u32_entry("general.alignment", 48)]), "`general.alignment`"),
        (
            gguf(0, 2, &[&u32_entry("general.alignment", 32), &u32_entry("general.alignment", 1 << 31)]),
            "`general.alignment`",
        ),
        (gguf(1, 0, &[&f32_tensor("x", &[1 << 32, 1 << 32], 0)]), "makes no sense"),
        (gguf(1, 0, &[&f32_tensor("x", &[1 << 40], 0)]), "cut short"),
        (gguf(1, 0, &[&f32_tensor("x", &[1], u64::MAX)]), "makes no sense"),
        (gguf(1, 0, &[&f32_tensor("x", &[1; 5], 0)]), "5 dimensions"),
        // Two rows of half a block of Q8_0 each.
        (gguf(1, 0, &[&tensor("x", &[16, 2], 8, 0), &[0; 128]]), "makes no sense"),
        (
            gguf(2, 0, &[&f32_tensor("x", &[1], 0), &f32_tensor("x", &[1], 0), &[0; 64]]),
            "some are there twice",
        ),
    ];
    for length in huge {
        cases.push((gguf(length, 0, &[&[0; 64]]), "GGUF header"));
        cases.push((gguf(0, length, &[&[0; 64]]), "cut short"));
        cases.push((gguf(0, 1, &[&length.to_le_bytes(), &[0; 64]]), "bytes, more than 65535"));
        cases.push((gguf(0, 1, &[&string("key"), &8_u32.to_le_bytes(), &length.to_le_bytes()]), "cut short"));
        cases.push((gguf(0, 1, &[&list_entry(0, length), &[0; 64]]), "lists more than"));
        cases.push((gguf(0, 1, &[&list_entry(8, length), &[0; 64]]), "lists more than"));
    }
    let (room, most) = (room(), 1 << 24);
    cases.push((gguf(0, 1, &[&list_entry(8, most), &[0; 64]]), "cut short"));
    cases.push((gguf(0, 2, &[&list_entry(0, 0), &list_entry(9, most + 1)]), "lists more than 16777216"));
    let path = room.path().join("model.gguf");
    for (bytes, part) in cases {
        fs::write(&path, bytes).expect("writes");
        refused(&path, &["model.gguf", part]);
    }
}

#[test]
fn a_list_that_is_long_enough_on_disk_is_still_not_read_when_it_would_fill_the_memory() {
    let room = room();
    let path = room.path().join("model.gguf");
    let start = gguf(0, 1, &[&list_entry(0, 1 << 30)]);
    fs::write(&path, &start).expect("writes");
    // A hole: the file has the bytes without taking any.
    let file = File::options().write(true).open(&path).expect("opens");
    file.set_len(start.len() as u64 + (1 << 30)).expect("grows");
    refused(&path, &["lists more than 16777216 values"]);
}

#[test]
fn metadata_that_cannot_be_computed_is_refused_by_its_key() {
    for (key, value, part) in [
        (
            "rope_scaling",
            json!({ "rope_type": "yarn", "factor": 4.0 }),
            "`yarn` is not implemented; `linear`",
        ),
        ("rope_scaling", json!({ "type": "linear" }), "no `factor`"),
        ("rope_scaling", json!({ "type": "linear", "factor": 0 }), "rope scaling makes no sense"),
        ("use_sliding_window", json!(true), "sliding-window attention is not implemented"),
        ("quantization_config", json!({ "bits": 4 }), "not implemented; give a .gguf file"),
        ("hidden_act", json!("gelu"), "`gelu` is not implemented; `silu`"),
        ("num_hidden_layers", json!(1_u64 << 40), "1099511627776 layers, but must have 1 to 1024"),
        ("num_hidden_layers", json!(3), "no tensor `model.layers.2."),
        ("num_attention_heads", json!(0), "0 heads"),
        ("num_attention_heads", json!(-4), "`num_attention_heads` is -4, but must be a whole number"),
        ("num_key_value_heads", json!(3), "no multiple"),
        ("head_dim", json!(15), "width of a head is odd"),
        ("vocab_size", json!(null), "no `vocab_size`"),
        ("rope_theta", json!("1e4"), "`rope_theta` is \"1e4\", but must be a number"),
        ("rms_norm_eps", json!(1), "epsilon"),
        ("max_position_embeddings", json!(0), "0 tokens of context"),
    ] {
        let room = sound_folder(1);
        rewrite_json(&room.path().join("config.json"), |config| config[key] = value);
        refused(room.path(), &["cannot be loaded", part]);
    }
}

/// Some bytes of a file's beginning, and what they become.
fn changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let byte = prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xFF), Just(b'9'), Just(b'"')];
    prop::collection::vec((0..9000_usize, byte), 1..6)
}

fn changed(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in changes {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_file_with_changed_bytes_loads_or_is_refused_in_one_line(changes in changes()) {
        let room = room();
        let gguf = sound_gguf(&room);
        checkpoint("llama").write_folder(room.path(), DType::F32, 1).expect("writes");
        for name in ["model.gguf", "model.safetensors", "config.json"] {
            let path = room.path().join(name);
            let whole = fs::read(&path).expect("is there");
            fs::write(&path, changed(&whole, &changes)).expect("writes");
            let loaded = load(if name == "model.gguf" { &gguf } else { room.path() });
            if let Err(error) = loaded {
                prop_assert!(!error.to_string().contains('\n'), "{error}");
            }
            fs::write(&path, whole).expect("writes");
        }
    }
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let room = room();
    let path = sound_gguf(&room);
    let mut bytes = fs::read(&path).expect("is there");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).expect("writes");
    refused(&path, &["model.gguf", "holds something that is no number"]);
}
