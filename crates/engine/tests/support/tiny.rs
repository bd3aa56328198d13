//! A tiny model with random weights, and what asks its engine.

use engine::ops::KvDtype;
use engine::sampling::SamplingParams;
use engine::{
    Config, DeviceKind, Engine, Event, LoadOptions, LoadedModel, Request, SchedulerConfig, WeightKind,
};
use tiny_model::Shape;
use tokio::sync::mpsc::Receiver;

pub(crate) fn load_as(weight_dtype: WeightKind, kv_dtype: KvDtype, kv_cache_tokens: usize) -> LoadedModel {
    load_shape(&Shape::default(), weight_dtype, kv_dtype, kv_cache_tokens)
}

pub(crate) fn load_shape(
    shape: &Shape,
    weight_dtype: WeightKind,
    kv_dtype: KvDtype,
    kv_cache_tokens: usize,
) -> LoadedModel {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, shape).expect("writes");
    let config =
        Config { device: DeviceKind::Cpu, weight_dtype, kv_cache_tokens, kv_dtype, max_model_len: None };
    LoadedModel::load(&path, LoadOptions { name: "tiny".into(), version: "1".into(), config }).expect("loads")
}

pub(crate) fn scheduler(config: SchedulerConfig) -> SchedulerConfig {
    SchedulerConfig { block_size: 8, max_num_batched_tokens: 64, ..config }
}

pub(crate) fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        request_id: "r".into(),
        prompt,
        sampling: SamplingParams { temperature: 0.0, logprobs: Some(3), ..SamplingParams::default() },
        max_tokens,
        stop: Vec::new(),
        ignore_eos: true,
        priority: 0,
        salt: String::new(),
        prompt_logprobs: None,
    }
}

pub(crate) fn submit(engine: &Engine, request: Request) -> Receiver<Event> {
    engine.submit(engine.reserve().expect("a place"), request).expect("the engine runs")
}
