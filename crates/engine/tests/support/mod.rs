//! What the tests of numerics and of model files share: a model in f32 throughout, and whole prompts in one pass.

use std::path::Path;
use std::sync::Arc;

use engine::model::{Batch, BatchSequence};
use engine::ops::KvDtype;
use engine::{Config, DeviceKind, EngineError, LoadOptions, LoadedModel, WeightKind};

/// Prompts are no longer than this.
pub(crate) const TOKENS_MAX: usize = 128;

pub(crate) const BLOCK_SIZE: usize = 16;

pub(crate) fn load(path: &Path) -> Result<Arc<LoadedModel>, EngineError> {
    load_as(path, WeightKind::F32, KvDtype::F32)
}

pub(crate) fn load_as(
    path: &Path,
    weight_dtype: WeightKind,
    kv_dtype: KvDtype,
) -> Result<Arc<LoadedModel>, EngineError> {
    let config = Config {
        device: DeviceKind::Cpu,
        weight_dtype,
        kv_cache_tokens: TOKENS_MAX,
        kv_dtype,
        max_model_len: None,
    };
    LoadedModel::load(path, LoadOptions { name: "m".into(), version: "v".into(), config }).map(Arc::new)
}

/// One prompt alone in the cache, with logits wanted at each of its tokens.
pub(crate) fn teacher_forced(prompt: &[u32]) -> Batch {
    let len = prompt.len();
    let sequence = BatchSequence {
        row: 0,
        len,
        start: 0,
        block_table: (0..len.div_ceil(BLOCK_SIZE) as u32).collect(),
        num_logits: len,
    };
    Batch {
        tokens: prompt.to_vec(),
        positions: (0..len as u32).collect(),
        slots: (0..len as u32).collect(),
        sequences: vec![sequence],
        logit_rows: (0..len as u32).collect(),
        block_size: BLOCK_SIZE,
    }
}

/// The likeliest token and its lead over the next.
pub(crate) fn lead(logits: &[f32]) -> (usize, f32) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.select_nth_unstable_by(1, |left, right| logits[*right].total_cmp(&logits[*left]));
    let (first, second) =
        if logits[order[0]] >= logits[order[1]] { (order[0], order[1]) } else { (order[1], order[0]) };
    (first, logits[first] - logits[second])
}

/// The largest difference of two rows.
pub(crate) fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}
