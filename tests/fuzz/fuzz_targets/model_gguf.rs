//! A GGUF file from a stranger is loaded or refused, with no more memory than a file of its size may ask for.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(fuzz::model::folder);

fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("written");
    fuzz::model::read(&path);
});
