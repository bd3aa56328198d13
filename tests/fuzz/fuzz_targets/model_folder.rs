//! A Hugging Face folder from a stranger is loaded or refused, with no more memory than its files may ask for.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// What the input holds, in this order, with [`BETWEEN`] between.
const FILES: [&str; 7] = [
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "generation_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model.safetensors",
];
const BETWEEN: &[u8] = b"\n=====\n";

static FOLDER: LazyLock<TempDir> = LazyLock::new(fuzz::model::folder);

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    for name in FILES {
        let at = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        let content = &rest[..at.unwrap_or(rest.len())];
        rest = at.map_or(&[], |at| &rest[at + BETWEEN.len()..]);
        let path = FOLDER.path().join(name);
        if content.is_empty() {
            let _ = fs::remove_file(path);
        } else {
            fs::write(path, content).expect("written");
        }
    }
    fuzz::model::read(FOLDER.path());
});
