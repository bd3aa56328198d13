//! NVIDIA's load tester, in an environment of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::Bench;
use super::super::server::work_folder;
use crate::needs::python;

/// It refuses a folder's tokenizer when it is told to be offline: then only its cache counts.
const OFFLINE: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

pub(super) struct Aiperf {
    program: PathBuf,
    tokenizer: PathBuf,
    output: PathBuf,
    log: PathBuf,
}

impl Aiperf {
    pub(super) fn new(bench: &Bench) -> Result<Self> {
        let python = python::environment(&bench.target, python::OF_LOADTEST_BARS)?;
        let work = work_folder(&bench.target)?;
        let tokenizer = work.join("words");
        std::fs::create_dir_all(&tokenizer)?;
        for (file, content) in tokenizer_files() {
            std::fs::write(tokenizer.join(file), content.to_string())?;
        }
        let (output, log) = (work.join("aiperf"), work.join("aiperf.log"));
        Ok(Self { program: python.with_file_name("aiperf"), tokenizer, output, log })
    }

    /// Streams chats with answers of so many tokens, which it counts with a tokenizer of its own, and gives back its
    /// export.
    pub(super) fn run(&self, url: &str, tokens: u32, load: &[&str]) -> Result<Value> {
        // What an earlier run left must not be taken for this one's.
        if self.output.exists() {
            std::fs::remove_dir_all(&self.output)?;
        }
        let mut command = Command::new(&self.program);
        command.args([
            "profile",
            "--model",
            "scripted",
            "--endpoint-type",
            "chat",
            "--streaming",
            "--url",
            url,
        ]);
        command.args(["--isl", "32", "--isl-stddev", "0", "--osl-stddev", "0", "--osl", &tokens.to_string()]);
        command.args(["--random-seed", "1", "--no-server-metrics", "--no-gpu-telemetry", "--ui", "none"]);
        command.arg("--tokenizer").arg(&self.tokenizer).arg("--output-artifact-dir").arg(&self.output);
        command.args(load);
        OFFLINE.iter().for_each(|name| {
            command.env_remove(name);
        });
        let output = command.output().context("aiperf did not start")?;
        std::fs::write(&self.log, [output.stdout, output.stderr].concat())?;
        ensure!(output.status.success(), "aiperf failed; see {}", self.log.display());
        let export =
            std::fs::read(self.output.join("profile_export_aiperf.json")).context("aiperf's export")?;
        let export: Value = serde_json::from_slice(&export).context("aiperf's export is no JSON")?;
        let errors = export.pointer("/error_request_count/avg").and_then(Value::as_f64).unwrap_or(0.0);
        ensure!(errors == 0.0, "{errors} of aiperf's requests failed; see {}", self.log.display());
        Ok(export)
    }
}

/// Each word is a token: that is what the target sends.
fn tokenizer_files() -> [(&'static str, Value); 3] {
    let unknown = json!({"id": 0, "content": "[UNK]", "special": true, "normalized": false, "single_word": false,
        "lstrip": false, "rstrip": false});
    let model = json!({"type": "WordLevel", "vocab": {"[UNK]": 0, "word": 1}, "unk_token": "[UNK]"});
    let tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [unknown],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": model});
    [
        ("config.json", json!({"model_type": "llama", "vocab_size": 2})),
        (
            "tokenizer_config.json",
            json!({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}),
        ),
        ("tokenizer.json", tokenizer),
    ]
}
