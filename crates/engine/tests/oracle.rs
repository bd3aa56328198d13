//! The forward pass against candle-transformers' own quantized Llama, on the same weights dequantized to f32.
//!
//! And the fast path, with weights of 8 bits and of 4, against that forward pass. Every run compares a few prompts;
//! `TENK_ORACLE_PROMPTS=50` compares as many as are asked for.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use engine::ops::KvDtype;
use engine::{LoadedModel, WeightKind};

use support::{BLOCK_SIZE, distance, lead, load, load_as, teacher_forced};

const PROMPT_TOKENS: usize = 64;

fn real_model() -> PathBuf {
    let path = std::env::var_os("TENK_TEST_MODEL").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        Some(home.join(".cache/tenk/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"))
    });
    path.filter(|path| path.is_file()).expect("the default model is there; `cargo xtask test` fetches it")
}

/// Any text will do; that of this project's own source is long and always there.
fn prompts(model: &LoadedModel, count: usize) -> Vec<Vec<u32>> {
    let text = concat!(
        include_str!("../src/step.rs"),
        include_str!("../src/ops/cpu.rs"),
        include_str!("../src/engine.rs")
    );
    let ids = model.tokenizer().encode(text, false, false).expect("encodes");
    ids.chunks_exact(PROMPT_TOKENS).take(count).map(<[u32]>::to_vec).collect()
}

fn count_or(default: usize) -> usize {
    std::env::var("TENK_ORACLE_PROMPTS").map_or(default, |count| count.parse().expect("a number"))
}

/// The same file with every number in 32 bits.
fn write_dequantized(path: &Path, whole: &Path) -> candle_core::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let content = gguf_file::Content::read(&mut reader)?;
    let dequantized = |name: &String| {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu)?.dequantize(&Device::Cpu)?;
        Ok((name.clone(), QTensor::quantize(&tensor, GgmlDType::F32)?))
    };
    let tensors: Vec<(String, QTensor)> =
        content.tensor_infos.keys().map(dequantized).collect::<candle_core::Result<_>>()?;
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let metadata: Vec<(&str, &gguf_file::Value)> =
        content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    gguf_file::write(&mut File::create(whole)?, &metadata, &tensors)
}

#[test]
fn logits_are_those_of_an_independent_implementation() {
    let count = count_or(2);
    let path = real_model();
    let model = load(&path).expect("loads");
    let mut backend = model.backend(BLOCK_SIZE).expect("fits");

    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("f32.gguf");
    write_dequantized(&path, &whole).expect("dequantizes");
    let mut reader = BufReader::new(File::open(&whole).expect("opens"));
    let content = gguf_file::Content::read(&mut reader).expect("is a GGUF file");
    let mut oracle = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).expect("candle reads it");

    let (mut compared, mut worst) = (0, 0.0_f32);
    for prompt in prompts(&model, count) {
        let mut ours = backend.forward(&teacher_forced(&prompt)).expect("computes");
        for (position, ours) in ours.rows().enumerate() {
            let token = Tensor::new(&[prompt[position]], &Device::Cpu)
                .and_then(|token| token.unsqueeze(0))
                .expect("one token");
            let theirs = oracle
                .forward(&token, position)
                .and_then(|row| row.flatten_all()?.to_vec1::<f32>())
                .expect("computes");
            worst = worst.max(distance(ours, &theirs));
            let (best, gap) = lead(&theirs);
            if gap > 0.05 {
                assert_eq!(lead(ours).0, best, "the same likeliest token at position {position}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, count * PROMPT_TOKENS);
    println!("{compared} positions, largest difference {worst:.2e}");
    assert!(worst < 1e-3, "logits differ by {worst}");
}

#[test]
fn with_weights_of_8_bits_the_likeliest_token_is_that_of_32_wherever_it_clearly_leads() {
    println!("{}", few_bits_agree(WeightKind::Int8));
}

#[test]
fn with_weights_of_4_bits_as_the_file_has_them_it_is_too() {
    println!("{}", few_bits_agree(WeightKind::Auto));
}

fn few_bits_agree(kind: WeightKind) -> String {
    let count = count_or(8);
    let path = real_model();
    let whole = load(&path).expect("loads");
    let mut exact = whole.backend(BLOCK_SIZE).expect("fits");
    let fast = load_as(&path, kind, KvDtype::F16).expect("loads");
    let mut fast = fast.backend(BLOCK_SIZE).expect("fits");

    let (mut compared, mut leading, mut same, mut worst) = (0, 0, 0, 0.0_f32);
    for prompt in prompts(&whole, count) {
        let batch = teacher_forced(&prompt);
        let mut exact = exact.forward(&batch).expect("computes");
        let mut fast = fast.forward(&batch).expect("computes");
        for (position, (exact, fast)) in exact.rows().zip(fast.rows()).enumerate() {
            let ((best, gap), (chosen, _)) = (lead(exact), lead(fast));
            assert!(gap <= 0.5 || chosen == best, "the same token at position {position}, ahead by {gap}");
            worst = worst.max(distance(exact, fast));
            compared += 1;
            leading += usize::from(gap > 0.5);
            same += usize::from(chosen == best);
        }
    }
    assert_eq!(compared, count * PROMPT_TOKENS);
    assert!(leading > compared / 2, "most tokens lead by that much");
    format!(
        "{same} of {compared} tokens are the same, {leading} lead clearly; largest difference {worst:.2e}"
    )
}
