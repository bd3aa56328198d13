//! A tokenizer for the load tester, which links none itself.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use engine::model::Weights;
use engine::tokenizer::Tokenizer;
use loadtest::CountTokens;

/// Opens the tokenizer in a file or folder, to count by. Blocking.
pub(crate) fn open(path: &Path) -> Result<CountTokens, String> {
    let name = path.display().to_string();
    let refuse = move |reason: String| {
        format!(
            "{name} must be a tokenizer.json, the folder of one, or a .gguf file, but its tokenizer cannot be used: \
             {reason}"
        )
    };
    let tokenizer = read(path).map_err(|error| refuse(crate::one_line(&error)))?;
    Ok(Box::new(move |text| {
        let ids = tokenizer.encode(text, false, false).map_err(|error| refuse(error.to_string()))?;
        Ok(ids.len() as u64)
    }))
}

fn read(path: &Path) -> Result<Tokenizer> {
    if path.is_dir() {
        ensure!(path.join("tokenizer.json").is_file(), "the folder has no tokenizer.json");
        return Ok(Tokenizer::from_dir(path)?);
    }
    std::fs::metadata(path)?;
    if path.extension().and_then(OsStr::to_str) == Some("json") {
        return Ok(Tokenizer::from_file(path)?);
    }
    let weights = Weights::open(path)?;
    match weights.gguf() {
        Some(content) => Tokenizer::from_gguf(&content.metadata).context("its tokenizer is not understood"),
        None => bail!("it is no GGUF file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gguf_file_counts_and_its_control_tokens_are_plain_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        tiny_model::write(&path, &tiny_model::Shape::default()).expect("a model");
        let count = open(&path).expect("a tokenizer");
        // A token a byte.
        assert_eq!([count("about able"), count(""), count("<|im_end|>")], [Ok(10), Ok(0), Ok(10)]);
    }

    #[test]
    fn a_tokenizer_json_counts_by_its_own_path_and_by_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let json = r#"{
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": [["a", "b"]]}
        }"#;
        std::fs::write(folder.path().join("tokenizer.json"), json).expect("written");
        for path in [folder.path().to_owned(), folder.path().join("tokenizer.json")] {
            let count = open(&path).expect("a tokenizer");
            assert_eq!(count("ab abb"), Ok(4), "{}", path.display());
        }
    }

    #[test]
    fn what_is_no_tokenizer_is_refused_with_its_path_and_what_to_give() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let absent = folder.path().join("absent.gguf");
        let (json, gguf) = (write("t.json", "{}"), write("t.gguf", "not a model"));
        for path in [absent.as_path(), folder.path(), &json, &gguf] {
            let refused = open(path).err().expect("refused");
            let start = format!(
                "{} must be a tokenizer.json, the folder of one, or a .gguf file, but ",
                path.display()
            );
            assert!(refused.starts_with(&start), "{refused}");
        }
    }
}
