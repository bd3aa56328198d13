//! A model split over ranks, tensor by tensor, computes what it does in one piece.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use candle_core::{Device, Tensor};
use engine::model::{Placement, Shard, Transformer, WeightDtype, Weights};
use engine::ops::{Communicator, CpuOps, KvDtype, KvShape};
use engine::{EngineError, WeightKind};
use kernels::Pool;
use support::{BLOCK_SIZE, TOKENS_MAX, distance, lead, load, load_as, teacher_forced};
use tempfile::TempDir;
use tiny_model::Shape;

/// Ranks that are threads of this process.
#[derive(Clone, Debug)]
struct Threads {
    rank: usize,
    summands: Arc<Mutex<Vec<Option<Tensor>>>>,
    meet: Arc<Barrier>,
}

impl Communicator for Threads {
    fn all_reduce(&self, x: Tensor) -> Result<Tensor, EngineError> {
        self.summands.lock().expect("no panic")[self.rank] = Some(x);
        self.meet.wait();
        let summands: Vec<Tensor> =
            self.summands.lock().expect("no panic").iter().flatten().cloned().collect();
        // Nobody writes the next summand before all have read these.
        self.meet.wait();
        let first = Ok(summands[0].clone());
        summands[1..].iter().fold(first, |sum: Result<Tensor, EngineError>, next| Ok((sum? + next)?))
    }
}

fn prompt() -> Vec<u32> {
    (0..40).map(|index| index * 5 % 250).collect()
}

/// Logits of every position of the prompt, as one rank has them.
fn logits(path: &Path, dtype: WeightDtype, threads: Threads, world: usize) -> Result<Vec<f32>, EngineError> {
    let mut weights = Weights::open(path)?;
    let shard = Shard { rank: threads.rank, world };
    let transformer = Transformer::load(&mut weights, 256, Placement { shard, device: &Device::Cpu, dtype })?;
    let config = transformer.config();
    let shape = KvShape {
        num_layers: config.num_layers,
        num_blocks: TOKENS_MAX / BLOCK_SIZE,
        block_size: BLOCK_SIZE,
        num_kv_heads: transformer.num_kv_heads(),
        head_dim: config.head_dim,
        dtype: KvDtype::F32,
    };
    let mut ops = CpuOps::new(shape, Arc::new(Pool::new(1)), Box::new(threads))?;
    let mut logits = Vec::new();
    transformer.forward(&teacher_forced(&prompt()), &mut ops, &mut logits)?;
    Ok(logits)
}

fn ranks(world: usize) -> Vec<Threads> {
    let (summands, meet) = (Arc::new(Mutex::new(vec![None; world])), Arc::new(Barrier::new(world)));
    let rank = |rank| Threads { rank, summands: Arc::clone(&summands), meet: Arc::clone(&meet) };
    (0..world).map(rank).collect()
}

fn tiny(folder: &TempDir, shape: &Shape) -> PathBuf {
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, shape).expect("writes");
    path
}

#[test]
fn two_ranks_compute_what_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = tiny(&folder, &Shape { hidden_size: 128, ..Shape::default() });
    let int8 = load_as(&path, WeightKind::Int8, KvDtype::F32);
    for (whole, dtype, tolerance) in [(load(&path), WeightDtype::F32, 1e-4), (int8, WeightDtype::Int8, 0.05)]
    {
        let mut whole = whole.expect("loads").backend(BLOCK_SIZE).expect("fits");
        let mut whole = whole.forward(&teacher_forced(&prompt())).expect("computes");
        let whole: Vec<&mut [f32]> = whole.rows().collect();
        let under_way: Vec<_> = ranks(2)
            .into_iter()
            .map(|rank| {
                let path = path.clone();
                thread::spawn(move || logits(&path, dtype, rank, 2))
            })
            .collect();
        for of_rank in under_way {
            let found = of_rank.join().expect("no panic").expect("computes");
            let vocab_size = found.len() / whole.len();
            assert_eq!(found.len(), vocab_size * whole.len());
            for (found, whole) in found.chunks_exact(vocab_size).zip(&whole) {
                assert!(distance(found, whole) < tolerance, "{dtype:?}: {}", distance(found, whole));
                let (best, gap) = lead(whole);
                assert!(gap < 2.0 * tolerance || lead(found).0 == best, "{dtype:?}: another token");
            }
        }
    }
}

#[test]
fn heads_that_cannot_be_split_evenly_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let rank = ranks(3).remove(0);
    let refused = logits(&tiny(&folder, &Shape::default()), WeightDtype::F32, rank, 3);
    let refused = refused.expect_err("four heads over three ranks").to_string();
    assert!(refused.contains("cannot be split over 3 ranks"), "{refused}");
}
