//! The forward pass against candle-transformers' own quantized Llama, on the same weights dequantized to f32.
//!
//! Every run compares a few prompts; `TENK_ORACLE_PROMPTS=20` compares as many as are asked for.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, gguf_file};
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use engine::model::{Batch, BatchSequence};
use engine::ops::KvDtype;
use engine::{Backend, Config, DeviceKind, LoadOptions, LoadedModel};

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

fn teacher_forced(prompt: &[u32], block_size: usize) -> Batch {
    let len = prompt.len();
    let sequence = BatchSequence {
        row: 0,
        len,
        start: 0,
        block_table: (0..len.div_ceil(block_size) as u32).collect(),
        num_logits: len,
    };
    Batch {
        tokens: prompt.to_vec(),
        positions: (0..len as u32).collect(),
        slots: (0..len as u32).collect(),
        sequences: vec![sequence],
        logit_rows: (0..len as u32).collect(),
        block_size,
    }
}

#[test]
fn logits_are_those_of_an_independent_implementation() {
    let count = std::env::var("TENK_ORACLE_PROMPTS").map_or(2, |count| count.parse().expect("a number"));
    let path = real_model();
    let config =
        Config { device: DeviceKind::Cpu, kv_cache_tokens: 128, kv_dtype: KvDtype::F32, max_model_len: None };
    let options = LoadOptions { name: "m".into(), version: "v".into(), config };
    let model = Arc::new(LoadedModel::load(&path, options).expect("loads"));
    let mut backend: Box<dyn Backend> = model.backend(16).expect("fits");

    let folder = tempfile::tempdir().expect("a folder");
    let whole = folder.path().join("f32.gguf");
    engine::quantize::quantize(
        &path,
        &whole,
        GgmlDType::F32,
        &engine::quantize::QuantizeOptions::default(),
        |_| {},
    )
    .expect("dequantizes");
    let mut reader = BufReader::new(File::open(&whole).expect("opens"));
    let content = gguf_file::Content::read(&mut reader).expect("is a GGUF file");
    let mut oracle = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu).expect("candle reads it");

    let (mut compared, mut worst) = (0, 0.0_f32);
    for prompt in prompts(&model, count) {
        let mut ours = backend.forward(&teacher_forced(&prompt, 16)).expect("computes");
        for (position, ours) in ours.rows().enumerate() {
            let token = Tensor::new(&[prompt[position]], &Device::Cpu)
                .and_then(|token| token.unsqueeze(0))
                .expect("one token");
            let theirs = oracle
                .forward(&token, position)
                .and_then(|row| row.flatten_all()?.to_vec1::<f32>())
                .expect("computes");
            assert_eq!(ours.len(), theirs.len());
            worst =
                ours.iter().zip(&theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(worst, f32::max);
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

/// The likeliest token and its lead over the next.
fn lead(logits: &[f32]) -> (usize, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.select_nth_unstable_by(1, |left, right| logits[*right].total_cmp(&logits[*left]));
    let (first, second) =
        if logits[order[0]] >= logits[order[1]] { (order[0], order[1]) } else { (order[1], order[0]) };
    (first, logits[first] - logits[second])
}
