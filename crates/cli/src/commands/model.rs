//! `tenk model pull|list|inspect|quantize`

use std::process::ExitCode;

use anyhow::Result;
use engine::quantize::{QuantizeOptions, dtype_name, parse_dtype, quantize};
use engine::{Inspection, inspect};
use model_store::ModelRef;

use crate::args::ModelCommand;
use crate::config::Config;
use crate::models::{cache_root, megabytes, pull};

pub(super) fn run(command: ModelCommand) -> Result<ExitCode> {
    match command {
        ModelCommand::Pull { model, common } => {
            let resolved = pull(&Config::load(&common)?, &model)?;
            eprintln!("{} is there ({})", resolved.name, megabytes(resolved.size_bytes));
            // Alone on standard output, for scripts.
            println!("{}", resolved.path.display());
        }
        ModelCommand::List { common } => list(&Config::load(&common)?)?,
        ModelCommand::Inspect { model, json, common } => {
            let root = cache_root(&Config::load(&common)?)?;
            let resolved = model_store::resolve(&root, &ModelRef::parse(&model)?)?;
            let inspection = inspect(&resolved.path)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&inspection)?);
            } else {
                show(&resolved.name, &inspection);
            }
        }
        ModelCommand::Quantize { input, output, to, force } => {
            let to = parse_dtype(&to)?;
            let report = quantize(&input, &output, to, &QuantizeOptions { force }, |progress| {
                eprint!("\r{}/{} tensors", progress.tensors_done, progress.tensors_total);
            })?;
            eprintln!();
            for tensor in report.fallbacks() {
                let (name, instead) = (&tensor.name, dtype_name(tensor.to));
                println!("{name} is {instead}: its rows do not fit the blocks of {}", dtype_name(to));
            }
            let (before, after) = (megabytes(report.input_bytes), megabytes(report.output_bytes));
            println!("{} ({before}) → {} ({after})", input.display(), output.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config) -> Result<()> {
    let root = cache_root(config)?;
    println!("{:<28} {:>10}  {:<10} what it is", "model", "size", "installed");
    for model in model_store::list(&root)? {
        let size = megabytes(model.size_bytes);
        let installed = if model.installed.is_some() { "yes" } else { "no" };
        println!("{:<28} {size:>10}  {installed:<10} {}", model.reference, model.description);
    }
    println!("\nin {}; `tenk model pull NAME` fetches one, hf:OWNER/REPO any other", root.display());
    Ok(())
}

fn show(name: &str, inspection: &Inspection) {
    let Inspection { format, architecture, quantization, num_layers, hidden_size, .. } = inspection;
    let Inspection { num_heads, num_kv_heads, vocab_size, context_len, .. } = inspection;
    let row = |what: &str, value: String| println!("{what:<22} {value}");
    row("model", name.to_owned());
    row("format", format!("{format}, mostly {quantization}"));
    row("architecture", (*architecture).to_owned());
    row("parameters", format!("{:.1} million", inspection.parameters as f64 / 1e6));
    row("layers", format!("{num_layers}, {hidden_size} wide"));
    row("heads", format!("{num_heads}, {num_kv_heads} for keys and values"));
    row("vocabulary", format!("{vocab_size} tokens"));
    row("context", format!("{context_len} tokens"));
    row("on disk", megabytes(inspection.file_bytes));
    row("weights in memory", format!("{} as f32", megabytes(inspection.weights_bytes as u64)));
    row("KV for 1,000 tokens", format!("{} as f16", megabytes(inspection.kv_bytes_per_1000_tokens as u64)));
    match &inspection.chat_template {
        Some(template) => println!("chat template\n{template}"),
        None => row("chat template", "none in the file; ChatML is used".into()),
    }
}
