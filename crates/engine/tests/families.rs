//! Every family, from every file format, against candle-transformers' own model of it on the same random weights.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, qwen2, qwen3};
use engine::model::{Architecture, Placement, Shard, Transformer, WeightDtype, Weights};
use engine::ops::{KvDtype, KvShape, SingleRank, TensorOps};
use engine::{Backend, LoadedModel, TransformerBackend, WeightKind, inspect};
use serde::de::DeserializeOwned;
use serde_json::{Map, json};
use tempfile::TempDir;
use tiny_model::{Checkpoint, Family};

use support::{BLOCK_SIZE, TOKENS_MAX, distance, lead, load, load_as, teacher_forced};

const TOLERANCE: f32 = 1e-3;
/// Over three blocks, and not a whole number of them.
const PROMPT_TOKENS: usize = 56;

fn prompt() -> Vec<u32> {
    (0..PROMPT_TOKENS as u32).map(|at| (at * at * 31 + at * 7 + 101) % 259).collect()
}

/// Logits at each token of [`prompt`].
type Rows = Vec<Vec<f32>>;

fn rows(backend: &mut dyn Backend) -> Rows {
    let mut logits = backend.forward(&teacher_forced(&prompt())).expect("computes");
    logits.rows().map(|row| row.to_vec()).collect()
}

/// A model file or folder as the engine loads it.
fn ours(path: &Path) -> Rows {
    rows(&mut *load(path).expect("loads").backend(BLOCK_SIZE).expect("fits"))
}

/// The same with the operations that GPUs use.
fn ours_over_tensors(path: &Path) -> Rows {
    let mut weights = Weights::open(path).expect("opens");
    let place = Placement { shard: Shard::WHOLE, device: &Device::Cpu, dtype: WeightDtype::F32 };
    let model = Transformer::load(&mut weights, TOKENS_MAX, place).expect("loads");
    let shape = KvShape {
        num_layers: model.config().num_layers,
        num_blocks: TOKENS_MAX / BLOCK_SIZE,
        block_size: BLOCK_SIZE,
        num_kv_heads: model.num_kv_heads(),
        head_dim: model.config().head_dim,
        dtype: KvDtype::F32,
    };
    let ops = TensorOps::new(shape, &Device::Cpu, Box::new(SingleRank)).expect("fits");
    rows(&mut TransformerBackend::new(Arc::new(model), ops))
}

/// One of candle's models with its own KV-cache: a token and its position to logits.
type Oracle = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// candle's model of `family` over all tensors of a folder, whatever its `model_type`.
fn oracle(family: &str, folder: &Path) -> Oracle {
    let mut tensors = HashMap::new();
    for entry in fs::read_dir(folder).expect("is a folder") {
        let file = entry.expect("can be read").path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            tensors.extend(candle_core::safetensors::load(file, &Device::Cpu).expect("is sound"));
        }
    }
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    match family {
        "llama" => {
            let config = config::<llama::LlamaConfig>(folder).into_config(false);
            let model = llama::Llama::load(weights, &config).expect("candle loads it");
            let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).expect("fits");
            Box::new(move |token, position| model.forward(token, position, &mut cache))
        }
        "mistral" => {
            let mut model = mistral::Model::new(&config(folder), weights).expect("candle loads it");
            Box::new(move |token, position| model.forward(token, position))
        }
        "qwen2" => {
            let mut model = qwen2::ModelForCausalLM::new(&config(folder), weights).expect("candle loads it");
            Box::new(move |token, position| model.forward(token, position))
        }
        _ => {
            let mut model = qwen3::ModelForCausalLM::new(&config(folder), weights).expect("candle loads it");
            Box::new(move |token, position| model.forward(token, position))
        }
    }
}

fn config<T: DeserializeOwned>(folder: &Path) -> T {
    let text = fs::read(folder.join("config.json")).expect("is there");
    serde_json::from_slice(&text).expect("candle knows it")
}

fn theirs(family: &str, folder: &Path) -> Rows {
    let mut oracle = oracle(family, folder);
    let logits = prompt().into_iter().enumerate().map(|(position, token)| {
        let token = Tensor::new(&[[token]], &Device::Cpu)?;
        oracle(&token, position)?.flatten_all()?.to_vec1()
    });
    logits.collect::<candle_core::Result<_>>().expect("computes")
}

/// The largest difference, which must be small, of rows that agree on the likeliest token.
fn agree(ours: &Rows, theirs: &Rows) -> f32 {
    assert_eq!((ours.len(), theirs.len()), (PROMPT_TOKENS, PROMPT_TOKENS));
    let mut worst = 0.0_f32;
    for (position, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        worst = worst.max(distance(ours, theirs));
        assert_eq!(lead(ours).0, lead(theirs).0, "the same likeliest token at position {position}");
    }
    assert!(worst < TOLERANCE, "logits differ by {worst}");
    worst
}

/// Places for one checkpoint in several formats.
struct Room(TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn folder(&self, checkpoint: &Checkpoint, dtype: DType, num_files: usize) -> PathBuf {
        let path = self.0.path().join(format!("{dtype:?}-{num_files}"));
        fs::create_dir(&path).expect("is new");
        checkpoint.write_folder(&path, dtype, num_files).expect("writes");
        path
    }

    fn gguf(&self, checkpoint: &Checkpoint, dtype: GgmlDType) -> PathBuf {
        let path = self.0.path().join(format!("{dtype:?}.gguf"));
        checkpoint.write_gguf(&path, dtype).expect("writes");
        path
    }
}

/// A folder and a GGUF file of these weights give one result, which is that of candle's model `family`.
#[expect(clippy::print_stdout, reason = "how close it is; a passing test shows it with --nocapture")]
fn prove(family: &str, checkpoint: &Checkpoint) {
    let room = Room::new();
    let folder = room.folder(checkpoint, DType::F32, 1);
    let (logits, theirs) = (ours(&folder), theirs(family, &folder));
    let worst = agree(&logits, &theirs).max(agree(&ours_over_tensors(&folder), &theirs));
    assert!(logits == ours(&room.gguf(checkpoint, GgmlDType::F32)), "a folder and a GGUF file differ");
    let model_type = &checkpoint.config["model_type"];
    println!("{model_type} as candle's {family}: {PROMPT_TOKENS} positions, largest difference {worst:.1e}");
}

fn random(family: &Family) -> Checkpoint {
    Checkpoint::random(family).expect("a sound shape")
}

#[test]
fn llama_is_candles_llama_with_tied_and_untied_embeddings_and_grouped_or_single_heads() {
    for (tied, num_kv_heads) in [(false, 2), (true, 2), (true, 4), (false, 1)] {
        prove("llama", &random(&Family { tied, num_kv_heads, ..Family::default() }));
    }
}

#[test]
fn mistral_is_candles_mistral_with_heads_of_any_width() {
    let mistral = Family { architecture: "mistral", seed: 2, ..Family::default() };
    for head_dim in [16, 8, 40] {
        prove("mistral", &random(&Family { head_dim, ..mistral.clone() }));
    }
    // candle's mistral always has an output layer of its own; without one it is candle's llama.
    prove("llama", &random(&Family { tied: true, ..mistral }));
}

#[test]
fn qwen2_is_candles_qwen2_with_tied_and_untied_embeddings() {
    for (tied, num_kv_heads) in [(false, 2), (true, 1)] {
        prove(
            "qwen2",
            &random(&Family { architecture: "qwen2", seed: 3, tied, num_kv_heads, ..Family::default() }),
        );
    }
}

#[test]
fn qwen3_is_candles_qwen3_with_heads_of_any_width_and_with_biases_on_all_of_attention() {
    for (tied, head_dim, attention_bias) in
        [(false, 16, false), (true, 32, false), (true, 8, false), (false, 32, true)]
    {
        let qwen3 =
            Family { architecture: "qwen3", seed: 4, tied, head_dim, attention_bias, ..Family::default() };
        prove("qwen3", &random(&qwen3));
    }
}

#[test]
fn llama_with_heads_of_their_own_width_is_candles_mistral() {
    for head_dim in [8, 24] {
        prove("mistral", &random(&Family { seed: 5, head_dim, ..Family::default() }));
    }
}

#[test]
fn llama_with_biases_on_query_key_and_value_is_candles_qwen2() {
    let mut checkpoint = random(&Family { seed: 6, attention_bias: true, ..Family::default() });
    let room = Room::new();
    let all = ours(&room.folder(&checkpoint, DType::F32, 1));
    assert!(all == ours(&room.gguf(&checkpoint, GgmlDType::F32)), "a folder and a GGUF file differ");
    checkpoint.tensors.retain(|name, _| !name.ends_with("o_proj.bias"));
    prove("qwen2", &checkpoint);
    let fewer = ours(&Room::new().folder(&checkpoint, DType::F32, 1));
    assert!(distance(&all[9], &fewer[9]) > TOLERANCE, "the bias on attention's output counts");
}

#[test]
fn llama_3s_stretched_frequencies_are_candles_from_a_folder_and_from_a_gguf_files_divisors() {
    let mut checkpoint = random(&Family { seed: 7, ..Family::default() });
    let room = Room::new();
    let plain = ours(&room.gguf(&checkpoint, GgmlDType::F32));
    checkpoint.config["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let folder = room.folder(&checkpoint, DType::F32, 1);
    let theirs = theirs("llama", &folder);
    agree(&ours(&folder), &theirs);
    assert!(distance(&plain[50], &theirs[50]) > TOLERANCE, "the scaling shows");

    // What llama.cpp's converter puts into the file in the place of the rule.
    let factors: Vec<f32> = (0..8)
        .map(|index| {
            let turns = 32.0 / (std::f32::consts::TAU * 1e4_f32.powf(index as f32 / 8.0));
            let smooth = ((turns - 1.0) / 3.0).clamp(0.0, 1.0);
            1.0 / ((1.0 - smooth) / 8.0 + smooth)
        })
        .collect();
    assert_eq!((factors[0], factors[7]), (1.0, 8.0));
    let factors = Tensor::from_vec(factors, 8, &Device::Cpu).expect("eight");
    checkpoint.tensors.insert("rope_freqs.weight".into(), factors);
    let divided = room.0.path().join("divided.gguf");
    checkpoint.write_gguf(&divided, GgmlDType::F32).expect("writes");
    agree(&ours(&divided), &theirs);
}

#[test]
fn numbers_of_16_bits_and_several_files_with_an_index_change_nothing() {
    for (index, architecture) in Architecture::NAMES.into_iter().enumerate() {
        let (dtype, ggml_dtype) = [(DType::BF16, GgmlDType::BF16), (DType::F16, GgmlDType::F16)][index % 2];
        let mut checkpoint = random(&Family { architecture, seed: 8, ..Family::default() });
        for tensor in checkpoint.tensors.values_mut() {
            let rounded = tensor.to_dtype(dtype).and_then(|tensor| tensor.to_dtype(DType::F32));
            *tensor = rounded.expect("is a float");
        }
        let room = Room::new();
        let expected = ours(&room.folder(&checkpoint, DType::F32, 1));
        for num_files in [1, 3] {
            let folder = room.folder(&checkpoint, dtype, num_files);
            assert!(expected == ours(&folder), "{architecture} in {num_files} files of {dtype:?}");
            agree(&expected, &theirs(architecture, &folder));
        }
        assert!(expected == ours(&room.folder(&checkpoint, DType::F32, 4)), "{architecture} in four files");
        assert!(expected == ours(&room.gguf(&checkpoint, ggml_dtype)), "{architecture} as GGUF");
    }
}

#[test]
fn a_file_that_the_index_does_not_name_is_no_part_of_the_model() {
    let room = Room::new();
    let checkpoint = random(&Family::default());
    let folder = room.folder(&checkpoint, DType::F32, 2);
    let expected = ours(&folder);
    let other = random(&Family { seed: 9, ..Family::default() });
    other.write_folder(&folder, DType::F32, 1).expect("writes");
    fs::rename(folder.join("model.safetensors"), folder.join("consolidated.safetensors")).expect("is there");
    assert!(expected == ours(&folder));
}

#[test]
fn a_folders_tokenizer_and_chat_template_are_those_of_the_gguf_file() {
    let room = Room::new();
    let checkpoint = random(&Family::default());
    let folder = load(&room.folder(&checkpoint, DType::F32, 1)).expect("loads");
    let gguf = load(&room.gguf(&checkpoint, GgmlDType::F32)).expect("loads");
    let messages = json!([{ "role": "user", "content": "Grüße, 世界!" }]);
    let messages: Vec<protocol::Message> = serde_json::from_value(messages).expect("messages");
    let render = |model: &LoadedModel| {
        let text = model.chat_template().render(&messages, true, &Map::new()).expect("renders");
        let ids = model.tokenizer().encode(&text, false, true).expect("encodes");
        (text, ids)
    };
    let (text, ids) = render(&folder);
    assert_eq!(text, "<|im_start|>user\nGrüße, 世界!<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!((text.clone(), ids.clone()), render(&gguf));
    assert_eq!(ids.iter().filter(|id| **id >= 256).count(), 3, "control tokens are tokens");
    assert_eq!(folder.tokenizer().decode(&ids, false), text);
    for model in [&folder, &gguf] {
        assert_eq!((model.tokenizer().bos(), model.tokenizer().eos()), (Some(257), Some(258)));
    }
}

#[test]
fn a_model_is_described_the_same_from_a_folder_and_from_gguf() {
    for (architecture, tied) in [("llama", true), ("qwen2", false), ("qwen3", true)] {
        let room = Room::new();
        let checkpoint =
            random(&Family { architecture, tied, head_dim: 32, num_heads: 2, ..Family::default() });
        let folder = inspect(&room.folder(&checkpoint, DType::BF16, 2)).expect("is sound");
        let gguf = inspect(&room.gguf(&checkpoint, GgmlDType::BF16)).expect("is sound");
        assert_eq!((folder.format, gguf.format), ("safetensors", "gguf"));
        assert_eq!(folder.parameters, checkpoint.num_parameters());
        assert_eq!(folder.quantization, "bf16");
        assert_eq!(engine::Inspection { format: gguf.format, ..folder }, gguf);
    }
}

#[test]
fn matrices_whose_rows_are_no_whole_groups_are_loaded_as_any_other() {
    let checkpoint = random(&Family { hidden_size: 72, ..Family::default() });
    let room = Room::new();
    let path = room.gguf(&checkpoint, GgmlDType::F16);
    let [auto, int8] = [WeightKind::Auto, WeightKind::Int8].map(|kind| {
        let model = load_as(&path, kind, KvDtype::F32).expect("loads");
        rows(&mut *model.backend(BLOCK_SIZE).expect("fits"))
    });
    assert!(auto == int8, "nothing of it has 4 bits");
}

#[test]
fn an_output_layer_beside_tied_embeddings_is_neither_used_nor_counted() {
    let mut checkpoint = random(&Family { tied: true, ..Family::default() });
    let room = Room::new();
    let expected = ours(&room.folder(&checkpoint, DType::F32, 1));
    let num_parameters = checkpoint.num_parameters();
    let output = checkpoint.tensors["model.norm.weight"].broadcast_as((259, 64)).expect("64 wide");
    checkpoint.tensors.insert("lm_head.weight".into(), output.contiguous().expect("fits"));
    let folder = room.folder(&checkpoint, DType::F32, 2);
    assert!(expected == ours(&folder));
    assert_eq!(inspect(&folder).expect("is sound").parameters, num_parameters);
}
