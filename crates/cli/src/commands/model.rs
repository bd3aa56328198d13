//! `tenk model pull|list|inspect|quantize`

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use engine::model::dtype_name;
use engine::{Inspection, inspect};
use quantize::{QuantizeOptions, parse_dtype, quantize};
use serde::Serialize;

use super::{print, versions};
use crate::args::ModelCommand;
use crate::config::Config;
use crate::models::{cache_root, find, megabytes, pull};
use crate::voice::Voice;

pub(super) fn run(command: ModelCommand) -> Result<ExitCode> {
    match command {
        ModelCommand::Pull { model, config } => {
            let resolved = pull(&Config::load(config.config.as_deref())?, &model, Voice::Plain)?;
            eprintln!("{} is there ({})", resolved.name, megabytes(resolved.size_bytes));
            // Alone on standard output, for scripts.
            print(&format!("{}\n", resolved.path.display()))?;
        }
        ModelCommand::List { config } => print(&list(&Config::load(config.config.as_deref())?)?)?,
        ModelCommand::Inspect { model, json, config } => {
            let resolved = find(&Config::load(config.config.as_deref())?, &model)?;
            let described =
                Described { file_bytes: resolved.size_bytes, inspection: inspect(&resolved.path)? };
            print(&if json {
                format!("{}\n", serde_json::to_string_pretty(&described)?)
            } else {
                shape(&resolved.name, &described)
            })?;
        }
        ModelCommand::Quantize { input, output, to, force } => {
            print(&requantize(&input, &output, &to, force)?)?;
        }
        ModelCommand::Versions(command) => versions::run(command)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A model, as it lies on this machine.
#[derive(Serialize)]
struct Described {
    /// Of the file or folder.
    file_bytes: u64,
    #[serde(flatten)]
    inspection: Inspection,
}

fn requantize(input: &Path, output: &Path, to: &str, force: bool) -> Result<String> {
    let to = parse_dtype(to)?;
    let terminal = std::io::stderr().is_terminal();
    let result = quantize(input, output, to, &QuantizeOptions { force }, |progress| {
        if terminal {
            eprint!("\r{}/{} tensors", progress.tensors_done, progress.tensors_total);
        }
    });
    if terminal {
        eprintln!();
    }
    let report = result?;
    let mut text = String::new();
    for tensor in report.fallbacks() {
        let (name, instead) = (&tensor.name, dtype_name(tensor.to));
        text += &format!("{name} is {instead}: its rows do not fit the blocks of {}\n", dtype_name(to));
    }
    let (before, after) = (megabytes(report.input_bytes), megabytes(report.output_bytes));
    Ok(text + &format!("{} ({before}) → {} ({after})\n", input.display(), output.display()))
}

fn list(config: &Config) -> Result<String> {
    let root = cache_root(config)?;
    let mut text = format!("{:<28} {:>10}  {:<10} what it is\n", "model", "size", "installed");
    for model in model_store::list(&root)? {
        let size = megabytes(model.size_bytes);
        let installed = if model.installed.is_some() { "yes" } else { "no" };
        let line = format!("{:<28} {size:>10}  {installed:<10} {}", model.reference, model.description);
        text += line.trim_end();
        text.push('\n');
    }
    let root = root.display();
    Ok(text + &format!("\nin {root}; `tenk model pull NAME` fetches one, hf:OWNER/REPO any other\n"))
}

fn shape(name: &str, Described { file_bytes, inspection }: &Described) -> String {
    let Inspection { format, architecture, quantization, num_layers, hidden_size, .. } = inspection;
    let Inspection { num_heads, num_kv_heads, vocab_size, context_len, .. } = inspection;
    let weights_bytes = megabytes(inspection.weights_bytes as u64);
    let kept_as = if inspection.num_four_bits > 0 { "int4 and int8" } else { "int8" };
    let kv_bytes = megabytes(inspection.kv_bytes_per_1000_tokens as u64);
    let kv_int8_bytes = megabytes(inspection.kv_int8_bytes_per_1000_tokens as u64);
    let rows = [
        ("model", name.to_owned()),
        ("format", format!("{format}, mostly {quantization}")),
        ("architecture", (*architecture).to_owned()),
        ("parameters", format!("{:.1} million", inspection.parameters as f64 / 1e6)),
        ("layers", format!("{num_layers}, {hidden_size} wide")),
        ("heads", format!("{num_heads}, {num_kv_heads} for keys and values")),
        ("vocabulary", format!("{vocab_size} tokens")),
        ("context", format!("{context_len} tokens")),
        ("on disk", megabytes(*file_bytes)),
        ("weights in memory", format!("{weights_bytes} as {kept_as}")),
        ("KV for 1,000 tokens", format!("{kv_bytes} as f16, {kv_int8_bytes} as int8")),
    ];
    let mut text: String = rows.iter().map(|(what, value)| format!("{what:<22} {value}\n")).collect();
    match &inspection.chat_template {
        Some(template) => text += &format!("chat template\n{}\n", template.trim_end()),
        None => text += &format!("{:<22} none in the file; ChatML is used\n", "chat template"),
    }
    text
}
