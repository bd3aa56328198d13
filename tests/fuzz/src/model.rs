//! Model files from a stranger.

use std::path::Path;

use engine::{Config, DeviceKind, LoadOptions, LoadedModel, inspect};
use tempfile::TempDir;

/// A folder of this process's own. A fuzzer never ends in a way that would remove it, so it lies with what was built.
pub fn folder() -> TempDir {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    std::fs::create_dir_all(target).expect("a folder for all of them");
    tempfile::tempdir_in(target).expect("a folder")
}

/// Inspects and loads what is at `path`, and uses what came of it. Errors are as good as success; a panic is not.
pub fn read(path: &Path) {
    if let Err(error) = inspect(path) {
        assert!(!error.to_string().is_empty());
        return;
    }
    let config = Config { device: DeviceKind::Cpu, kv_cache_tokens: 64, ..Config::default() };
    let options = LoadOptions { name: "m".into(), version: "v".into(), config };
    let Ok(model) = LoadedModel::load(path, options) else { return };
    let tokenizer = model.tokenizer();
    if let Ok(ids) = tokenizer.encode("Hello <|im_start|> wörld\n 12", true, true) {
        tokenizer.decode(&ids, true);
    }
    tokenizer.decode(&[0, 1, u32::MAX], false);
}
